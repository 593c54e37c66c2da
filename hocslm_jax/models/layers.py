"""Pointwise and temporal convolutions, pooling and subsampling: the layers of every block.

Features are channels-last, `[B, T, V, C]` (B counts clips x persons). Convolutions are matrix
products on the flattened rows, because XLA's gradients of 4-D products are slowed down by
transposing copies.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from hocslm_jax.models.formulations import by_platform

Initializer = Callable[..., jax.Array]


def fan_out_normal(out: int, taps: int = 1) -> Initializer:
    """Kaiming normal in fan-out mode with gain sqrt(2): std = sqrt(2 / (out * taps))."""
    return nn.initializers.normal(math.sqrt(2.0 / (out * taps)))


def keep_map(module: nn.Module, name: str, value) -> None:
    """Exposes a topology or attention map to callers that apply a model with `mutable=["maps"]`."""
    if not module.is_initializing():
        module.sow("maps", name, value)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., C] @ kernel [C, O] -> [..., O]; it and its gradients use flattened rows."""

    def flat(x, kernel):
        return (_rows(x) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])

    return by_platform(x, kernel, onnx=jnp.matmul, default=flat)


def _product_forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _product_backward(saved, grad):
    x, kernel = saved
    grad = _rows(grad)
    return (grad @ kernel.T).reshape(x.shape), _rows(x).T @ grad


product.defvjp(_product_forward, _product_backward)


def _rows(x: jax.Array) -> jax.Array:
    """x [..., C] -> [N, C]; on a GPU it is stored in this order before a product reads it.

    XLA's GPU compiler would otherwise fuse preceding operations, such as transposes, into the
    product's kernel, and then fail to tile axes such as 25 joints.
    """
    rows = x.reshape(-1, x.shape[-1])
    settled = jax.lax.optimization_barrier
    return by_platform(rows, cuda=settled, default=lambda rows: rows)


class Pointwise(nn.Module):
    """A 1x1 convolution: [..., C] -> [..., features], on flattened rows.

    With `defer_bias` it returns (result without the bias, bias), for the following BatchNorm.
    """

    features: int
    defer_bias: bool = False
    kernel_init: Initializer | None = None
    bias_init: Initializer = nn.initializers.zeros
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array | tuple[jax.Array, jax.Array]:
        init = self.kernel_init or fan_out_normal(self.features)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        y = product(x.astype(self.dtype), kernel.astype(self.dtype))
        bias = self.param("bias", self.bias_init, (self.features,))
        return (y, bias) if self.defer_bias else (y + bias).astype(self.dtype)


class TemporalConv(nn.Module):
    """A `taps` x 1 convolution along time: [B, T, V, C] -> ([B, T / stride, V, features], bias).

    Padded so that stride 1 keeps T; frames 0, s, 2s, ... are kept, with the same padding on both
    sides ("SAME" would shift by one frame at stride 2). The bias [features] is left to the
    following BatchNorm.
    """

    features: int
    taps: int = 5
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        shape = (self.taps, x.shape[-1], self.features)
        kernel = self.param("kernel", fan_out_normal(self.features, self.taps), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.dilation)
        return y, bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """x [B, T, V, C], kernel [taps, C, O] -> [B, T / stride, V, O].

    Shifted copies of x are concatenated, so that it is one matrix product.
    """
    taps, channels, features = kernel.shape
    pad = dilation * (taps - 1) // 2
    # [B, T / stride, V, taps * C]
    windows = jnp.concatenate(shifted(x, taps, dilation, stride, pad, 0.0), axis=-1)
    y = windows.reshape(-1, taps * channels) @ kernel.reshape(-1, features)
    return y.reshape(*windows.shape[:-1], features)


def _convolve_forward(x, kernel, stride, dilation):
    return convolve(x, kernel, stride, dilation), (x, kernel)


def _convolve_backward(stride, dilation, saved, grad):
    """Both gradients are products with windows of `grad`, so that windows of x need not be kept."""
    x, kernel = saved
    taps, channels, features = kernel.shape
    pad = dilation * (taps - 1) // 2
    spread = x.shape[1] - (grad.shape[1] - 1) * stride - 1
    none, along_time = (0, 0, 0), (pad, pad + spread, stride - 1)
    # Frames of x that the stride skipped get zeros: [B, T + 2 pad, V, O].
    grad = jax.lax.pad(grad, jnp.zeros((), grad.dtype), (none, along_time, none, none))
    starts = [(taps - 1 - tap) * dilation for tap in range(taps)]
    windows = jnp.concatenate([grad[:, s : s + x.shape[1]] for s in starts], axis=-1)
    rows = windows.reshape(-1, taps * features)  # [B * T * V, taps * O]
    grad_x = rows @ kernel.transpose(0, 2, 1).reshape(-1, channels)
    grad_kernel = x.reshape(-1, channels).T @ rows
    grad_kernel = grad_kernel.reshape(channels, taps, features).transpose(1, 0, 2)
    return grad_x.reshape(x.shape), grad_kernel


convolve.defvjp(_convolve_forward, _convolve_backward)


def subsample(x: jax.Array, stride: int) -> jax.Array:
    """Frames 0, s, 2s, ... of x [B, T, V, C] -> [B, ceil(T / s), V, C].

    Equal to `x[:, ::s]`, but a reshape and a slice without a stride, since XLA's GPU compiler
    aborts on some matrix products that read a strided slice.
    """
    if stride == 1:
        return x
    batch, frames, *rest = x.shape
    kept = -(-frames // stride)
    x = jnp.pad(x, ((0, 0), (0, kept * stride - frames), (0, 0), (0, 0)))
    return x.reshape(batch, kept, stride, *rest)[:, :, 0]


def shifted(x: jax.Array, taps: int, dilation: int, stride: int, pad: int, fill: float):
    """`taps` views of x [B, T, V, C], shifted along time and padded with `fill`: [B, T', V, C]."""
    frames = x.shape[1]
    out = (frames + 2 * pad - dilation * (taps - 1) - 1) // stride + 1
    padded = jnp.pad(x, ((0, 0), (pad, pad), (0, 0), (0, 0)), constant_values=fill)
    starts = (tap * dilation for tap in range(taps))
    return [padded[:, start : start + (out - 1) * stride + 1 : stride] for start in starts]


def max_pool_time(x: jax.Array, stride: int) -> jax.Array:
    """Max over windows of three frames, padded by one: [B, T, V, C] -> [B, T', V, C].

    Among equal frames the first gets the gradient, as in PyTorch; an absent person has many equal
    frames.
    """
    windows = shifted(x, 3, 1, stride, 1, -jnp.inf)

    def first(best, new):
        return jnp.where(new > best, new, best)

    def greater(best, new):
        return by_platform(best, new, onnx=jnp.maximum, default=first)

    return functools.reduce(greater, windows)
