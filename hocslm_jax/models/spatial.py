"""Spatial modules: from joint features to topologies, and the graph convolution that applies them.

`CTRGC` refines a learnable graph with the relations of joints (CTR-GCN); `CTS` combines a global
topology (`GSM`, eqs. 2-5) with a local one (`LSE`, eq. 6) as in eq. 7 of HocSLM. Both give one
topology [B, V, V, O] per subset, which `SpatialUnit` applies.

Letters of shapes: S subsets of the skeleton graph, B clips x persons, T frames, V joints, R width
of a relation, C and O input and output channels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hocslm_jax.graph import Graph, adjacency
from hocslm_jax.models.aggregation import aggregate, channels_first, channels_last, subsets_of
from hocslm_jax.models.formulations import by_platform
from hocslm_jax.models.layers import Pointwise, fan_out_normal, keep_map, product
from hocslm_jax.models.normalisation import BatchNorm
from hocslm_jax.models.relations import Expand, Relations, all_pairs, relate


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
        prior = self.param("graph", lambda _: jnp.asarray(adjacency(self.graph)))  # [S, V, V]
        alpha = self.param("alpha", nn.initializers.zeros, (1,))
        a, b = Relations(prior.shape[0], self.dtype, name="relations")(x)
        expand = Expand(self.features, self.dtype, name="expand")
        return expand(all_pairs(a, b, self.pair_mode), prior, alpha)


class GSM(nn.Module):
    """Global semantic modelling, HocSLM eqs. 2-5: a, b [S, B, V, R] -> S x [B, V, V, features].

    The token of joint i in channel r is its association row F[i, :, r]; all channels share the
    projections, so every channel is a head. The paper does not specify the following choices:
    softmax over the senders, width d = 16, Sim = sigmoid of the scaled logits, Dst =
    tanh(Q_i w - K_j w'), gamma on the global term. `use_attention=False` replaces G by F, which is
    CTR-GC with gamma as its alpha.
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
        """weight * A_G + rest, where `weight` is w_G of eq. 7 and `rest` [S, V, V] the static part
        of the other terms."""
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
        alpha, beta = gates[:, :, None, None, None, None]  # [S, 1, 1, 1, 1]

        a, b = a.swapaxes(2, 3), b.swapaxes(2, 3)  # [S, B, R, V]
        tokens = relate(a[..., None], b[..., None, :], self.pair_mode)  # [S, B, R, V, V]
        kernel = jnp.concatenate([query, key, eye], axis=-1).astype(self.dtype)  # [S, V, 2d + V]
        # Queries, keys and values by one product per subset, with rows in the order of the tokens.
        qkv = jnp.einsum("snj,sjd->snd", tokens.reshape(subsets, -1, joints), kernel)
        qkv = qkv.reshape(subsets, batch, relation, joints, -1)
        q, k, value = jnp.split(qkv, [self.width, 2 * self.width], axis=-1)  # [S, B, R, V, d or V]
        logits = jnp.einsum("sbrid,sbrjd->sbrij", q, k).astype(jnp.float32) / self.width**0.5
        attention = jax.nn.softmax(logits).astype(self.dtype)
        base = jnp.einsum("sbrij,sbrjv->sbriv", attention, value)  # eq. 2
        similarity = jax.nn.sigmoid(logits).astype(self.dtype)  # eq. 3
        q_end = jnp.einsum("sbrid,sd->sbri", q, ends[0])  # [S, B, R, V]
        k_end = jnp.einsum("sbrid,sd->sbri", k, ends[1])
        distance = jnp.tanh(q_end[..., None] - k_end[..., None, :])  # [S, B, R, V, V]
        keep_map(self, "attention", attention)
        mixed = base * (1.0 + alpha * similarity) + beta * distance  # eq. 4, float32
        return mixed.astype(self.dtype).transpose(0, 1, 3, 4, 2)


class LSE(nn.Module):
    """Local structure enhancement, HocSLM eq. 6: a, b [S, B, V, R] -> A_L in two parts.

    A_L = W_l[M * sigmoid(F W_2 + b_2) * ReLU(F W_1 + b_1)] + lambda * A, on the support M of each
    subset only. W_l has no bias, which preserves the mask, and starts at 0, so A_L starts as the
    skeleton. b_1 starts at 0.1, so that no unit starts dead. The paper does not specify the
    residual; it is the normalised graph here.

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
        zeros, alive = nn.initializers.zeros, nn.initializers.constant(0.1)
        energy = self.param("energy", init, square).astype(self.dtype)
        energy_bias = self.param("energy_bias", alive, (subsets, relation))
        gate = self.param("gate", init, square).astype(self.dtype)
        gate_bias = self.param("gate_bias", zeros, (subsets, relation))
        shape = (subsets, relation, self.features)
        expand = self.param("expand", zeros, shape).astype(self.dtype)
        bones = []
        for s in range(subsets):
            receive, send = np.nonzero(graph[s])
            edges = relate(a[s][:, receive], b[s][:, send], self.pair_mode)  # [B, E, R]
            rows = edges.reshape(-1, relation)  # [B * E, R]
            gated = jax.nn.relu(rows @ energy[s] + energy_bias[s])
            gated = gated * jax.nn.sigmoid(rows @ gate[s] + gate_bias[s])
            added = gated.astype(self.dtype) @ expand[s]  # [B * E, O]
            bones.append(added.reshape(*edges.shape[:2], self.features))
        return bones, residual[:, None, None] * graph


class CTS(nn.Module):
    """Composite topology, HocSLM eq. 7: w_G A_G + w_L A_L, [B, T, V, C] -> S x [B, V, V, features].

    The weights are learnable scalars that start at 0.5. Both terms, and so their sum, start as the
    skeleton. If one part is off, the topology is the other part. `gsm_attention=False` uses the
    pairwise tensor as the global term, which with `lse=False` is CTR-GC. The terms are added before
    they are expanded, so that one dense topology is stored instead of three.
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
            topologies = [jnp.broadcast_to(r, shape) for r in rest]  # S x [B, V, V, O]
        keep_map(self, "fusion", weights)
        for s, bone in enumerate(bones):
            bone = (weights[1] * bone).astype(self.dtype)
            topologies[s] = with_bones(topologies[s], bone, graph[s])
        return topologies


def with_bones(topology: jax.Array, bone: jax.Array, support: np.ndarray) -> jax.Array:
    """Adds bone [B, E, O] to topology [B, V, V, O] at the E pairs where support [V, V] is not 0."""

    def scattered(topology, bone):
        where = (slice(None), *np.nonzero(support))
        return topology.at[where].add(bone, unique_indices=True)

    def multiplied(topology, bone):
        one_hot = np.zeros((bone.shape[1], *support.shape), np.float32)  # [E, V, V]
        one_hot[(np.arange(bone.shape[1]), *np.nonzero(support))] = 1
        spread = jnp.einsum("beo,euv->bouv", bone, one_hot)
        return channels_last(channels_first(topology) + spread)

    return by_platform(topology, bone, default=scattered, onnx=multiplied)


class Values(nn.Module):
    """One 1x1 convolution per subset: [B, T, V, C] -> S x [B, T, V, features]."""

    features: int
    subsets: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> list[jax.Array]:
        shape = (self.subsets, x.shape[-1], self.features)
        kernel = self.param("kernel", fan_out_normal(self.features), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[::2])  # [S, O]
        return subset_products(x.astype(self.dtype), kernel, bias)


@jax.custom_vjp
def subset_products(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> list[jax.Array]:
    """x [B, T, V, C], kernel [S, C, O] and float32 bias [S, O] -> S x [B, T, V, O] like x.

    On a CPU these are separate products, since slices of one product would be copied. Elsewhere it
    is one product, whose parts `aggregate` uses together.
    """
    return by_platform(x, kernel, bias, cpu=_apart, onnx=_by_channel, default=_together)


def _apart(x, kernel, bias):
    return [(product(x, k) + b).astype(x.dtype) for k, b in zip(kernel, bias, strict=True)]


def _by_channel(x, kernel, bias):
    """Channels first, as `aggregate` needs for ONNX."""
    x = channels_first(x)
    pairs = zip(kernel, bias[..., None, None], strict=True)
    return [channels_last(jnp.einsum("co,bctv->botv", k, x) + b) for k, b in pairs]


def _together(x, kernel, bias):
    subsets, channels, features = kernel.shape
    values = product(x, kernel.swapaxes(0, 1).reshape(channels, -1))  # [B, T, V, S * O]
    values = (values + bias.reshape(-1)).astype(x.dtype)
    return subsets_of(values.reshape(*x.shape[:-1], subsets, features))


def _subset_products_forward(x, kernel, bias):
    return subset_products(x, kernel, bias), (x, kernel, bias)


def _subset_products_backward(saved, grads):
    def apart(inputs, grads):
        return jax.vjp(_apart, *inputs)[1](grads)

    def together(inputs, grads):
        return jax.vjp(_together, *inputs)[1](grads)

    return by_platform(saved, grads, cpu=apart, default=together)


subset_products.defvjp(_subset_products_forward, _subset_products_backward)


class SpatialUnit(nn.Module):
    """Graph convolution ReLU(BN(sum_s A_s (W_s x)) + down(x)): [B, T, V, C] -> [B, T, V, O].

    `topology` is a CTRGC or CTS module. The BatchNorm scale starts at 1e-6, so that a
    new block is close to its shortcut.
    """

    features: int
    topology: nn.Module
    subsets: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        topologies = self.topology(x)  # S x [B, V, V, O]
        keep_map(self, "topology", topologies)
        values = Values(self.features, self.subsets, self.dtype, name="value")
        z = aggregate(topologies, values(x))  # [B, T, V, O]
        z = BatchNorm(train, self.dtype, nn.initializers.constant(1e-6), name="bn")(z)
        if x.shape[-1] != self.features:
            x = Pointwise(self.features, True, dtype=self.dtype, name="down")(x)
            x = BatchNorm(train, self.dtype, name="down_bn")(*x)
        return jax.nn.relu(z + x)
