"""Flax Linen models: skeleton clip -> feature -> logits, visual token. No data, no devices."""

from hocslm_jax.models.encoder import (
    CTRGCN,
    ENCODERS,
    HGLNET,
    Encoder,
    EncoderConfig,
    Recogniser,
    encoder_config,
)
from hocslm_jax.models.hocslm import FusionConfig, HocSLM, Projector, build_model

__all__ = [
    "CTRGCN",
    "ENCODERS",
    "HGLNET",
    "Encoder",
    "EncoderConfig",
    "FusionConfig",
    "HocSLM",
    "Projector",
    "Recogniser",
    "build_model",
    "encoder_config",
]
