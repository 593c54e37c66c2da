"""Sizes of a dense Qwen3 language model: Hugging Face's `config.json` in, `LMConfig` out.

What this port does not support (mixture of experts, sliding windows, scaled RoPE, biases, quantised
weights) is refused here, by name, before any weight is read.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hocslm_jax.errors import UserError
from hocslm_jax.files.text import read_json


@dataclasses.dataclass(frozen=True)
class LMConfig:
    """A dense Qwen3; `head_dim` need not be `hidden_size / num_heads`.

    `eos_token_ids` holds every id that ends a text, the first one first; it may be empty.
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


def _published(hidden: int, mlp: int, layers: int, heads: int, tied: bool) -> LMConfig:
    """A released size: all share the vocabulary, 8 key-value heads and 128 channels a head."""
    return LMConfig(
        151936, hidden, mlp, layers, heads, 8, 128, tie_embeddings=tied, eos_token_ids=(151645,)
    )


SIZES: dict[str, LMConfig] = {
    "0.6B": _published(1024, 3072, 28, 16, tied=True),
    "1.7B": _published(2048, 6144, 28, 16, tied=True),
    "4B": _published(2560, 9728, 36, 32, tied=True),
    "8B": _published(4096, 12288, 36, 32, tied=False),
    "14B": _published(5120, 17408, 40, 40, tied=False),
    "32B": _published(5120, 25600, 64, 64, tied=False),
}

MAX_LAYERS, MAX_SIZE = 256, 1 << 22  # that are accepted

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
    """The config that a parsed `config.json` states.

    Raises:
        UserError: it is another architecture, or uses what is not supported; all reasons in one.
    """
    if values.get("model_type") != "qwen3":
        raise UserError(
            f"{name}: model_type is {values.get('model_type')!r}, only the dense 'qwen3' is "
            "supported: choose a Qwen3 0.6B, 1.7B, 4B, 8B, 14B or 32B checkpoint"
        )
    rope = values.get("rope_parameters") or {}  # newer files keep theta in here
    theta = rope.get("rope_theta", values.get("rope_theta"))
    problems = [*_missing(values), *_unsupported(values), *([] if theta else ["no rope_theta"])]
    if problems:
        raise UserError(f"{name}: this Qwen3 is not supported: {'; '.join(problems)}")
    eos = values.get("eos_token_id")
    return LMConfig(
        **{ours: values[theirs] for ours, theirs in _COUNTS.items()},
        rope_theta=float(theta),
        rms_norm_eps=float(values.get("rms_norm_eps", 1e-6)),
        tie_embeddings=bool(values.get("tie_word_embeddings", False)),
        eos_token_ids=tuple(eos if isinstance(eos, list) else [] if eos is None else [eos]),
    )


def to_hf(config: LMConfig) -> dict[str, Any]:
    """The `config.json` of a config, as the released models write it."""
    eos = config.eos_token_ids
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **{theirs: getattr(config, ours) for ours, theirs in _COUNTS.items()},
        "rope_theta": config.rope_theta,
        "rope_scaling": None,
        "rms_norm_eps": config.rms_norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        "eos_token_id": list(eos) if len(eos) > 1 else next(iter(eos), None),
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "initializer_range": 0.02,
        "use_cache": True,
    }


def read_config(folder: str | Path) -> LMConfig:
    """The config of a checkpoint folder.

    Raises:
        UserError: `config.json` is absent, not JSON, or asks for what is not supported.
    """
    path = Path(folder) / "config.json"
    try:
        return from_hf(read_json(path, "a Qwen3 folder needs it"), str(path))
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch the checkpoint again") from None


def _missing(values: Mapping[str, Any]) -> list[str]:
    found = {theirs: values.get(theirs) for theirs in _COUNTS.values()}
    problems = [f"no positive {key}" for key, n in found.items() if type(n) is not int or n < 1]
    if not problems:
        most = {"num_hidden_layers": MAX_LAYERS}
        large = [key for key, n in found.items() if n > most.get(key, MAX_SIZE)]
        problems = [f"{key} {found[key]}, too many for any Qwen3" for key in large]
    if problems:
        return problems
    heads, groups = found["num_attention_heads"], found["num_key_value_heads"]
    if heads % groups:
        problems.append(f"{heads} attention heads do not divide among {groups} key-value heads")
    if found["head_dim"] % 2:
        problems.append(f"head_dim {found['head_dim']} is odd")
    return problems


def _unsupported(values: Mapping[str, Any]) -> list[str]:
    """Features that change what the model computes and that this port does not support."""
    rope = values.get("rope_scaling") or values.get("rope_parameters") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    layers = values.get("num_hidden_layers") or 0
    window = values.get("use_sliding_window") and values.get("sliding_window")
    types = values.get("layer_types") or []
    kinds = {
        f"RoPE scaling {rope_type!r}": rope_type != "default",
        "mixture of experts": bool(values.get("num_experts")),
        "sliding-window attention": any(kind != "full_attention" for kind in types)
        or bool(window and not types and values.get("max_window_layers", 28) < layers),
        "attention_bias": bool(values.get("attention_bias")),
        f"hidden_act {values.get('hidden_act')!r}": values.get("hidden_act", "silu") != "silu",
        "quantised weights": bool(values.get("quantization_config")),
    }
    return [kind for kind, used in kinds.items() if used]
