"""Everything that training changes, as one pytree.

In: a Linen model, an optimiser, a seed and, in a later stage, weights of an earlier one. Out: a
`TrainState`, created in the sharding of the mesh. It never contains the language model, which is an
argument of the step.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from hocslm_jax.models.hocslm import GROUPS


@flax.struct.dataclass
class TrainState:
    step: jax.Array  # int32 []; number of updates
    params: dict  # the trained groups
    fixed: dict  # the frozen groups of this stage, without gradients and moments
    batch_stats: dict  # BatchNorm's running mean and variance
    opt_state: optax.OptState
    ema: dict | None  # averaged "params" and their "batch_stats", or None if off
    rng: jax.Array  # a typed key; step n draws from fold_in(rng, n)


def make_init(
    model: nn.Module,
    tx: optax.GradientTransformation,
    clip_shape: tuple[int, ...],
    ema: bool,
    train: tuple[str, ...] = GROUPS,
) -> Callable[[jax.Array, dict], TrainState]:
    """`(key, initial) -> TrainState`, pure, for `jit` and `eval_shape`; clip_shape is (M, T, V, C).

    `initial` is {"params", "batch_stats"} of the groups that do not start at random; it may be {}.
    `train` are the trained groups; parameters outside of groups are always trained.
    """

    def init(key: jax.Array, initial: dict) -> TrainState:
        weights, rng = jax.random.split(key)
        variables = model.init(weights, jnp.zeros((1, *clip_shape)), train=False)
        params = merged(variables["params"], initial.get("params", {}))
        fixed = {name: params[name] for name in params if name in GROUPS and name not in train}
        params = {name: group for name, group in params.items() if name not in fixed}
        batch_stats = merged(variables.get("batch_stats", {}), initial.get("batch_stats", {}))
        return TrainState(
            step=jnp.int32(0),
            params=params,
            fixed=fixed,
            batch_stats=batch_stats,
            opt_state=tx.init(params),
            ema={"params": params, "batch_stats": batch_stats} if ema else None,
            rng=rng,
        )

    return init


def merged(tree: dict, other: dict) -> dict:
    """A nested dict with some leaves replaced by those of another."""
    both = {
        key: merged(tree[key], value) if isinstance(value, dict) and key in tree else value
        for key, value in other.items()
    }
    return {**tree, **both}


def eval_variables(state: TrainState) -> dict:
    """The variables for `model.apply` in evaluation: the averaged weights if there are any."""
    live = {"params": state.params, "batch_stats": state.batch_stats}
    chosen = live if state.ema is None else state.ema
    return chosen | {"params": {**state.fixed, **chosen["params"]}}
