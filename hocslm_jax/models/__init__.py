"""Flax Linen models: skeleton clip -> feature -> logits; no data, no devices here."""

from hocslm_jax.models.encoder import (
    CTRGCN,
    ENCODERS,
    HGLNET,
    Encoder,
    EncoderConfig,
    Recogniser,
    build_model,
    encoder_config,
)

__all__ = [
    "CTRGCN",
    "ENCODERS",
    "HGLNET",
    "Encoder",
    "EncoderConfig",
    "Recogniser",
    "build_model",
    "encoder_config",
]
