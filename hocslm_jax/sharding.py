"""Placement of arrays: a mesh ('data', 'model'), rules on parameter paths, and host shards.

Several streams in one program add an axis 'stream' before those two. Models do not depend on the
mesh. The batch is split over 'data'. A parameter is replicated unless a rule names its path:
splitting it over 'model' is tensor parallelism, over 'data' FSDP. Axes are `Auto`: XLA places
intermediate values, except those constrained by `spread`, `place_rows` and `gather`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm.model import LM_RULES

# A rule's value is the spec of all dimensions, or one axis, which splits the largest dimension that
# it divides.
Rules = Sequence[tuple[str, P | str]]

# The first match counts. The path of an optimiser's moment ends with its parameter's path, so rules
# begin with `(.*/)?` and shard both in the same way.
RULES: Rules = ((r".*", P()),)

# Trained parameters: the projector's hidden layer over 'model'; with FSDP, kernels over 'data'.
STATE_RULES: Rules = (
    (r"(.*/)?projector/up/kernel", P("data", "model")),
    (r"(.*/)?projector/out/kernel", P("model", "data")),
    (r"(.*/)?kernel", "data"),
)
WHOLE_BELOW = 2**14  # elements; splitting a smaller leaf costs more than it saves


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """`config.mesh`: the devices along each axis of the mesh.

    Attributes:
      stream: devices that divide the streams of `data.streams` among them.
      data: devices that divide the clips of a batch; -1 = all remaining devices.
      model: devices that divide the language model's weights (tensor parallelism).
      fsdp: True splits trained weights and their moments over the `data` devices too.
    """

    stream: int = 1
    data: int = -1
    model: int = 1
    fsdp: bool = False


def lm_rules(fsdp: bool) -> Rules:
    """Rules of the language model: over 'model', and with `fsdp` also over 'data'."""
    return _rules(LM_RULES, fsdp)


def state_rules(fsdp: bool) -> Rules:
    """Rules of trained parameters and their moments, as `lm_rules`."""
    return _rules(STATE_RULES, fsdp)


def _rules(rules: Rules, fsdp: bool) -> Rules:
    if not fsdp:
        named = ((rule, spec) for rule, spec in rules if spec != "data")
        rules = ((rule, P(*(a if a == "model" else None for a in spec))) for rule, spec in named)
    return (*rules, *RULES)


def make_mesh(
    data: int = -1, model: int = 1, devices: Sequence | None = None, stream: int = 0
) -> Mesh:
    """A (data, model) mesh over all devices; `data=-1` takes all remaining devices.

    If `stream` is not 0 (several streams in one program), that axis comes first, even with size 1.

    Raises:
        UserError: the product is not the number of devices.
    """
    devices = jax.devices() if devices is None else list(devices)
    others = model * (stream or 1)
    data = len(devices) // others if data == -1 and others > 0 else data
    if min(data, model) < 1 or stream < 0 or data * others != len(devices):
        also = f" x mesh.stream={stream}" if stream > 1 else ""
        raise UserError(
            f"mesh.data={data} x mesh.model={model}{also} is not the {len(devices)} devices here: "
            "set --config.mesh.data=-1 and let --config.mesh.model divide them"
        )
    axes = {"stream": stream} if stream else {}
    axes |= {"data": data, "model": model}
    placed = _arranged(axes, devices)
    return Mesh(placed, tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def _arranged(axes: dict[str, int], devices: list) -> np.ndarray:
    """The devices in the shape of a mesh, with axes along the links of their network.

    The network between TPU slices is slower, so 'data', the axis with least traffic, spans them.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if axes["data"] % slices:
        raise UserError(f"mesh.data={axes['data']} is not a multiple of the {slices} TPU slices")
    across = {axis: slices if axis == "data" else 1 for axis in axes}
    within = [size // across[axis] for axis, size in axes.items()]
    if slices == 1:
        return create_device_mesh(within, devices, allow_split_physical_axes=True)
    across = list(across.values())
    return create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P("data"))


def input_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of x [B, …] over 'data'; of several streams [B, S, …], also over 'stream'."""
    return NamedSharding(mesh, P("data", "stream") if "stream" in mesh.shape else P("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def spread(mesh: Mesh, x: jax.Array) -> jax.Array:
    """Inputs [B, …] with their rows split over 'model' too, if that divides them.

    For computations that no rule splits over 'model', whose devices would repeat the same rows.
    """
    rows, *rest = input_sharding(mesh).spec
    if mesh.shape["model"] == 1 or len(x) % (mesh.shape[rows] * mesh.shape["model"]):
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P((rows, "model"), *rest)))


def place_rows(mesh: Mesh) -> Callable | None:
    """A function that constrains x [B, …] to the sharding of the batch; None with one device.

    For results of spread inputs, or of weights that are split over 'data'.
    """
    if mesh.size == 1:
        return None
    return lambda x: jax.lax.with_sharding_constraint(x, batch_sharding(mesh))


def gather(tree, placed):
    """Gathers a tree, sharded as in `placed`, along 'data'.

    If one axis splits both the batch and a weight, XLA would otherwise sum partial activations.
    """

    def one(leaf, sharding: NamedSharding):
        if not _is_fsdp(sharding):
            return leaf
        spec = P(*(None if axis == "data" else axis for axis in sharding.spec))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(sharding.mesh, spec))

    return jax.tree.map(one, tree, placed)


def gather_layer(stacked) -> Callable | None:
    """`gather` for one layer, from the shardings of all stacked layers; None if none is split."""
    if not any(map(_is_fsdp, jax.tree.leaves(stacked))):
        return None
    layer = jax.tree.map(lambda s: NamedSharding(s.mesh, P(*s.spec[1:])), stacked)
    return lambda variables: gather(variables, {"params": layer})


def _is_fsdp(sharding: NamedSharding) -> bool:
    return "data" in sharding.spec and sharding.mesh.shape["data"] > 1


def path_name(path: tuple) -> str:
    """The name of a pytree path, e.g. `params/block_1/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def tree_shardings(tree, mesh: Mesh, rules: Rules = RULES):
    """The sharding of every leaf of a tree of arrays or shapes, by its path.

    A dimension that its mesh axis does not divide is not split. A rule of one axis does not split
    leaves of fewer than `WHOLE_BELOW` elements.

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


def abstract(tree, shardings):
    """Shapes and types of `tree` with `shardings`, for restoring."""
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, shardings
    )


def _fitting(spec: P | str, shape: tuple[int, ...], mesh: Mesh) -> P:
    if isinstance(spec, str):
        return _largest(spec, shape, mesh)

    def fits(axes, size: int) -> bool:
        axes = axes if isinstance(axes, tuple) else (axes,)
        return size % math.prod(mesh.shape[axis] for axis in axes) == 0

    pairs = zip(spec, shape, strict=False)
    return P(*(axes if axes is not None and fits(axes, size) else None for axes, size in pairs))


def _largest(axis: str, shape: tuple[int, ...], mesh: Mesh) -> P:
    """Splits the largest dimension that the axis divides; of equal ones, the last (the outputs)."""
    sizes = [(size, place) for place, size in enumerate(shape) if size % mesh.shape[axis] == 0]
    if not sizes or math.prod(shape) < WHOLE_BELOW:
        return P()
    return P(*([None] * max(sizes)[1]), axis)


def check_batch(mesh: Mesh, batch_size: int, name: str) -> None:
    """Raises UserError unless the 'data' axis divides the batch."""
    if batch_size < 1 or batch_size % mesh.shape["data"]:
        raise UserError(
            f"{name}={batch_size} is not a multiple of the {mesh.shape['data']} data-parallel "
            f"devices: change --config.{name} or --config.mesh.data"
        )


def host_shard(sharding: NamedSharding, batch_size: int) -> tuple[int, int]:
    """(index, count) of the slice of the global batch that this host must load.

    It can differ from (process_index, process_count): hosts that share a replica of the model load
    the same clips.
    """
    owned: dict[int, set] = {}
    for device, index in sharding.devices_indices_map((batch_size,)).items():
        rows = index[0].indices(batch_size)[:2]
        owned.setdefault(device.process_index, set()).add(rows)
    groups = sorted({tuple(sorted(rows)) for rows in owned.values()})
    return groups.index(tuple(sorted(owned[jax.process_index()]))), len(groups)


def shard_batch(sharding: NamedSharding, batch: dict[str, np.ndarray], batch_size: int) -> dict:
    """Global arrays [batch_size, …] from this host's slices."""

    def put(array):
        shape = (batch_size, *array.shape[1:])
        return jax.make_array_from_process_local_data(sharding, array, global_shape=shape)

    return jax.tree.map(put, batch)
