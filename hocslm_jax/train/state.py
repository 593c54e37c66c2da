"""What training changes, as one pytree.

In: a Linen model, an optimiser and a seed. Out: a `TrainState`, born in the sharding of the mesh.
Frozen parameters (a language model) are never in it: the step takes them as an argument.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


@flax.struct.dataclass
class TrainState:
    step: jax.Array  # int32 []; updates done
    params: dict
    batch_stats: dict  # BatchNorm's running mean and variance
    opt_state: optax.OptState
    ema: dict | None  # averaged params, or None when off
    rng: jax.Array  # a typed key; step n draws from fold_in(rng, n)


def make_init(
    model: nn.Module, tx: optax.GradientTransformation, clip_shape: tuple[int, ...], ema: bool
) -> Callable[[jax.Array], TrainState]:
    """`key -> TrainState`, pure, for `jit` and `eval_shape`; clip_shape is (M, T, V, C)."""

    def init(key: jax.Array) -> TrainState:
        weights, rng = jax.random.split(key)
        variables = model.init(weights, jnp.zeros((1, *clip_shape)), train=False)
        params = variables["params"]
        return TrainState(
            step=jnp.int32(0),
            params=params,
            batch_stats=variables.get("batch_stats", {}),
            opt_state=tx.init(params),
            ema=params if ema else None,
            rng=rng,
        )

    return init


def eval_variables(state: TrainState) -> dict:
    """What `model.apply` takes in evaluation: the averaged weights where there are any."""
    params = state.params if state.ema is None else state.ema
    return {"params": params, "batch_stats": state.batch_stats}
