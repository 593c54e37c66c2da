"""Dense Qwen3 language models: Hugging Face checkpoints in, hidden states, logits and text out."""

from hocslm_jax.models.lm.config import SIZES, LMConfig, from_hf, read_config, to_hf
from hocslm_jax.models.lm.generate import filter_logits, generate
from hocslm_jax.models.lm.load import load_params, resolve, save_params
from hocslm_jax.models.lm.model import (
    LM_RULES,
    DecoderLM,
    attention_for,
    head_matrix,
    init_cache,
    init_params,
    num_params,
    param_shapes,
)

__all__ = [
    "LM_RULES",
    "SIZES",
    "DecoderLM",
    "LMConfig",
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
