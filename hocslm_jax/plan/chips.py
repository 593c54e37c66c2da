"""The devices to plan for: those of this machine, or TPUs and GPUs that it lacks.

In: a topology such as `v5e:16x16` or `h100:8`, or `local`. Out: JAX devices to compile for, and the
published peak rates of their chip. libtpu and XLA's CUDA plugin serve only as compilers and never
search for devices.
"""

import dataclasses
import importlib.util
import os
import re

import jax
from jax.experimental import topologies

from hocslm_jax.errors import UserError
from hocslm_jax.plan.gpus import GPUS, target_config

GB = 1e9
GPUS_PER_HOST = 8
TPU_ENVIRONMENT = {  # libtpu must not query or wait for a TPU
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # safe, since no process uses a chip
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",  # any value; without one libtpu warns
}


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one chip, as one JAX device.

    Attributes:
      hbm: bytes.
      flops: dense bfloat16 FLOPs a second; TPUs use bfloat16 for float32 products by default.
      hbm_rate: bytes a second between memory and chip.
      link_rate: bytes a second that a chip can send over all its links together: half of the
        bidirectional figure.
      clock: cycles a second of the matrix units, computed from `flops` and their number and size; 0
        if these are not published. It converts the compiler's estimates into seconds.
    """

    hbm: float
    flops: float
    hbm_rate: float
    link_rate: float
    clock: float = 0.0


# TPUs: the pages v5e, v5p and v6e under docs.cloud.google.com/tpu/docs; v5e and v5p have four
# matrix units of 128 x 128 in a core, v5p two cores in a chip. GPUs: NVIDIA's data sheets of the
# SXM boards, dense products, NVLink in one direction; memory as in `gpus.GPUS`. RTX 4060: NVIDIA's
# product page; 512 FLOPs a cycle and core, with float32 sums, as in its Ada white paper; 8 lanes of
# PCIe 4.0.
CHIPS = {
    "v5e": Chip(16 * 2**30, 197e12, 819 * GB, 200 * GB, 197e12 / (2 * 4 * 128**2)),
    "v5p": Chip(95 * 2**30, 459e12, 2765 * GB, 600 * GB, 459e12 / (2 * 8 * 128**2)),
    "v6e": Chip(32 * 2**30, 918e12, 1638 * GB, 400 * GB),
    "a100": Chip(GPUS["a100"].memory, 312e12, 2039 * GB, 300 * GB),
    "h100": Chip(GPUS["h100"].memory, 989e12, 3350 * GB, 450 * GB),
    "h200": Chip(GPUS["h200"].memory, 989e12, 4800 * GB, 450 * GB),
    "b200": Chip(GPUS["b200"].memory, 2250e12, 7700 * GB, 900 * GB),
    "rtx4060": Chip(GPUS["rtx4060"].memory, 512 * 24 * 2.46e9, 272 * GB, 16 * GB),
}


def open_devices(topology: str) -> tuple[list[jax.Device], Chip | None]:
    """The devices of a topology, and their Chip if it is known.

    Raises:
        UserError: no compiler is installed, or the topology is unknown to it.
    """
    if topology == "local":
        devices = jax.devices()
        return devices, find_chip(devices[0].device_kind)
    name, _, shape = topology.partition(":")
    if "JAX_PLATFORMS" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    devices = _open_gpus(name, shape) if name in GPUS else _open_tpus(topology, shape)
    return devices, CHIPS.get(name)


def _open_gpus(name: str, count: str) -> list[jax.Device]:
    """`count` GPUs of that name, eight to a host if there are more."""
    topology = f"{name}:{count}"
    if not any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in (13, 12)):
        raise UserError(f'{topology} needs XLA\'s CUDA compiler: pip install "jax[cuda13]"')
    number = int(count) if count.isdigit() else 0
    hosts = -(-number // GPUS_PER_HOST)
    if number < 1 or (number > GPUS_PER_HOST and number % GPUS_PER_HOST):
        raise UserError(
            f"{topology} is not a number of GPUs: write {name}:1 to {name}:{GPUS_PER_HOST}, or a "
            f"multiple of {GPUS_PER_HOST}"
        )
    described = {"target_config": target_config(GPUS[name])}
    shape = f"1x{hosts}x{number // hosts}"
    return list(topologies.get_topology_desc(name, "cuda", topology=shape, **described).devices)


def _open_tpus(topology: str, shape: str) -> list[jax.Device]:
    """The chips of a TPU slice."""
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(f"{topology} needs the TPU compiler: pip install libtpu")
    for variable, value in TPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        sides = [int(side) for side in shape.split("x")]
        one = {"chips_per_host_bounds": (1, 1, 1)} if set(sides) == {1} else {}
        return list(topologies.get_topology_desc(topology, "tpu", **one).devices)
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        said = str(error).splitlines()[0]
        known = ", ".join(f"{gpu}:8" for gpu in GPUS)
        hint = f"give a TPU slice like v5e:4x4 or v5p:2x2x4, or GPUs like {known}"
        raise UserError(f"{topology} is not a topology ({said}): {hint}") from None


def find_chip(kind: str) -> Chip | None:
    """The chip of a `device_kind` such as "NVIDIA H100 80GB HBM3"; None if it is not known."""
    kinds = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}
    kind = kinds.get(kind, kind.lower().replace(" ", ""))
    others = "(?!ti|super|laptop)"  # GPUs of other figures, whose names begin alike
    return next((chip for name, chip in CHIPS.items() if re.search(name + others, kind)), None)
