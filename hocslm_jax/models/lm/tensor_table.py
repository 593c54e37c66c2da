"""The place of each `DecoderLM` parameter in a checkpoint, for all families and formats.

In: a config. Out: the names and shapes of each parameter's tensors, on disk and here.
`LAYOUT` lists them for Hugging Face and for GGUF.
"""

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from hocslm_jax.errors import UserError, few
from hocslm_jax.models.lm.config import FAMILIES, LMConfig

# Path here: (name in Hugging Face's files, name in GGUF, axes on disk, axes here). V vocabulary, D
# width, F MLP, N heads, K key-value heads, H head channels; "NH" is one axis on disk, with
# N * H elements. Tensors with a layer number are stacked here along a leading layer axis. Linear
# layers are [out, in] on disk and [in, out] here.
LAYOUT: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "embed/embedding": ("embed_tokens.weight", "token_embd.weight", ("V", "D"), "VD"),
    "blocks/q/kernel": ("self_attn.q_proj.weight", "attn_q.weight", ("NH", "D"), "DNH"),
    "blocks/k/kernel": ("self_attn.k_proj.weight", "attn_k.weight", ("KH", "D"), "DKH"),
    "blocks/v/kernel": ("self_attn.v_proj.weight", "attn_v.weight", ("KH", "D"), "DKH"),
    "blocks/q/bias": ("self_attn.q_proj.bias", "attn_q.bias", ("NH",), "NH"),
    "blocks/k/bias": ("self_attn.k_proj.bias", "attn_k.bias", ("KH",), "KH"),
    "blocks/v/bias": ("self_attn.v_proj.bias", "attn_v.bias", ("KH",), "KH"),
    "blocks/o/kernel": ("self_attn.o_proj.weight", "attn_output.weight", ("D", "NH"), "NHD"),
    "blocks/q_norm/scale": ("self_attn.q_norm.weight", "attn_q_norm.weight", ("H",), "H"),
    "blocks/k_norm/scale": ("self_attn.k_norm.weight", "attn_k_norm.weight", ("H",), "H"),
    "blocks/gate/kernel": ("mlp.gate_proj.weight", "ffn_gate.weight", ("F", "D"), "DF"),
    "blocks/up/kernel": ("mlp.up_proj.weight", "ffn_up.weight", ("F", "D"), "DF"),
    "blocks/down/kernel": ("mlp.down_proj.weight", "ffn_down.weight", ("D", "F"), "FD"),
    "blocks/input_norm/scale": ("input_layernorm.weight", "attn_norm.weight", ("D",), "D"),
    "blocks/post_norm/scale": ("post_attention_layernorm.weight", "ffn_norm.weight", ("D",), "D"),
    "norm/scale": ("norm.weight", "output_norm.weight", ("D",), "D"),
    "lm_head/kernel": ("lm_head.weight", "output.weight", ("V", "D"), "DV"),
}
EMBEDDING, HEAD = LAYOUT["embed/embedding"][0], LAYOUT["lm_head/kernel"][0]
# Prefixes of a language model's tensors: the usual one, none (Qwen3-Embedding), and two of
# vision-language models; and the prefix of the output matrix in such a checkpoint.
PREFIXES = {
    "model.": "",
    "": "",
    "model.language_model.": "",
    "language_model.model.": "language_model.",
}
# Tensors without influence on text: a vision tower, and tables that older files store.
IGNORED = re.compile(r"(model\.)?(visual|vision_tower)\..*|.*\.rotary_emb\.inv_freq")


class Parameter(NamedTuple):
    """A parameter: one tensor on disk, or one for each layer."""

    names: list[str]  # on disk, without a prefix
    gguf: list[str]  # in GGUF
    disk: tuple[str, ...]  # axes of a tensor on disk
    disk_shape: tuple[int, ...]
    ours: str  # axes of a layer here
    shape: tuple[int, ...]  # here, with the layers if it is stacked
    stacked: bool
    transposed: bool
    sizes: dict[str, int]  # of the axes


def parameters(config: LMConfig) -> dict[str, Parameter]:
    """The parameters of this config, by path."""
    sizes = {
        "V": config.vocab_size,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "N": config.num_heads,
        "K": config.num_kv_heads,
        "H": config.head_dim,
    }
    family = FAMILIES[config.family]
    found = {}
    for path, (name, gguf, disk, ours) in LAYOUT.items():
        absent = (
            (path.endswith(("q_norm/scale", "k_norm/scale")) and not family.qk_norm)
            or (path.endswith("/bias") and not family.qkv_bias)
            or (path.startswith("lm_head/") and config.tie_embeddings)
        )
        if absent:
            continue
        stacked = path.startswith("blocks/")
        layers = range(config.num_layers if stacked else 1)
        names = [f"layers.{n}.{name}" if stacked else name for n in layers]
        ggufs = [f"blk.{n}.{gguf}" if stacked else gguf for n in layers]
        disk_shape = tuple(math.prod(sizes[axis] for axis in axes) for axes in disk)
        shape = (len(names),) * stacked + tuple(sizes[axis] for axis in ours)
        turned = "".join(disk) != ours
        found[path] = Parameter(names, ggufs, disk, disk_shape, ours, shape, stacked, turned, sizes)
    return found


def published_name(name: str) -> str:
    """A tensor's name with the usual prefix."""
    return name if name == HEAD else f"model.{name}"


def without_prefix(names: Iterable[str], where) -> dict[str, str]:
    """Name on disk -> name as in `Parameter.names`, for all but those in `IGNORED`.

    Raises:
        UserError: no known prefix fits the names.
    """
    names = list(names)
    counts = {p: sum(name.startswith(f"{p}layers.") for name in names) for p in PREFIXES}
    prefix = max(counts, key=counts.get)
    if not counts[prefix]:
        raise UserError(
            f"{where} holds no language model: none of its {len(names)} tensors is called "
            f"model.layers. or layers. (but {few(sorted(names), most=3)})"
        )
    renamed = {PREFIXES[prefix] + HEAD: HEAD}
    renamed |= {n: n.removeprefix(prefix) for n in names if n.startswith(prefix) and n != HEAD}
    return {n: renamed.get(n, n) for n in names if not IGNORED.fullmatch(n)}
