"""BatchNorm with statistics in float32 and little memory traffic.

`normalise` has a custom gradient, because the cost of a BatchNorm is reading and writing its input.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from hocslm_jax.models.formulations import by_platform

Initializer = Callable[..., jax.Array]

EPSILON = 1e-5  # of every BatchNorm


def jittered_ones(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """BatchNorm scales of CTR-GCN's temporal unit: N(1, 0.02)."""
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last, with statistics in float32.

    PyTorch's `momentum=0.1` corresponds to 0.9. The running variance is the biased batch variance,
    but in PyTorch the unbiased one, which is n / (n - 1) times larger.
    """

    train: bool
    dtype: jnp.dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, shift: jax.Array | float = 0.0) -> jax.Array:
        """x [..., C] -> [..., C].

        `shift` [C] is a bias that was not added to x, because it would only shift the mean.
        """
        shape = x.shape[-1:]  # [C], of all that follows
        scale = self.param("scale", self.scale_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        if not self.train:
            factor = scale * jax.lax.rsqrt(var.value + EPSILON)
            return (x * factor + (bias - (mean.value - shift) * factor)).astype(self.dtype)
        y, batch_mean, batch_var = normalise(x, scale, bias, mean.value - shift)
        if not self.is_initializing():
            mean.value = 0.9 * mean.value + 0.1 * (batch_mean + shift)
            var.value = 0.9 * var.value + 0.1 * batch_var
        return y.astype(self.dtype)


@jax.custom_vjp
def normalise(x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array):
    """Normalises x [..., C] by its own statistics.

    The gradient keeps only x, and its formulas use x instead of x - mean: XLA:CPU would store
    x - mean, which is used twice, and memory traffic is the cost of a BatchNorm.

    Args:
      x: [..., C].
      scale, bias: [C], applied afterwards.
      near: [C], values close to the mean; on an accelerator the statistics are sums of
        x - near and of its square, to avoid cancellation.

    Returns:
      y [..., C], mean [C] and variance [C] in float32. Only y passes a gradient on.
    """
    return _normalise(x, scale, bias, near)[0]


def _normalise(x, scale, bias, near):
    x32 = x.astype(jnp.float32)
    mean, var = by_platform(x32, near, cpu=_two_passes, default=_one_pass)
    inverse = jax.lax.rsqrt(var + EPSILON)  # [C]
    factor = inverse * scale
    return (x32 * factor + (bias - mean * factor), mean, var), (x, mean, inverse, scale)


def _two_passes(x, near):
    """Mean and variance [C] in two passes, for XLA:CPU, which would store x - near for one pass."""
    del near
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    return mean, jnp.square(x - mean).mean(axes)


def _one_pass(x, near):
    """Mean and variance in one pass; several devices add up both sums in one message."""
    axes = tuple(range(x.ndim - 1))
    off = x - near
    mean = off.mean(axes)
    return near + mean, jnp.maximum(jnp.square(off).mean(axes) - jnp.square(mean), 0.0)


def _normalise_backward(saved, grads):
    x, mean, inverse, scale = saved
    grad, axes, count = grads[0], tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    x32 = x.astype(jnp.float32)
    grad_bias = grad.sum(axes)  # [C]
    grad_scale = ((grad * x32).sum(axes) - mean * grad_bias) * inverse
    factor = inverse * scale
    slope = factor * inverse * grad_scale / count
    grad_x = factor * grad - slope * x32 + (slope * mean - factor * grad_bias / count)
    return grad_x.astype(x.dtype), grad_scale, grad_bias, jnp.zeros_like(mean)


normalise.defvjp(_normalise, _normalise_backward)
