"""The arithmetic every block is made of, in the formulation that is fast on the backend at hand.

Features are channels-last, `[B, T, V, C]` (B counts clips x persons). Pointwise and temporal
convolutions are matrix products on the flattened rows, because XLA's gradients of 4-D products
spend their time in transposing copies; `aggregate` applies per-sample, per-channel topologies and
is the one place that chooses a formulation by backend.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer = Callable[..., jax.Array]

EPSILON = 1e-5  # of every BatchNorm


def fan_out_normal(out: int, taps: int = 1) -> Initializer:
    """Kaiming normal in fan-out mode with gain sqrt(2): std = sqrt(2 / (out * taps))."""
    return nn.initializers.normal(math.sqrt(2.0 / (out * taps)))


def jittered_ones(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """BatchNorm scales of CTR-GCN's temporal unit: N(1, 0.02)."""
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


class BatchNorm(nn.Module):
    """Batch normalisation over every axis but the last, with statistics in float32.

    PyTorch's `momentum=0.1` is 0.9 here. The running variance is the biased batch variance here
    and the unbiased one, n / (n - 1) larger, in PyTorch.
    """

    train: bool
    dtype: jnp.dtype = jnp.float32
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, shift: jax.Array | float = 0.0) -> jax.Array:
        """`shift` [C] is a bias of x that was not added: it would move the mean and no more."""
        shape = x.shape[-1:]
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
    """x [..., C] normalised by its own statistics, and these: (y, mean, variance) in float32.

    On an accelerator both statistics come from one pass over x, as sums of x - `near` [C] and of
    its square; with a `near` not far from the mean nothing is lost by taking one from the other.
    Its gradient keeps x alone, and writes x out in each formula instead of x - mean once: XLA:CPU
    stores what it uses twice, and traffic to memory is what a BatchNorm costs. The statistics pass
    no gradient on.
    """
    return _normalise(x, scale, bias, near)[0]


def _normalise(x, scale, bias, near):
    x32 = x.astype(jnp.float32)
    mean, var = jax.lax.platform_dependent(x32, near, cpu=_two_passes, default=_one_pass)
    inverse = jax.lax.rsqrt(var + EPSILON)
    factor = inverse * scale
    return (x32 * factor + (bias - mean * factor), mean, var), (x, mean, inverse, scale)


def _two_passes(x, near):
    """Mean and variance [C]. XLA:CPU would store x - near, which both sums of one pass use."""
    del near
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    return mean, jnp.square(x - mean).mean(axes)


def _one_pass(x, near):
    axes = tuple(range(x.ndim - 1))
    off = x - near
    mean = off.mean(axes)
    return near + mean, jnp.maximum(jnp.square(off).mean(axes) - jnp.square(mean), 0.0)


def _normalise_backward(saved, grads):
    x, mean, inverse, scale = saved
    grad, axes, count = grads[0], tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    x32 = x.astype(jnp.float32)
    grad_bias = grad.sum(axes)
    grad_scale = ((grad * x32).sum(axes) - mean * grad_bias) * inverse
    factor = inverse * scale
    slope = factor * inverse * grad_scale / count
    grad_x = factor * grad - slope * x32 + (slope * mean - factor * grad_bias / count)
    return grad_x.astype(x.dtype), grad_scale, grad_bias, jnp.zeros_like(mean)


normalise.defvjp(_normalise, _normalise_backward)


def keep_map(module: nn.Module, name: str, value) -> None:
    """Hands a topology or attention map to whoever applies the model with `mutable=["maps"]`."""
    if not module.is_initializing():
        module.sow("maps", name, value)


@jax.custom_vjp
def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x [..., C] @ kernel [C, O] -> [..., O] on flattened rows, and so are its gradients."""
    return (_rows(x) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def _product_forward(x, kernel):
    return product(x, kernel), (x, kernel)


def _product_backward(saved, grad):
    x, kernel = saved
    grad = _rows(grad)
    return (grad @ kernel.T).reshape(x.shape), _rows(x).T @ grad


product.defvjp(_product_forward, _product_backward)


def _rows(x: jax.Array) -> jax.Array:
    """x [..., C] -> [N, C], on a GPU in memory in this order before a product reads it.

    XLA's GPU compiler makes what comes before a product, transposes and broadcasts with it, a part
    of the product's kernel, and then finds no tiles for axes such as 25 joints.
    """
    rows = x.reshape(-1, x.shape[-1])
    settled = jax.lax.optimization_barrier
    return jax.lax.platform_dependent(rows, cuda=settled, default=lambda rows: rows)


def _settled(x: jax.Array) -> jax.Array:
    """x [..., C], in memory in the order of its axes: as rows it can lie in no other."""
    return jax.lax.optimization_barrier(x.reshape(-1, x.shape[-1])).reshape(x.shape)


class Pointwise(nn.Module):
    """A 1x1 convolution: [..., C] -> [..., features], on flattened rows.

    With `defer_bias` it gives (result without the bias, bias), for a BatchNorm that comes next.
    """

    features: int
    defer_bias: bool = False
    kernel_init: Initializer | None = None
    bias_init: Initializer = nn.initializers.zeros
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = self.kernel_init or fan_out_normal(self.features)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        y = product(x.astype(self.dtype), kernel.astype(self.dtype))
        bias = self.param("bias", self.bias_init, (self.features,))
        return (y, bias) if self.defer_bias else (y + bias).astype(self.dtype)


class TemporalConv(nn.Module):
    """A `taps` x 1 convolution along time: [B, T, V, C] -> ([B, T / stride, V, features], bias).

    Padded so that stride 1 keeps T; frames 0, s, 2s, ... are kept, with the same padding on both
    sides ("SAME" would shift by one frame at stride 2). The bias [features] is left to the
    BatchNorm that comes next.
    """

    features: int
    taps: int = 5
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.taps, x.shape[-1], self.features)
        kernel = self.param("kernel", fan_out_normal(self.features, self.taps), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride, self.dilation)
        return y, bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """x [B, T, V, C], kernel [taps, C, O] -> [B, T / stride, V, O].

    The shifted copies of x side by side turn it into one matrix product.
    """
    taps, channels, features = kernel.shape
    pad = dilation * (taps - 1) // 2
    windows = jnp.concatenate(shifted(x, taps, dilation, stride, pad, 0.0), axis=-1)
    y = windows.reshape(-1, taps * channels) @ kernel.reshape(-1, features)
    return y.reshape(*windows.shape[:-1], features)


def _convolve_forward(x, kernel, stride, dilation):
    return convolve(x, kernel, stride, dilation), (x, kernel)


def _convolve_backward(stride, dilation, saved, grad):
    """Both gradients are products with the windows of `grad`: those of x need not be kept."""
    x, kernel = saved
    taps, channels, features = kernel.shape
    pad = dilation * (taps - 1) // 2
    spread = x.shape[1] - (grad.shape[1] - 1) * stride - 1
    none, along_time = (0, 0, 0), (pad, pad + spread, stride - 1)
    grad = jax.lax.pad(grad, jnp.zeros((), grad.dtype), (none, along_time, none, none))
    starts = [(taps - 1 - tap) * dilation for tap in range(taps)]
    windows = jnp.concatenate([grad[:, s : s + x.shape[1]] for s in starts], axis=-1)
    rows = windows.reshape(-1, taps * features)
    grad_x = rows @ kernel.transpose(0, 2, 1).reshape(-1, channels)
    grad_kernel = x.reshape(-1, channels).T @ rows
    grad_kernel = grad_kernel.reshape(channels, taps, features).transpose(1, 0, 2)
    return grad_x.reshape(x.shape), grad_kernel


convolve.defvjp(_convolve_forward, _convolve_backward)


def subsample(x: jax.Array, stride: int) -> jax.Array:
    """Frames 0, s, 2s, ... of x [B, T, V, C] -> [B, ceil(T / s), V, C].

    It is `x[:, ::s]`, written as a reshape and a slice without a stride: XLA's GPU compiler aborts
    on some matrix products that read a strided slice.
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

    Of equal frames the first takes the gradient, as in PyTorch; an absent person makes many equal
    frames.
    """
    windows = shifted(x, 3, 1, stride, 1, -jnp.inf)
    return functools.reduce(lambda best, new: jnp.where(new > best, new, best), windows)


def aggregate(topologies: list[jax.Array], values: list[jax.Array]) -> jax.Array:
    """z[b,t,u,o] = sum over subsets s and senders v of topologies[s][b,u,v,o] * values[s][b,t,v,o].

    Args:
      topologies: one [B, V, V, O] per subset; axis 1 receives, axis 2 sends.
      values: one [B, T, V, O] per subset.

    Returns:
      [B, T, V, O] in the type of the values.
    """
    return _aggregate([topology.astype(values[0].dtype) for topology in topologies], values)


@jax.custom_vjp
def _aggregate(topologies, values):
    formulations = {"cpu": _loops, "tpu": _loops, "default": _products}
    return jax.lax.platform_dependent(topologies, values, **formulations)


def _products(topologies, values):
    """One matrix product for each sample and channel.

    Its operands are laid out once, senders last, for this product and for both of its gradients.
    """
    a, x = _matrices(jnp.stack(topologies, axis=3)), _matrices(jnp.stack(values, axis=3))
    z = jax.lax.dot_general(x, a, (((2,), (2,)), ((0,), (0,))))  # [B * O, T, U]
    batch, frames, joints, channels = values[0].shape
    return _settled(z.reshape(batch, channels, frames, joints).transpose(0, 2, 3, 1))


def _matrices(x: jax.Array) -> jax.Array:
    """[B, T, V, S, O] -> [B * O, T, S * V]."""
    batch, frames, joints, subsets, channels = x.shape
    return x.transpose(0, 4, 1, 3, 2).reshape(batch * channels, frames, subsets * joints)


def _from_matrices(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of `_matrices`, to the shape [B, T, V, S, O]."""
    batch, frames, joints, subsets, channels = shape
    return x.reshape(batch, channels, frames, subsets, joints).transpose(0, 2, 4, 3, 1)


def _loops(topologies, values):
    """One fused loop, three times as fast on XLA:CPU as the product.

    A TPU's matrix unit is little filled by matrices this small, and they need copies that bring the
    joints into its tiles; the loop is the vector unit's, with samples and channels in the tiles.
    """
    return _sum(
        (a[:, None, :, v], x[:, :, v, None])  # [B, 1, V, O] * [B, T, 1, O]
        for a, x in zip(topologies, values, strict=True)
        for v in range(x.shape[2])
    )


def _aggregate_forward(topologies, values):
    return _aggregate(topologies, values), (topologies, values)


def _aggregate_backward(saved, grad):
    formulations = {"cpu": _loops_backward, "tpu": _loops_backward, "default": _products_backward}
    return jax.lax.platform_dependent(*saved, grad, **formulations)


def _products_backward(topologies, values, grad):
    stacked, values = jnp.stack(topologies, axis=3), jnp.stack(values, axis=3)  # [B, U, V, S, O]
    a, x, g = _matrices(stacked), _matrices(values), _matrices(_settled(grad)[:, :, :, None])
    grad_values = jax.lax.dot_general(g, a, (((2,), (1,)), ((0,), (0,))))  # [B * O, T, S * V]
    grad_topologies = jax.lax.dot_general(g, x, (((1,), (1,)), ((0,), (0,))))  # [B * O, U, S * V]
    return (
        subsets_of(_from_matrices(grad_topologies, stacked.shape)),
        subsets_of(_from_matrices(grad_values, values.shape)),
    )


def subsets_of(x: jax.Array) -> list[jax.Array]:
    """[B, T, V, S, O] -> S x [B, T, V, O]."""
    return [x[:, :, :, s] for s in range(x.shape[3])]


def _loops_backward(topologies, values, grad):
    frames, joints = range(grad.shape[1]), range(grad.shape[2])
    grad_values = [_sum((a[:, None, u], grad[:, :, u, None]) for u in joints) for a in topologies]
    # Over t, unrolled: as a reduction XLA:CPU would first write out all B * T * V * V * O products.
    grad_topologies = [_sum((grad[:, t, :, None], x[:, t, None]) for t in frames) for x in values]
    return grad_topologies, grad_values


def _sum(pairs):
    """The sum of the products of pairs, made in float32 and given in their type."""
    pairs = list(pairs)
    products = (a.astype(jnp.float32) * b.astype(jnp.float32) for a, b in pairs)
    return functools.reduce(jnp.add, products).astype(pairs[0][0].dtype)


_aggregate.defvjp(_aggregate_forward, _aggregate_backward)
