"""Losses: pure functions from a model's outputs to what is minimised and what is logged.

In: float32 logits and the batch's targets and mask. Out: `(scalar, {name: (sum, count)})`; sums and
counts add up over steps and hosts, a mean is taken only when a number is shown.
"""

import jax
import jax.numpy as jnp
import optax

Metrics = dict[str, tuple[jax.Array, jax.Array]]


def classification(
    logits: jax.Array, label: jax.Array, mask: jax.Array
) -> tuple[jax.Array, Metrics]:
    """Mean cross-entropy over the real clips of a batch (CTR-GCN's only loss).

    Args:
        logits: float32 [B, C].
        label: int32 [B].
        mask: float32 [B]; 1 for a clip, 0 for padding.

    Returns:
        The mean, and `loss` and `top1` as (sum, count).
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), label)
    total, count = (losses * mask).sum(), mask.sum()
    correct = ((logits.argmax(-1) == label) * mask).sum()
    return total / jnp.maximum(count, 1.0), {"loss": (total, count), "top1": (correct, count)}
