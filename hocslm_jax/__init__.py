"""Skeleton-based action recognition in JAX: data, models, training, evaluation."""
