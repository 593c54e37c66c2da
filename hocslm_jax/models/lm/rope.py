"""Rotary position embedding: from positions to angles, and the rotation of queries and keys."""

import math

import jax
import jax.numpy as jnp

from hocslm_jax.models.lm.config import LMConfig


def rope_angles(positions: jax.Array, config: LMConfig) -> tuple[jax.Array, jax.Array]:
    """float32 (cos, sin) of positions [T] or [B, T]: [T, 1, H / 2] or [B, T, 1, H / 2]."""
    angles = positions.astype(jnp.float32)[..., None, None] * rope_frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def rope_frequencies(config: LMConfig) -> jax.Array:
    """float32 [H / 2], in radians per position.

    Llama 3.1 and later were first trained on short texts: frequencies with less than
    `low_freq_factor` turns in such a text are divided by `factor`, those with more than
    `high_freq_factor` are kept, and those between are interpolated.
    """
    steps = jnp.arange(0, config.head_dim, 2, dtype=jnp.float32) / config.head_dim
    frequencies = 1.0 / config.rope_theta**steps
    if config.rope_scaling is None:
        return frequencies
    factor, low, high, length = config.rope_scaling
    turns = length * frequencies / (2 * math.pi)  # in a text of the first training
    kept = jnp.clip((turns - low) / (high - low), 0, 1)
    return frequencies * (kept + (1 - kept) / factor)


def rotate(x: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotary position embedding of x [B, T, N, H]; channel i pairs with channel i + H / 2."""
    cos, sin = rope
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)  # [B, T, N, H / 2] each
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.astype(x.dtype)
