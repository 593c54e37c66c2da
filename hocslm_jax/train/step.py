"""One update of the weights: the file to edit for a new training objective.

An objective is `(params, batch_stats, frozen, batch, rng) -> (loss, (batch_stats, metrics))`; the
step differentiates it in `params` and nothing else. `frozen` holds parameters that are used but not
trained, `{}` when there are none. All of it is pure and runs under one `jit`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from hocslm_jax import losses
from hocslm_jax.train.state import TrainState


def classify(model: nn.Module) -> Callable:
    """Strategy T0: cross-entropy on the class logits."""

    def objective(params, batch_stats, frozen, batch, rng):
        del frozen
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = model.apply(
            variables, batch["x"], train=True, mutable=["batch_stats"], rngs={"dropout": rng}
        )
        loss, metrics = losses.classification(logits, batch["label"], batch["mask"])
        return loss, (updated.get("batch_stats", {}), metrics)

    return objective


def make_train_step(
    objective: Callable, tx: optax.GradientTransformation, ema_decay: float = 0.0
) -> Callable:
    """`(state, frozen, batch) -> (state, metrics, finite)`.

    `metrics` are (sum, count) pairs on the device; `finite` is False when the loss or a gradient
    is not, and the new state is then worthless.
    """

    def train_step(state: TrainState, frozen: dict, batch: dict):
        rng = jax.random.fold_in(state.rng, state.step)
        (loss, (batch_stats, metrics)), grads = jax.value_and_grad(objective, has_aux=True)(
            state.params, state.batch_stats, frozen, batch, rng
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = optax.incremental_update(params, ema, 1 - ema_decay)
        grad_norm = optax.tree.norm(grads)
        metrics["grad_norm"] = (grad_norm, jnp.float32(1))
        state = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=ema,
        )
        return state, metrics, jnp.isfinite(loss) & jnp.isfinite(grad_norm)

    return train_step
