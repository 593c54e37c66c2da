"""Where arrays live: a mesh of ('data', 'model'), rules on parameter paths, and host shards.

Models know nothing of this. The batch is split over 'data'; a parameter is replicated until a rule
names its path. Axes are `Auto`, so XLA places the intermediate values.
"""

import math
import re
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hocslm_jax.errors import UserError
from hocslm_jax.models.qwen3.model import QWEN3_RULES

Rules = Sequence[tuple[str, P]]

# First match wins. The path of an optimiser's moment ends with its parameter's path, so rules start
# with `(.*/)?` and shard both alike.
RULES: Rules = ((r".*", P()),)


def lm_rules(fsdp: bool) -> Rules:
    """The language model's: over 'model', and with `fsdp` over 'data' as well."""
    if fsdp:
        return (*QWEN3_RULES, *RULES)
    over_model = ((rule, P(*(a if a == "model" else None for a in p))) for rule, p in QWEN3_RULES)
    return (*over_model, *RULES)


def make_mesh(data: int = -1, model: int = 1, devices: Sequence | None = None) -> Mesh:
    """A (data, model) mesh over all devices; `data=-1` takes what `model` leaves.

    Raises:
        UserError: the product is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    data = len(devices) // model if data == -1 and model > 0 else data
    if data < 1 or model < 1 or data * model != len(devices):
        raise UserError(
            f"mesh.data={data} x mesh.model={model} does not make the {len(devices)} devices here: "
            "set --config.mesh.data=-1 and let --config.mesh.model divide them"
        )
    types = (AxisType.Auto, AxisType.Auto)
    return jax.make_mesh((data, model), ("data", "model"), axis_types=types, devices=devices)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def path_name(path: tuple) -> str:
    """`params/block_1/kernel` of a pytree path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def tree_shardings(tree, mesh: Mesh, rules: Rules = RULES):
    """The sharding of every leaf of a tree of arrays or shapes, by its path.

    A dimension that its mesh axis does not divide stays whole.

    Raises:
        UserError: no rule matches a path (end the rules with `(r".*", P())`).
    """

    def one(path, leaf):
        name = path_name(path)
        for pattern, spec in rules:
            if re.fullmatch(pattern, name):
                return NamedSharding(mesh, _fitting(spec, leaf.shape, mesh))
        raise UserError(f"no sharding rule matches {name}: end the rules with (r'.*', P())")

    return jax.tree.map_with_path(one, tree)


def _fitting(spec: P, shape: tuple[int, ...], mesh: Mesh) -> P:
    def fits(axes, size: int) -> bool:
        axes = axes if isinstance(axes, tuple) else (axes,)
        return size % math.prod(mesh.shape[axis] for axis in axes) == 0

    pairs = zip(spec, shape, strict=False)
    return P(*(axes if axes is not None and fits(axes, size) else None for axes, size in pairs))


def check_batch(mesh: Mesh, batch_size: int, name: str) -> None:
    """Raises UserError unless the 'data' axis divides the batch."""
    if batch_size < 1 or batch_size % mesh.shape["data"]:
        raise UserError(
            f"{name}={batch_size} is not a multiple of the {mesh.shape['data']} data-parallel "
            f"devices: change --config.{name} or --config.mesh.data"
        )


def host_shard(sharding: NamedSharding, batch_size: int) -> tuple[int, int]:
    """(index, count) of the slice of the global batch that this host must load.

    Not always (process_index, process_count): hosts that share a model replica load the same clips.
    """
    owned: dict[int, set] = {}
    for device, index in sharding.devices_indices_map((batch_size,)).items():
        rows = index[0].indices(batch_size)[:2]
        owned.setdefault(device.process_index, set()).add(rows)
    groups = sorted({tuple(sorted(rows)) for rows in owned.values()})
    return groups.index(tuple(sorted(owned[jax.process_index()]))), len(groups)


def shard_batch(sharding: NamedSharding, batch: dict[str, np.ndarray], batch_size: int) -> dict:
    """Global arrays [batch_size, …] from this host's slice of each."""

    def put(array):
        shape = (batch_size, *array.shape[1:])
        return jax.make_array_from_process_local_data(sharding, array, global_shape=shape)

    return jax.tree.map(put, batch)
