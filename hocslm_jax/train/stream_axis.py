"""Several streams in one program: a leading axis of size S on each stream's own arrays.

In: `init`, `update` and `predict` of one stream. Out: those of S streams, side by side with `vmap`,
or in turn with `lax.map`. The step, the random key, labels and mask are shared, so each stream
draws the same numbers as alone; loss, gradient clipping and BatchNorm are independent for each
stream. S = 0 changes nothing.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from hocslm_jax.train.state import TrainState

OWN = ("params", "fixed", "batch_stats", "opt_state", "ema")
AXES = TrainState(step=None, rng=None, **dict.fromkeys(OWN, 0))


def stacked_init(init: Callable, size: int) -> Callable:
    """`(key, initial) -> TrainState`; all streams start from one key, `initial` is stacked."""
    if not size:
        return init
    return jax.vmap(init, in_axes=(None, 0), out_axes=AXES, axis_size=size)


def takes_turns(mesh: Mesh) -> bool:
    """Whether a mesh computes its streams one after another: on CPUs, as one keeps them busy.

    This is twice as fast there, and needs the temporary memory of only one stream.
    """
    return mesh.devices.flat[0].platform == "cpu" and mesh.shape.get("stream", 1) == 1


def stacked_update(update: Callable, size: int, in_turn: bool = False) -> Callable:
    """`(state, frozen, batch) -> (state, metrics, finite)`.

    In the batch only x has an axis of streams, [B, S, M, T, V, C]. The metrics and `finite` have
    shape [S].
    """
    if not size:
        return update

    def one_by_one(state: TrainState, frozen: dict, batch: dict):
        def one(stream):
            own, x = stream
            return update(state.replace(**own), frozen, batch | {"x": x})

        own = {name: getattr(state, name) for name in OWN}
        new, metrics, finite = jax.lax.map(one, (own, jnp.moveaxis(batch["x"], 1, 0)))
        return new.replace(step=new.step[0], rng=new.rng[0]), metrics, finite

    def step(state: TrainState, frozen: dict, batch: dict):
        shared = {name: 1 if name == "x" else None for name in batch}
        side_by_side = jax.vmap(update, in_axes=(AXES, None, shared), out_axes=(AXES, 0, 0))
        return side_by_side(state, frozen, batch)

    return one_by_one if in_turn else step


def stacked_predict(predict: Callable, size: int, in_turn: bool = False) -> Callable:
    """`(variables, x [B, S, M, T, V, C]) -> logits [B, S, C]`."""
    if not size:
        return predict

    def one_by_one(variables: dict, x: jax.Array) -> jax.Array:
        logits = jax.lax.map(lambda own: predict(*own), (variables, jnp.moveaxis(x, 1, 0)))
        return jnp.moveaxis(logits, 0, 1)

    return one_by_one if in_turn else jax.vmap(predict, in_axes=(0, 1), out_axes=1)


def stacked_state(one: TrainState, size: int) -> TrainState:
    """Shapes and shardings of the state of S streams, split over 'stream', from those of one."""

    def side_by_side(a: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        split = NamedSharding(a.sharding.mesh, P("stream", *a.sharding.spec))
        return jax.ShapeDtypeStruct((size, *a.shape), a.dtype, sharding=split)

    return _own(side_by_side, one) if size else one


def single_state(stacked: TrainState) -> TrainState:
    """The inverse of `stacked_state`."""

    def one(a: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        whole = NamedSharding(a.sharding.mesh, P(*a.sharding.spec[1:]))
        return jax.ShapeDtypeStruct(a.shape[1:], a.dtype, sharding=whole)

    return _own(one, stacked)


def make_pick(like: TrainState) -> Callable:
    """`(stacked state, place) -> TrainState` of one stream, sharded as `like`."""
    placed = jax.tree.map(lambda a: a.sharding, like)

    def pick(state: TrainState, place: int) -> TrainState:
        return _own(lambda a: a[place], state)

    return jax.jit(pick, out_shardings=placed)


def named_metrics(metrics: dict, streams: Sequence[str]) -> dict:
    """(sum, count) on the host, of all streams together as `loss`, of each as `loss/joint`."""
    if not streams:
        return metrics
    named = {name: (total.sum(), count.sum()) for name, (total, count) in metrics.items()}
    for place, stream in enumerate(streams):
        for name, (total, count) in metrics.items():
            named[f"{name}/{stream}"] = (total[place], count[place])
    return named


def _own(change: Callable, state: TrainState) -> TrainState:
    """Applies `change` to every leaf that each stream has."""
    return state.replace(**{name: jax.tree.map(change, getattr(state, name)) for name in OWN})
