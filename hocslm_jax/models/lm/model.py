"""A dense decoder in Linen: input embeddings [B, T, D] -> hidden states [B, T, D] -> logits.

Qwen3, Qwen2 and Llama are one model, see `config.FAMILIES`.

Layers are scanned (parameters stacked along a leading layer axis) and rematerialised. Attention is
grouped-query, causal, in Qwen3 with per-head RMSNorm on queries and keys before RoPE. Right padding
needs no mask, since attention is causal. Inputs are embeddings rather than tokens, so that a visual
token can precede the words. The model is independent of devices.

Axes: B rows, T tokens, D width, V vocabulary, N heads, K key-value heads, H channels of a head,
F width of the MLP, L layers, S slots of a cache.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from hocslm_jax.models.lm.config import FAMILIES, LMConfig
from hocslm_jax.models.lm.linear import Linear
from hocslm_jax.models.lm.quantise import quantise_params
from hocslm_jax.models.lm.rope import rope_angles, rotate

_KERNEL = "(kernel|group_scale|group_offset)"  # and int4's arrays with the same axes
# Mesh axes of each parameter: vocabulary, heads and MLP over 'model', the embedding over 'data'.
# 'model' must divide the number of key-value heads.
LM_RULES = (
    (r"(.*/)?embed/embedding", P("model", "data")),
    (rf"(.*/)?blocks/[qkv]/{_KERNEL}", P(None, "data", "model", None)),
    (r"(.*/)?blocks/[qkv]/bias", P(None, "model", None)),
    (rf"(.*/)?blocks/o/{_KERNEL}", P(None, "model", None, "data")),
    (rf"(.*/)?blocks/(gate|up)/{_KERNEL}", P(None, "data", "model")),
    (rf"(.*/)?blocks/down/{_KERNEL}", P(None, "model", "data")),
    (r"(.*/)?lm_head/kernel", P("data", "model")),
)

Cache = dict[str, jax.Array]


class DecoderLM(nn.Module):
    """The layers of the language model; `embed` and `logits` are its input and output.

    Attributes:
        dtype: computation type, to which parameters are cast where they are used. RMSNorm, RoPE
            and softmax are computed in float32.
        remat: recompute each layer in the backward pass instead of keeping its activations.
        attention: `implementation` of `jax.nn.dot_product_attention`, see `attention_for`.
        weights: storage of the layers' matrices: "", "int8" or "int4", see `quantise`.
        gather: `{"params": layer} -> {"params": layer}`, applied to every layer before its use, to
            gather split weights. Implies `remat`: gathered layers are not kept.
    """

    config: LMConfig
    dtype: str = "bfloat16"
    remat: bool = True
    attention: str = "xla"
    weights: str = ""
    gather: Callable | None = None

    def setup(self):
        block = nn.map_variables(Block, "params", self.gather) if self.gather else Block
        if self.remat or self.gather:
            policy = jax.checkpoint_policies.nothing_saveable
            block = nn.remat(block, prevent_cse=False, policy=policy)
        scanned = nn.scan(
            block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast, 0),
            out_axes=0,
            length=self.config.num_layers,
        )
        config = self.config
        self.table = Embedding(config.vocab_size, config.hidden_size, name="embed")
        self.blocks = scanned(config, self.dtype, self.attention, self.weights)
        self.norm = RMSNorm(config.rms_norm_eps)
        if not config.tie_embeddings:
            self.lm_head = Linear((config.hidden_size, config.vocab_size))

    def __call__(
        self,
        embeddings: jax.Array,
        positions: jax.Array | None = None,
        segments: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states [B, T, D] after the final norm of embeddings [B, T, D].

        Args:
            positions: [T] or [B, T], for RoPE; by default 0, 1, 2, ...
            segments: int [B, T]; a token attends only to its own segment, so that one row can hold
                several texts, each with its own positions.
        """
        positions = jnp.arange(embeddings.shape[1]) if positions is None else positions
        seen = None
        if segments is not None:
            seen = (segments[:, :, None] == segments[:, None])[:, None]  # [B, 1, T, T]
        x = embeddings.astype(self.dtype)  # [B, T, D]
        x, _ = self.blocks(x, rope_angles(positions, self.config), (seen, None), None)
        hidden = self.norm(x)
        if self.is_initializing():  # input and output have parameters too
            self.embed(jnp.zeros((1, 1), jnp.int32))
            self.logits(hidden[:, :1])
        return hidden

    def embed(self, tokens: jax.Array) -> jax.Array:
        """Token ids [...] to their embeddings [..., D]."""
        return jnp.take(self.table(), tokens, axis=0).astype(self.dtype)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden states [..., D] to float32 logits [..., V]."""
        hidden = hidden.astype(self.dtype)
        if not self.config.tie_embeddings:
            return self.lm_head(hidden, out=jnp.float32)
        table = self.table().astype(self.dtype)
        return jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type=jnp.float32)

    def decode(self, embeddings: jax.Array, cache: Cache, start: jax.Array):
        """Continues every row from its position in the cache; for generation.

        Args:
            embeddings: [B, t, D], the next t tokens of each row.
            cache: from `init_cache`, or from the last call.
            start: int32 [B], number of tokens of each row in the cache. Later slots are overwritten
                before they are read, so a right-padded prefix needs no mask.

        Returns:
            (hidden [B, t, D] after the final norm, cache).
        """
        positions = start[:, None] + jnp.arange(embeddings.shape[1])  # [B, t]
        slots = jnp.arange(cache["k"].shape[2])  # [S]
        seen = slots <= positions[:, None, :, None]  # [B, 1, t, S]
        x = embeddings.astype(self.dtype)  # [B, t, D]
        x, cache = self.blocks(x, rope_angles(positions, self.config), (seen, start), cache)
        return self.norm(x), cache


class Block(nn.Module):
    """One pre-norm layer: x + attention, then x + SwiGLU. With a cache, also its new state."""

    config: LMConfig
    dtype: str
    attention: str
    weights: str

    @nn.compact
    def __call__(self, x: jax.Array, rope, window, cache):
        config, family = self.config, FAMILIES[self.config.family]
        width, heads = config.hidden_size, (config.num_heads, config.head_dim)
        groups = (config.num_kv_heads, config.head_dim)
        norm = functools.partial(RMSNorm, config.rms_norm_eps)

        y = norm(name="input_norm")(x)  # [B, T, D]
        linear = functools.partial(Linear, weights=self.weights)
        project = functools.partial(linear, bias=family.qkv_bias)
        query = project((width, *heads), name="q")(y)  # [B, T, N, H]
        key = project((width, *groups), name="k")(y)  # [B, T, K, H]
        value = project((width, *groups), name="v")(y)  # [B, T, K, H]
        if family.qk_norm:
            query, key = norm(name="q_norm")(query), norm(name="k_norm")(key)
        query, key = rotate(query, rope), rotate(key, rope)
        seen, start = window
        if cache is None:
            y = causal_attention(query, key, value, self.attention, seen)  # [B, T, N, H]
        else:
            cache = {"k": write(cache["k"], key, start), "v": write(cache["v"], value, start)}
            keys, values = (cache[name].astype(self.dtype) for name in ("k", "v"))  # [B, S, K, H]
            y = jax.nn.dot_product_attention(query, keys, values, mask=seen)
        x = x + linear((*heads, width), inputs=2, name="o")(y)  # [B, T, D]

        y = norm(name="post_norm")(x)
        gate = linear((width, config.intermediate_size), name="gate")(y)  # [B, T, F]
        up = linear((width, config.intermediate_size), name="up")(y)
        x = x + linear((config.intermediate_size, width), name="down")(jax.nn.silu(gate) * up)
        return x, cache


class Embedding(nn.Module):
    """The table [V, D], which a tied model uses for input and output."""

    vocab_size: int
    width: int

    @nn.compact
    def __call__(self) -> jax.Array:
        shape = (self.vocab_size, self.width)
        return self.param("embedding", nn.initializers.normal(0.02), shape)


class RMSNorm(nn.Module):
    """x / rms(x) over the last axis in float32; the scale multiplies after the cast back."""

    eps: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:]).astype(x.dtype)
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.eps)
        return scale * y.astype(x.dtype)


def attention_for(platform: str, config: LMConfig, dtype: str) -> str:
    """The fastest attention of a platform ("cpu", "gpu", "tpu"): cuDNN's on a GPU, else XLA's.

    cuDNN's supports 16-bit types and heads of at most 128 channels, a multiple of 8.
    """
    fits = config.head_dim <= 128 and config.head_dim % 8 == 0 and jnp.dtype(dtype).itemsize == 2
    return "cudnn" if fits and platform == "gpu" else "xla"


def causal_attention(
    query, key, value, implementation: str = "xla", seen: jax.Array | None = None
) -> jax.Array:
    """softmax(QK' / sqrt(H)) V over earlier positions: [B, T, N, H], grouped keys [B, T, K, H].

    The mask `seen`, bool [B, 1, T, T], excludes more positions; with a mask, XLA's attention is
    used, since cuDNN's would expand it to a bias for every head.
    """
    if seen is not None:
        implementation = "xla"
    return jax.nn.dot_product_attention(
        query, key, value, mask=seen, is_causal=True, implementation=implementation
    )


def write(cache: jax.Array, new: jax.Array, start: jax.Array) -> jax.Array:
    """Writes new [B, t, K, H] into cache [B, S, K, H], each row at its own start [B]."""
    row = functools.partial(jax.lax.dynamic_update_slice_in_dim, axis=0)
    return jax.vmap(row)(cache, new.astype(cache.dtype), start)


def init_cache(config: LMConfig, batch: int, length: int, dtype="bfloat16") -> Cache:
    """An empty key-value cache for `length` tokens per row: two arrays [L, B, S, K, H]."""
    shape = (config.num_layers, batch, length, config.num_kv_heads, config.head_dim)
    return {"k": jnp.zeros(shape, dtype), "v": jnp.zeros(shape, dtype)}


@functools.partial(jax.jit, static_argnames=("config", "dtype", "weights"))
def init_params(
    config: LMConfig, key: jax.Array, dtype: str = "float32", weights: str = ""
) -> dict:
    """Random parameters: N(0, 0.02) matrices, stored as in `weights`, and unit scales.

    Raises:
        UserError: a size that cannot be quantised.
    """
    embeddings = jnp.zeros((1, 1, config.hidden_size))
    params = DecoderLM(config, "float32").init(key, embeddings)["params"]
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    return quantise_params(params, config, weights) if weights else params


def param_shapes(config: LMConfig, dtype: str = "float32", weights: str = "") -> dict:
    """The `jax.ShapeDtypeStruct`s of `init_params`, with the same errors."""
    made = functools.partial(init_params, config, dtype=dtype, weights=weights)
    return jax.eval_shape(made, jax.random.key(0))


def num_params(config: LMConfig) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(param_shapes(config)))


def head_matrix(params: dict) -> jax.Array:
    """The output matrix [V, D]: the embedding itself when tied."""
    if "lm_head" in params:
        return params["lm_head"]["kernel"].T
    return params["embed"]["embedding"]
