"""Dense language models (Qwen3, Qwen2, Llama): from checkpoints to hidden states and text."""

from hocslm_jax.models.lm.config import SIZES, LMConfig, RopeScaling, from_hf, to_hf
from hocslm_jax.models.lm.generate import filter_logits, generate
from hocslm_jax.models.lm.gguf_file import is_gguf, read_metadata
from hocslm_jax.models.lm.load import load_params, read_config, resolve
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
from hocslm_jax.models.lm.quantise import quantise_params
from hocslm_jax.models.lm.save import save_params

__all__ = [
    "LM_RULES",
    "SIZES",
    "DecoderLM",
    "LMConfig",
    "RopeScaling",
    "attention_for",
    "filter_logits",
    "from_hf",
    "generate",
    "head_matrix",
    "init_cache",
    "init_params",
    "is_gguf",
    "load_params",
    "num_params",
    "param_shapes",
    "quantise_params",
    "read_config",
    "read_metadata",
    "resolve",
    "save_params",
    "to_hf",
]
