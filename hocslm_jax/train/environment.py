"""Where and with what a run ran, for its result file.

In: nothing but the process itself. Out: plain dicts, strings and ints for JSON.
"""

import os
import platform
import resource
import shlex
import sys
from importlib import metadata
from pathlib import Path

import jax

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
    """Most memory used so far: the fullest local device's, or the process's where JAX has none."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    if peaks:
        return max(peaks)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def use_compilation_cache(folder: str) -> None:
    """Keeps compiled programs in `folder` for the next start; "" does not."""
    if folder and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))


def command() -> str:
    """The command line, without the folders of the interpreter and the script."""
    return shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
