"""Temporal modules: `LTC` (local multi-scale convolutions), `GTA` (attention over all frames) and
`DHT`, their sum (HocSLM eqs. 8-10). All map [B, T, V, C] to [B, T / stride, V, C].
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from hocslm_jax.models.layers import (
    Pointwise,
    TemporalConv,
    fan_out_normal,
    keep_map,
    max_pool_time,
    product,
    subsample,
)
from hocslm_jax.models.normalisation import BatchNorm, jittered_ones


class LTC(nn.Module):
    """Local temporal convolution, HocSLM eq. 9: CTR-GCN's multi-scale unit.

    Four concatenated branches of a quarter of the channels each: two convolutions over 5 frames
    (dilation 1 and 2), a max-pool over 3 frames, and a strided 1x1 convolution. The first three
    share a 1x1 product and its BatchNorm, and all four the last BatchNorm; both are per channel, so
    this equals separate ones.
    """

    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        width = x.shape[-1] // 4

        def norm(name: str):
            return BatchNorm(train, self.dtype, jittered_ones, name=name)

        y = Pointwise(3 * width, True, _branch_normal, dtype=self.dtype, name="reduce")(x)
        y = jax.nn.relu(norm("reduce_bn")(*y))  # [B, T, V, 3C/4]
        near = TemporalConv(width, 5, self.stride, 1, self.dtype, name="conv1")
        wide = TemporalConv(width, 5, self.stride, 2, self.dtype, name="conv2")
        first, second, third = jnp.split(y, 3, axis=-1)
        pooled = max_pool_time(third, self.stride), jnp.zeros(width)
        skip = Pointwise(width, True, dtype=self.dtype, name="skip")
        skip = skip(subsample(x, self.stride))
        # Four of [B, T / stride, V, C/4], each with the bias [C/4] that the norm adds.
        branches, biases = zip(near(first), wide(second), pooled, skip, strict=True)
        return norm("bn")(jnp.concatenate(branches, axis=-1), jnp.concatenate(biases))


def _branch_normal(key: jax.Array, shape: tuple[int, int], dtype=jnp.float32) -> jax.Array:
    """Kaiming fan-out of a third of the columns, since each branch is a separate convolution."""
    return (2.0 / (shape[-1] // 3)) ** 0.5 * jax.random.normal(key, shape, dtype)


class GTA(nn.Module):
    """Global temporal attention, HocSLM eq. 8: every joint attends over all of its frames.

    The paper does not give the details. Here: a single head, queries and keys of a quarter of the
    channels, values of all, softmax over the frames in float32, and at stride s queries from frames
    0, s, 2s, ... `position="relative"` adds a learnable bias per frame distance, which is not in
    the paper. Beside LTC, the scales of the last BatchNorm start at 0, so that the block starts as
    LTC. With `alone` they start near 1 as in LTC: the first block has no shortcut, so zeros would
    block all gradients.
    """

    stride: int = 1
    position: str = "none"
    alone: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels, width = x.shape[-1], x.shape[-1] // 4
        features = {"query": width, "key": width, "value": channels}
        parts = {name: self.param(name, projection, (channels, n)) for name, n in features.items()}
        kernel = jnp.concatenate([part["kernel"] for part in parts.values()], axis=-1)
        # One product for all three; its result is transposed once, to [B, V, T, ...], the order of
        # the products below.
        qkv = product(x.astype(self.dtype), kernel.astype(self.dtype)).swapaxes(1, 2)
        query, key, value = jnp.split(qkv, [width, 2 * width], axis=-1)
        query = (query[:, :, :: self.stride] + parts["query"]["bias"]).astype(self.dtype)
        key = (key + parts["key"]["bias"]).astype(self.dtype)
        logits = jnp.einsum("bvtd,bvsd->bvts", query, key)  # [B, V, T', T]
        logits = logits.astype(jnp.float32) / width**0.5
        if self.position == "relative":
            logits = logits + self.relative_bias(x.shape[1])
        attention = jax.nn.softmax(logits)
        keep_map(self, "attention", attention)
        y = jnp.einsum("bvts,bvsc->bvtc", attention.astype(self.dtype), value)  # [B, V, T', C]
        start = jittered_ones if self.alone else nn.initializers.zeros
        y = BatchNorm(train, self.dtype, start, name="bn")(y, parts["value"]["bias"])
        return y.swapaxes(1, 2)

    def relative_bias(self, frames: int) -> jax.Array:
        """[T', T]: one learnable number per signed distance between query and key frame."""
        table = self.param("relative_bias", nn.initializers.zeros, (2 * frames - 1,))
        queries = jnp.arange(0, frames, self.stride)[:, None]
        return table[queries - jnp.arange(frames) + frames - 1]


def projection(key: jax.Array, shape: tuple[int, int]) -> dict[str, jax.Array]:
    """Initial kernel [C, O] and bias [O], as those of `Pointwise`."""
    return {"kernel": fan_out_normal(shape[-1])(key, shape), "bias": jnp.zeros(shape[-1])}


class DHT(nn.Module):
    """Dynamic hierarchical temporal module, HocSLM eq. 10: w_G * GTA(x) + w_L * LTC(x).

    The weights are learnable scalars that start at 1. If one part is off, the module is the other.
    """

    stride: int = 1
    gta: bool = True
    ltc: bool = True
    position: str = "none"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        parts = []
        if self.gta:
            gta = GTA(self.stride, self.position, not self.ltc, self.dtype, name="gta")
            parts.append(gta(x, train))
        if self.ltc:
            parts.append(LTC(self.stride, self.dtype, name="ltc")(x, train))
        if len(parts) == 1:
            return parts[0]
        weights = self.param("fusion", nn.initializers.ones, (2,))  # float32, like their gradients
        return (weights[0] * parts[0] + weights[1] * parts[1]).astype(self.dtype)
