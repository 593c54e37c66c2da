"""Spatial modules: from joint features to topologies, and the graph convolution that applies them.

`Relations` turns time-averaged features into two vectors a joint, which `relate` makes the relation
of any ordered pair of joints (eq. 1). Subsets lead, and a module forms its pairs in the order that
it multiplies them in, so that they need no copy. `CTRGC` refines a learnable graph with them
(CTR-GCN); `CTS` combines a global topology (`GSM`, eqs. 2-5) with a local one (`LSE`, eq. 6) as in
eq. 7 of HocSLM. Either gives, for each subset, a topology [B, V, V, O] per sample and channel,
which `SpatialUnit` applies. Maps are sown into the "maps" collection.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hocslm_jax.graph import Graph, adjacency
from hocslm_jax.models.layers import (
    BatchNorm,
    Pointwise,
    aggregate,
    fan_out_normal,
    keep_map,
    product,
    subsets_of,
)

PAIR_MODES = ("tanh_diff", "diff", "product")


def relate(a: jax.Array, b: jax.Array, mode: str = "tanh_diff") -> jax.Array:
    """Relation of receivers a to senders b, which broadcast against each other (eq. 1).

    `tanh_diff` is CTR-GCN's tanh(a_i - b_j) and our reading of the paper, which fixes only that all
    pairs are present.
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
    small, and not the result.
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
        # One plain product a subset: XLA:CPU runs a batched one far below its speed. The two sums
        # are apart, so that devices add up their gradients as small as these are.
        made = [product(x[s], kernel[s]) + bias[s] for s in range(subsets)]
        return [(y + graph[s]).astype(self.dtype) for s, y in enumerate(made)]


class Relations(nn.Module):
    """What a joint is as receiver and as sender: [B, T, V, C] -> a, b [S, B, V, R] (eq. 1).

    Averaging over time before the 1x1 convolutions equals CTR-GCN's order and costs T times less.
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
        ab = ab(pooled).reshape(*pooled.shape[:2], 2, self.subsets, relation)
        a, b = ab.transpose(2, 3, 0, 1, 4)
        return a, b


class CTRGC(nn.Module):
    """Channel-wise topology refinement (CTR-GCN): A_s + alpha * W_s F_s -> S x [B, V, V, features].

    The graph [S, V, V] is learnable and starts as the skeleton; alpha, one scalar, starts at 0.
    """

    features: int
    graph: Graph
    pair_mode: str = "tanh_diff"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        prior = self.param("graph", lambda _: jnp.asarray(adjacency(self.graph)))
        alpha = self.param("alpha", nn.initializers.zeros, (1,))
        a, b = Relations(prior.shape[0], self.dtype, name="relations")(x)
        expand = Expand(self.features, self.dtype, name="expand")
        return expand(all_pairs(a, b, self.pair_mode), prior, alpha)


class GSM(nn.Module):
    """Global semantic modelling, HocSLM eqs. 2-5: a, b [S, B, V, R] -> S x [B, V, V, features].

    The token of joint i in channel r is its association row F[i, :, r]; projections are shared by
    all channels, so that every channel is a head. Our reading where the paper is silent: softmax
    over the senders, width d = 16, Sim = sigmoid of the scaled logits, Dst = tanh(Q_i w - K_j w'),
    gamma on the global term. `use_attention=False` puts F itself in the place of G: CTR-GC, with
    gamma for its alpha.
    """

    features: int
    graph: Graph
    width: int = 16
    use_attention: bool = True
    pair_mode: str = "tanh_diff"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, a: jax.Array, b: jax.Array, weight: jax.Array, rest: jax.Array
    ) -> list[jax.Array]:
        """weight * A_G + rest: `weight` is w_G of eq. 7, `rest` [S, V, V] the static part of other
        terms."""
        prior = self.param("graph", lambda _: jnp.asarray(adjacency(self.graph)))  # [S, V, V]
        gamma = self.param("gamma", nn.initializers.zeros, (prior.shape[0],))
        mixed = self.mix(a, b) if self.use_attention else all_pairs(a, b, self.pair_mode)
        expand = Expand(self.features, self.dtype, name="expand")
        return expand(mixed, weight * prior + rest, weight * gamma)

    def mix(self, a: jax.Array, b: jax.Array) -> jax.Array:
        """Eqs. 2-4: G = Bse * (1 + alpha Sim) + beta Dst, [S, B, V, V, R]."""
        subsets, batch, joints, relation = a.shape
        lecun = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        query = self.param("query", lecun, (subsets, joints, self.width))
        key = self.param("key", lecun, (subsets, joints, self.width))
        eye = self.param("value", lambda _: jnp.tile(jnp.eye(joints), (subsets, 1, 1)))
        small = nn.initializers.normal(1.0 / self.width**0.5)
        ends = self.param("distance", small, (2, subsets, self.width)).astype(self.dtype)
        gates = self.param("gates", nn.initializers.ones, (2, subsets))
        alpha, beta = gates[:, :, None, None, None, None]

        a, b = a.swapaxes(2, 3), b.swapaxes(2, 3)
        tokens = relate(a[..., None], b[..., None, :], self.pair_mode)  # [S, B, R, V, V]
        kernel = jnp.concatenate([query, key, eye], axis=-1).astype(self.dtype)
        # One product a subset, whose rows stand in the order of the tokens.
        qkv = jnp.einsum("snj,sjd->snd", tokens.reshape(subsets, -1, joints), kernel)
        qkv = qkv.reshape(subsets, batch, relation, joints, -1)
        q, k, value = jnp.split(qkv, [self.width, 2 * self.width], axis=-1)
        logits = jnp.einsum("sbrid,sbrjd->sbrij", q, k).astype(jnp.float32) / self.width**0.5
        attention = jax.nn.softmax(logits).astype(self.dtype)
        base = jnp.einsum("sbrij,sbrjv->sbriv", attention, value)  # eq. 2
        similarity = jax.nn.sigmoid(logits).astype(self.dtype)  # eq. 3
        q_end = jnp.einsum("sbrid,sd->sbri", q, ends[0])
        k_end = jnp.einsum("sbrid,sd->sbri", k, ends[1])
        distance = jnp.tanh(q_end[..., None] - k_end[..., None, :])
        keep_map(self, "attention", attention)
        mixed = base * (1.0 + alpha * similarity) + beta * distance  # eq. 4, float32
        return mixed.astype(self.dtype).transpose(0, 1, 3, 4, 2)


class LSE(nn.Module):
    """Local structure enhancement, HocSLM eq. 6: a, b [S, B, V, R] -> A_L in two parts.

    A_L = W_l[M * sigmoid(F W_2 + b_2) * ReLU(F W_1 + b_1)] + lambda * A, on the support M of each
    subset only. W_l has no bias, which keeps the mask, and starts at 0, so that A_L starts as the
    skeleton; b_1 starts at 0.1 against dead units. The residual is our reading: the normalised
    graph itself.

    Returns:
      S x [B, E_s, features], the first term on the E_s bones of each subset (73 of NTU's 1,875
      pairs), in the order of `np.nonzero`; and lambda * A, [S, V, V].
    """

    features: int
    graph: Graph
    pair_mode: str = "tanh_diff"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, a: jax.Array, b: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        graph, relation = adjacency(self.graph), a.shape[-1]
        subsets = graph.shape[0]
        residual = self.param("residual", nn.initializers.ones, (subsets,))  # lambda
        square, init = (subsets, relation, relation), fan_out_normal(relation)
        zeros, warm = nn.initializers.zeros, nn.initializers.constant(0.1)
        energy = self.param("energy", init, square).astype(self.dtype)
        energy_bias = self.param("energy_bias", warm, (subsets, relation))
        gate = self.param("gate", init, square).astype(self.dtype)
        gate_bias = self.param("gate_bias", zeros, (subsets, relation))
        shape = (subsets, relation, self.features)
        expand = self.param("expand", zeros, shape).astype(self.dtype)
        bones = []
        for s in range(subsets):
            receive, send = np.nonzero(graph[s])
            edges = relate(a[s][:, receive], b[s][:, send], self.pair_mode)  # [B, E, R]
            rows = edges.reshape(-1, relation)
            gated = jax.nn.relu(rows @ energy[s] + energy_bias[s])
            gated = gated * jax.nn.sigmoid(rows @ gate[s] + gate_bias[s])
            added = gated.astype(self.dtype) @ expand[s]
            bones.append(added.reshape(*edges.shape[:2], self.features))
        return bones, residual[:, None, None] * graph


class CTS(nn.Module):
    """Composite topology, HocSLM eq. 7: w_G A_G + w_L A_L, [B, T, V, C] -> S x [B, V, V, features].

    The weights are learnable scalars that start at 0.5 each; both terms start as the skeleton,
    hence so does the sum. With one part only, that part is the topology. `gsm_attention=False`
    feeds the pairwise tensor straight into the global term, which with `lse=False` is CTR-GC. The
    sum is formed on the factors of the terms, so that one dense topology is written and not three.
    """

    features: int
    graph: Graph
    gsm: bool = True
    lse: bool = True
    gsm_attention: bool = True
    gsm_width: int = 16
    pair_mode: str = "tanh_diff"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        graph = adjacency(self.graph)
        a, b = Relations(graph.shape[0], self.dtype, name="relations")(x)
        weights = jnp.ones(2)
        if self.gsm and self.lse:
            weights = self.param("fusion", nn.initializers.constant(0.5), (2,))
        bones, rest = [], jnp.zeros(graph.shape)
        if self.lse:
            lse = LSE(self.features, self.graph, self.pair_mode, self.dtype, name="lse")
            bones, local = lse(a, b)
            rest = weights[1] * local
        if self.gsm:
            options = (self.gsm_width, self.gsm_attention, self.pair_mode, self.dtype)
            gsm = GSM(self.features, self.graph, *options, name="gsm")
            topologies = gsm(a, b, weights[0], rest)
        else:
            shape = (x.shape[0], *graph.shape[1:], self.features)
            rest = rest[..., None].astype(self.dtype)
            topologies = [jnp.broadcast_to(r, shape) for r in rest]
        keep_map(self, "fusion", weights)
        for s, bone in enumerate(bones):
            where = (slice(None), *np.nonzero(graph[s]))
            bone = (weights[1] * bone).astype(self.dtype)
            topologies[s] = topologies[s].at[where].add(bone, unique_indices=True)
        return topologies


class Values(nn.Module):
    """One 1x1 convolution per subset: [B, T, V, C] -> S x [B, T, V, features]."""

    features: int
    subsets: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        shape = (self.subsets, x.shape[-1], self.features)
        kernel = self.param("kernel", fan_out_normal(self.features), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[::2])
        x = x.astype(self.dtype)
        values = jax.lax.platform_dependent(x, kernel, cpu=_products_apart, default=_one_product)
        return [(value + b).astype(self.dtype) for value, b in zip(values, bias, strict=True)]


def _products_apart(x, kernel):
    """One product a subset: XLA:CPU would copy what it cuts out of the product of all."""
    return [product(x, subset) for subset in kernel]


def _one_product(x, kernel):
    subsets, channels, features = kernel.shape
    values = product(x, kernel.swapaxes(0, 1).reshape(channels, -1))  # [B, T, V, S * O]
    return subsets_of(values.reshape(*x.shape[:-1], subsets, features))


class SpatialUnit(nn.Module):
    """Graph convolution ReLU(BN(sum_s A_s (W_s x)) + down(x)): [B, T, V, C] -> [B, T, V, O].

    `topology` is a CTRGC or CTS module. The BatchNorm scale starts at 1e-6: a new block is its
    shortcut.
    """

    features: int
    topology: nn.Module
    subsets: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        topologies = self.topology(x)
        keep_map(self, "topology", topologies)
        values = Values(self.features, self.subsets, self.dtype, name="value")
        z = aggregate(topologies, values(x))
        z = BatchNorm(train, self.dtype, nn.initializers.constant(1e-6), name="bn")(z)
        if x.shape[-1] != self.features:
            x = Pointwise(self.features, True, dtype=self.dtype, name="down")(x)
            x = BatchNorm(train, self.dtype, name="down_bn")(*x)
        return jax.nn.relu(z + x)
