"""Skeleton-based action recognition in JAX: data, models, training, evaluation.

`load_pretrained(name_or_path)` gives a released model; it is imported when it is asked for.
"""

__all__ = ["load_pretrained"]


def __getattr__(name: str):
    if name == "load_pretrained":
        from hocslm_jax.predict.pretrained import load_pretrained

        return load_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
