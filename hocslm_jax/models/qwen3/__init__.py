"""Dense Qwen3 language models: Hugging Face checkpoints in, hidden states, logits and text out."""

from hocslm_jax.models.qwen3.config import SIZES, Qwen3Config, from_hf, read_config, to_hf
from hocslm_jax.models.qwen3.generate import filter_logits, generate
from hocslm_jax.models.qwen3.load import load_params, resolve, save_params
from hocslm_jax.models.qwen3.model import (
    QWEN3_RULES,
    Qwen3,
    attention_for,
    head_matrix,
    init_cache,
    init_params,
    num_params,
    param_shapes,
)

__all__ = [
    "QWEN3_RULES",
    "SIZES",
    "Qwen3",
    "Qwen3Config",
    "attention_for",
    "filter_logits",
    "from_hf",
    "generate",
    "head_matrix",
    "init_cache",
    "init_params",
    "load_params",
    "num_params",
    "param_shapes",
    "read_config",
    "resolve",
    "save_params",
    "to_hf",
]
