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


def fan_out_normal(out: int, taps: int = 1) -> Initializer:
    """Kaiming normal in fan-out mode with gain sqrt(2): std = sqrt(2 / (out * taps))."""
    return nn.initializers.normal(math.sqrt(2.0 / (out * taps)))


def jittered_ones(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """BatchNorm scales of CTR-GCN's temporal unit: N(1, 0.02)."""
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


def batch_norm(train: bool, dtype, name: str, scale_init: Initializer = nn.initializers.ones):
    """BatchNorm over every axis but the last; statistics in float32.

    PyTorch's `momentum=0.1` is Flax's 0.9. The running variance is the biased batch variance here
    and the unbiased one, n / (n - 1) larger, in PyTorch.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        scale_init=scale_init,
        use_fast_variance=False,
        name=name,
    )


def keep_map(module: nn.Module, name: str, value) -> None:
    """Hands a topology or attention map to whoever applies the model with `mutable=["maps"]`."""
    if not module.is_initializing():
        module.sow("maps", name, value)


class Pointwise(nn.Module):
    """A 1x1 convolution: [..., C] -> [..., features], on flattened rows."""

    features: int
    use_bias: bool = True
    kernel_init: Initializer | None = None
    bias_init: Initializer = nn.initializers.zeros
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = self.kernel_init or fan_out_normal(self.features)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        rows = x.reshape(-1, x.shape[-1]).astype(self.dtype)
        y = rows @ kernel.astype(self.dtype)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (self.features,)).astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


class TemporalConv(nn.Module):
    """A `taps` x 1 convolution along time: [B, T, V, C] -> [B, T / stride, V, features].

    Padded so that stride 1 keeps T; frames 0, s, 2s, ... are kept, with the same padding on both
    sides ("SAME" would shift by one frame at stride 2). The shifted copies side by side turn it
    into one matrix product.
    """

    features: int
    taps: int = 5
    stride: int = 1
    dilation: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, pad = x.shape[-1], self.dilation * (self.taps - 1) // 2
        shape = (self.taps, channels, self.features)
        kernel = self.param("kernel", fan_out_normal(self.features, self.taps), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        windows = jnp.concatenate(
            shifted(x.astype(self.dtype), self.taps, self.dilation, self.stride, pad, 0.0), axis=-1
        )  # [B, T', V, taps * C]
        rows = windows.reshape(-1, self.taps * channels)
        y = rows @ kernel.reshape(-1, self.features).astype(self.dtype) + bias.astype(self.dtype)
        return y.reshape(*windows.shape[:-1], self.features)


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
    topologies = [topology.astype(values[0].dtype) for topology in topologies]
    if jax.default_backend() == "cpu":
        return _aggregate_fused(topologies, values)
    return jnp.einsum("sbuvo,sbtvo->btuo", jnp.stack(topologies), jnp.stack(values))


@jax.custom_vjp
def _aggregate_fused(topologies, values):
    """`aggregate` as one fused loop, three times as fast on XLA:CPU as the einsum."""
    return _sum(
        a[:, None, :, v] * x[:, :, v, None]  # [B, 1, V, O] * [B, T, 1, O]
        for a, x in zip(topologies, values, strict=True)
        for v in range(x.shape[2])
    )


def _aggregate_forward(topologies, values):
    return _aggregate_fused(topologies, values), (topologies, values)


def _aggregate_backward(saved, grad):
    topologies, values = saved
    frames, joints = range(grad.shape[1]), range(grad.shape[2])
    grad_values = [_sum(a[:, None, u] * grad[:, :, u, None] for u in joints) for a in topologies]
    # Over t, unrolled: as a reduction XLA:CPU would first write out all B * T * V * V * O products.
    grad_topologies = [_sum(grad[:, t, :, None] * x[:, t, None] for t in frames) for x in values]
    return grad_topologies, grad_values


def _sum(terms):
    return functools.reduce(jnp.add, terms)


_aggregate_fused.defvjp(_aggregate_forward, _aggregate_backward)


@jax.custom_vjp
def add_graph(topology: jax.Array, graph: jax.Array) -> jax.Array:
    """topology [B, V, V, O] + graph [V, V], the same for every sample and channel.

    Its gradient sums over channels as a matrix product, far faster on XLA:CPU than the reduction.
    """
    return topology + graph[None, ..., None].astype(topology.dtype)


def _add_graph_backward(graph, grad):
    channels = grad.shape[-1]
    summed = grad.reshape(-1, channels) @ jnp.ones((channels, 1), grad.dtype)
    return grad, summed.reshape(-1, *graph.shape).sum(axis=0).astype(graph.dtype)


add_graph.defvjp(lambda topology, graph: (add_graph(topology, graph), graph), _add_graph_backward)
