"""Relations of joints (HocSLM eq. 1): from features to a value for each ordered pair of joints.

`Relations` computes two vectors per joint, `relate` combines those of a pair, and `Expand` turns
the pairwise tensor into topologies. Subsets are the leading axis, and each module forms its pairs
in the order of its products, so that no copy is needed.

Letters of shapes: S subsets of the skeleton graph, B clips x persons, T frames, V joints, R width
of a relation, C and O input and output channels.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from hocslm_jax.models.aggregation import channels_first, channels_last
from hocslm_jax.models.formulations import by_platform
from hocslm_jax.models.layers import Pointwise, fan_out_normal, product

PAIR_MODES = ("tanh_diff", "diff", "product")


def relate(a: jax.Array, b: jax.Array, mode: str = "tanh_diff") -> jax.Array:
    """Relation of receivers a to senders b, which broadcast against each other (eq. 1).

    `tanh_diff` is CTR-GCN's tanh(a_i - b_j), our choice; the paper only states that all pairs are
    used.
    """
    if mode == "product":
        return a * b
    return jnp.tanh(a - b) if mode == "tanh_diff" else a - b


def all_pairs(a: jax.Array, b: jax.Array, mode: str) -> jax.Array:
    """The pairwise tensor: a, b [S, B, V, R] -> F [S, B, V, V, R]; [i, j]: i receives, j sends."""
    return relate(a[..., None, :], b[..., None, :, :], mode)


class Expand(nn.Module):
    """A gated 1x1 convolution per subset on top of a graph: F [S, B, V, V, R] -> S x [B, V, V, O].

    Topology s is graph[s] + gate[s] * (W_s F_s + b_s). The gate scales the weights, which are
    smaller than the result.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, graph: jax.Array, gate: jax.Array) -> list[jax.Array]:
        subsets, channels = x.shape[0], x.shape[-1]
        shape = (subsets, channels, self.features)
        kernel = self.param("kernel", fan_out_normal(self.features), shape)
        bias = self.param("bias", nn.initializers.zeros, (subsets, self.features))
        kernel = (gate[:, None, None] * kernel).astype(self.dtype)
        bias, graph = gate[:, None] * bias, graph[..., None]  # [S, O], [S, V, V, 1]
        parts = (x, kernel, bias, graph)
        made = by_platform(*parts, onnx=_expanded_by_channel, default=_expanded)
        return [y.astype(self.dtype) for y in made]


def _expanded(x, kernel, bias, graph):
    """S x [B, V, V, O] of x [S, B, V, V, R], kernel [S, R, O], bias [S, O], graph [S, V, V, 1].

    One plain product per subset, because XLA:CPU is slow at batched ones. Bias and graph are added
    separately, so that devices exchange only their small gradients.
    """
    made = [product(part, k) + b for part, k, b in zip(x, kernel, bias, strict=True)]
    return [y + prior for y, prior in zip(made, graph, strict=True)]


def _expanded_by_channel(x, kernel, bias, graph):
    """Channels first, as `aggregate` needs for ONNX; graph and bias are two more channels of x."""
    made = []
    for part, k, b, prior in zip(x, kernel, bias, graph, strict=True):
        known = jnp.concatenate([prior, jnp.ones_like(prior)], axis=-1)  # [V, V, 2]
        known = jnp.broadcast_to(known, (part.shape[0], *known.shape))
        k = jnp.concatenate([k, jnp.ones_like(b)[None], b[None]])  # [R + 2, O]
        part = channels_first(jnp.concatenate([part, known], axis=-1))
        made.append(channels_last(jnp.einsum("ro,bruv->bouv", k, part)))
    return made


class Relations(nn.Module):
    """A joint's vectors as receiver and as sender: [B, T, V, C] -> a, b [S, B, V, R] (eq. 1).

    Averaging over time before the 1x1 convolutions gives CTR-GCN's result at a T-th of the cost.
    R = C / 8, at least 8.
    """

    subsets: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        relation = max(8, x.shape[-1] // 8)
        pooled = x.mean(axis=1)  # [B, V, C]
        init = fan_out_normal(relation)
        ab = Pointwise(2 * self.subsets * relation, kernel_init=init, dtype=self.dtype, name="ab")
        ab = ab(pooled).reshape(*pooled.shape[:2], 2, self.subsets, relation)  # [B, V, 2, S, R]
        a, b = ab.transpose(2, 3, 0, 1, 4)
        return a, b
