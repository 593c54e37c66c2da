"""Skeleton-based action recognition in JAX: data, models, training, evaluation, prediction.

    model = hocslm_jax.load_pretrained("weights/joint")
    print(model.predict(hocslm_jax.load_clip("clip.json")).top(5))

Whatever needs JAX is imported at its first use.
"""

import importlib

_LAZY = {
    "load_clip": "hocslm_jax.predict.clip_files",
    "load_pretrained": "hocslm_jax.predict.load_model",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("hocslm-jax")
        except metadata.PackageNotFoundError:
            return "0.1.0"  # a clone that is not installed; as in pyproject.toml
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
