"""Sizes of a dense decoder-only language model: Hugging Face's `config.json` in, `LMConfig` out.

Three architectures share the code: Llama (SmolLM2 too), Qwen2 and 2.5, Qwen3; `FAMILIES` lists
their differences. Unsupported features (mixture of experts, sliding windows, YaRN, quantised
weights) are refused here, by name, before any weight is read.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from hocslm_jax.errors import UserError, few


class Family(NamedTuple):
    """Properties of an architecture.

    Attributes:
        name: its name in transformers.
        qk_norm: per-head RMSNorm of queries and keys before RoPE.
        qkv_bias: queries, keys and values have biases.
        rope_theta: its default; None if config.json must give it.
        head_dim_stated: whether config.json must give head_dim; otherwise head_dim defaults to
            `hidden_size / num_attention_heads`.
    """

    name: str
    qk_norm: bool
    qkv_bias: bool
    rope_theta: float | None
    head_dim_stated: bool


FAMILIES: dict[str, Family] = {  # by model_type of config.json
    "qwen3": Family("Qwen3ForCausalLM", True, False, None, True),
    "qwen2": Family("Qwen2ForCausalLM", False, True, 1e4, False),
    "llama": Family("LlamaForCausalLM", False, False, 1e4, False),
}
TEXT_TOWERS = {"qwen3_vl": "qwen3"}  # models whose `text_config` belongs to a family


class RopeScaling(NamedTuple):
    """Llama 3's scaling of RoPE for longer texts (`rope_type` llama3), see `rope_frequencies`."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


@dataclasses.dataclass(frozen=True)
class LMConfig:
    """A dense decoder; `head_dim` need not be `hidden_size / num_heads`.

    `eos_token_ids` holds every id that ends a text, the preferred one first; it may be empty.
    `family` is a key of `FAMILIES`. `bos_token_id` begins a text, if the model has such a token.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6
    tie_embeddings: bool = True
    max_positions: int = 40960
    eos_token_ids: tuple[int, ...] = ()
    family: str = "qwen3"
    rope_scaling: RopeScaling | None = None
    bos_token_id: int | None = None


def _published(hidden: int, mlp: int, layers: int, heads: int, tied: bool) -> LMConfig:
    """A released size; all have one vocabulary, 8 key-value heads and 128 channels per head."""
    return LMConfig(
        151936, hidden, mlp, layers, heads, 8, 128, tie_embeddings=tied, eos_token_ids=(151645,)
    )


SIZES: dict[str, LMConfig] = {  # of Qwen3
    "0.6B": _published(1024, 3072, 28, 16, tied=True),
    "1.7B": _published(2048, 6144, 28, 16, tied=True),
    "4B": _published(2560, 9728, 36, 32, tied=True),
    "8B": _published(4096, 12288, 36, 32, tied=False),
    "14B": _published(5120, 17408, 40, 40, tied=False),
    "32B": _published(5120, 25600, 64, 64, tied=False),
}

MAX_LAYERS, MAX_SIZE = 256, 1 << 22  # accepted

_COUNTS = {  # our field: its name in config.json
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "max_positions": "max_position_embeddings",
}


def from_hf(values: Mapping[str, Any], name: str = "config.json") -> LMConfig:
    """The config of a parsed `config.json`.

    Raises:
        UserError: another architecture or unsupported features; the message gives all reasons.
    """
    kind = values.get("model_type")
    if kind in TEXT_TOWERS:
        tied = {key: values[key] for key in ("tie_word_embeddings",) if key in values}
        quantised = {"quantization_config": values.get("quantization_config")}
        kind, values = TEXT_TOWERS[kind], {**(values.get("text_config") or {}), **tied, **quantised}
    if kind not in FAMILIES:
        raise UserError(
            f"{name}: model_type is {kind!r}: choose a dense checkpoint of Qwen3, Qwen2.5, or "
            f"the Llama architecture ({', '.join(FAMILIES)})"
        )
    values = _completed(values, FAMILIES[kind])
    rope = _rope(values)
    theta = rope.get("rope_theta", values.get("rope_theta")) or FAMILIES[kind].rope_theta
    problems = [*_missing(values), *_unsupported(values), *([] if theta else ["no rope_theta"])]
    if problems:
        raise UserError(f"{name}: this {kind} model is not supported: {few(problems, '; ')}")
    try:
        theta, epsilon = float(theta), float(values.get("rms_norm_eps", 1e-6))
    except OverflowError:
        raise UserError(f"{name}: rope_theta or rms_norm_eps is too large a number") from None
    eos = values.get("eos_token_id")
    scaled = rope.get("rope_type", rope.get("type")) == "llama3"
    return LMConfig(
        **{ours: values[theirs] for ours, theirs in _COUNTS.items()},
        rope_theta=theta,
        rms_norm_eps=epsilon,
        tie_embeddings=bool(values.get("tie_word_embeddings", False)),
        eos_token_ids=tuple(eos if isinstance(eos, list) else [] if eos is None else [eos]),
        bos_token_id=values.get("bos_token_id"),
        family=kind,
        rope_scaling=RopeScaling(*(rope[key] for key in RopeScaling._fields)) if scaled else None,
    )


def to_hf(config: LMConfig) -> dict[str, Any]:
    """The `config.json` of a config, in the form of the released models."""
    eos, scaling = config.eos_token_ids, config.rope_scaling
    return {
        "architectures": [FAMILIES[config.family].name],
        "model_type": config.family,
        **{theirs: getattr(config, ours) for ours, theirs in _COUNTS.items()},
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling and {"rope_type": "llama3", **scaling._asdict()},
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": list(eos) if len(eos) > 1 else next(iter(eos), None),
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "initializer_range": 0.02,
        "use_cache": True,
    }


def _rope(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of RoPE; in newer files they include its base."""
    return {**(values.get("rope_scaling") or {}), **(values.get("rope_parameters") or {})}


def _completed(values: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """Adds sizes that a config.json may omit because they follow from others."""
    values = dict(values)
    heads, width = values.get("num_attention_heads"), values.get("hidden_size")
    if not family.head_dim_stated and type(heads) is type(width) is int and heads > 0:
        if values.get("num_key_value_heads") is None:
            values["num_key_value_heads"] = heads
        if values.get("head_dim") is None:
            values["head_dim"] = width // heads
    return values


def _missing(values: Mapping[str, Any]) -> list[str]:
    found = {theirs: values.get(theirs) for theirs in _COUNTS.values()}
    problems = [f"no positive {key}" for key, n in found.items() if type(n) is not int or n < 1]
    if not problems:
        most = {"num_hidden_layers": MAX_LAYERS}
        large = [key for key, n in found.items() if n > most.get(key, MAX_SIZE)]
        problems = [f"{key} {found[key]} is too large" for key in large]
    if problems:
        return problems
    heads, groups = found["num_attention_heads"], found["num_key_value_heads"]
    if heads % groups:
        problems.append(f"{heads} attention heads are not a multiple of {groups} key-value heads")
    if found["head_dim"] % 2:
        problems.append(f"head_dim {found['head_dim']} is odd")
    return problems


def _unsupported(values: Mapping[str, Any]) -> list[str]:
    """The unsupported features of a config, which would change the result."""
    rope, kind = _rope(values), values.get("model_type")
    layers = values.get("num_hidden_layers") or 0
    window = values.get("use_sliding_window") and values.get("sliding_window")
    types = values.get("layer_types") or []
    quantised = values.get("quantization_config") or {}
    experts = [values.get(key) for key in ("num_experts", "num_local_experts")]
    partial = [at.get("partial_rotary_factor") for at in (values, rope)]
    kinds = {
        "mixture of experts": any(experts),
        "sliding-window attention": any(kind != "full_attention" for kind in types)
        or bool(window and not types and values.get("max_window_layers", 28) < layers),
        "attention_bias": bool(values.get("attention_bias"))
        and kind != "qwen2",  # it always has biases
        "mlp_bias": bool(values.get("mlp_bias")),
        "RoPE on part of a head": any(part not in (None, 1) for part in partial),
        "dual-chunk attention": bool(values.get("dual_chunk_attention_config")),
        f"hidden_act {values.get('hidden_act')!r}": values.get("hidden_act", "silu") != "silu",
        f"quantised weights ({quantised.get('quant_method', 'unknown')})": bool(quantised),
    }
    return _scaling(rope) + [kind for kind, used in kinds.items() if used]


def _scaling(rope: Mapping[str, Any]) -> list[str]:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return []
    if kind != "llama3":
        return [f"RoPE scaling {kind!r}"]
    numbers = [rope.get(key) for key in RopeScaling._fields]
    if not all(type(n) in (int, float) and 0 < n < 1e30 for n in numbers):
        return [f"RoPE scaling 'llama3' without positive {', '.join(RopeScaling._fields)}"]
    low, high = numbers[1:3]
    return (
        []
        if low < high
        else ["RoPE scaling 'llama3' whose low_freq_factor is not below high_freq_factor"]
    )
