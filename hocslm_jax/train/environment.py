"""The environment of a run: its processes, its machine, its versions.

In: the process and its environment variables. Out: a process that has joined the others of its run;
plain dicts, strings and ints for the result file.
"""

import contextlib
import ctypes
import faulthandler
import os
import platform
import resource
import shlex
import sys
import threading
from importlib import metadata
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from hocslm_jax import hosts
from hocslm_jax.errors import UserError

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
    "ml_collections",
)


# Seconds until the others notice a dead process; JAX's default of 100 s is too long to wait.
SILENCE_S = 20
# Seconds that a process waits for others to join.
JOIN_S = 120
# Seconds between the first and the last process that ends; longer waits happen before.
LEAVE_S = 300

COMPILATION_CACHE = "~/.cache/hocslm_jax/xla"  # a config, or JAX's variable, overrides it

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


# On two cores with AVX-512 they speed up one clip (results/benchmarks/encoder.json), and a train
# step slightly (changes.json in the same folder).
CPU_OPTIONS = {
    "xla_cpu_prefer_vector_width": 512,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
}


def init_options(platform: str) -> dict | None:
    """XLA's options for the program that initialises weights, which runs once.

    Without optimisation it compiles much faster, and still runs quickly.
    """
    return {"xla_backend_optimization_level": 0} if platform == "cpu" else None


def compiler_options(platform: str) -> dict | None:
    """XLA's options, besides the defaults, for programs with an encoder."""
    return CPU_OPTIONS if platform == "cpu" else None


def join_processes(join_s: float = JOIN_S) -> None:
    """Joins the other processes of a run on several hosts; CPUs communicate by gloo.

    Addresses and ids come from Slurm, Open MPI or a TPU pod, or else from JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID. Afterwards, if one process dies, JAX reports it and aborts
    all others, which would wait for it forever. If the others do not join within `join_s` seconds,
    this process reports that and exits with status 2.

    Raises:
        UserError: the address or ids are not set.
    """
    faulthandler.disable()  # its stack traces of all threads would hide JAX's message
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    said = {name: os.environ.get(f"JAX_{name.upper()}") for name in ("num_processes", "process_id")}
    # This process exits before JAX's own limit, at which JAX aborts with a C++ stack trace.
    patience = threading.Timer(join_s, hosts.give_up, [join_s])
    patience.daemon = True
    patience.start()
    try:
        sizes = {name: int(value) for name, value in said.items() if value}
        jax.distributed.initialize(
            **sizes,
            initialization_timeout=int(join_s) + 3600,
            heartbeat_timeout_seconds=SILENCE_S,
            shutdown_timeout_seconds=LEAVE_S,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--distributed: {str(error).splitlines()[0]} (JAX_COORDINATOR_ADDRESS, "
            "JAX_NUM_PROCESSES and JAX_PROCESS_ID are needed outside Slurm)"
        ) from error
    finally:
        patience.cancel()
    hosts.join_watch()
    # A first exchange, because gloo waits only 30 s for it; later waits may be longer.
    multihost_utils.sync_global_devices("joined")


def keep_memory() -> None:
    """On CPU, lets a step reuse the memory of the previous one, which saves a fifth of its time.

    glibc returns blocks of hundreds of megabytes to the system, and the next step has to allocate
    every page again. glibc can keep them only in the heap of the main thread, so the main thread
    runs the steps. Call this before JAX has devices. It has no effect on other backends and C
    libraries.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with contextlib.suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018  absent in other C libraries
        if jax.default_backend() == "cpu":
            libc.mallopt(M_MMAP_MAX, 0)
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def describe_machine() -> dict:
    """CPU, memory, and JAX's devices over all hosts."""
    devices = jax.devices()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "hosts": jax.process_count(),
    }


def describe_devices() -> str:
    """The devices of all hosts, in words: "8 x NVIDIA H100 on 2 hosts"."""
    devices = jax.devices()
    hosts = f" on {jax.process_count()} hosts" if jax.process_count() > 1 else ""
    return f"{len(devices)} x {devices[0].device_kind}{hosts}"


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the packages a number may depend on."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def peak_memory_bytes() -> int:
    """Peak memory of the fullest local device, or of the process if JAX does not report it."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    if peaks:
        return max(peaks)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def use_compilation_cache(folder: str = COMPILATION_CACHE) -> None:
    """Caches compiled programs in `folder` for later runs; "" turns the cache off.

    Its content is executed unchecked, so the folder never comes from a file that others wrote.
    """
    if folder and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small ones add up


def command() -> str:
    """The command line, without the folders of the interpreter and the script."""
    name = Path(sys.argv[0]).name
    program = ["python", name] if name.endswith(".py") else [name]  # a script, or `hocslm-jax`
    if name == "__main__.py":
        program = ["python", "-m", "hocslm_jax"]
    return shlex.join([*program, *sys.argv[1:]])


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
