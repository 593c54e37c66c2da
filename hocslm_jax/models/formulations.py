"""Chooses among equivalent formulations of a function the one that is fast on a platform.

Usually the backend decides, at compile time. If a model is traced for something that is not a
backend of XLA, such as ONNX, `traced_for` decides at trace time.
"""

from collections.abc import Callable

import jax

traced_for = jax.make_user_context("")  # with traced_for(ONNX): …; "" leaves it to the backend
ONNX = "onnx"


def by_platform(*args, default: Callable, onnx: Callable | None = None, **formulations: Callable):
    """`formulations[platform](*args)`, or `default(*args)` on other platforms.

    As `jax.lax.platform_dependent`, except under `traced_for`.
    """
    if traced_for.value == ONNX:
        return (onnx or default)(*args)
    if not formulations:
        return default(*args)
    return jax.lax.platform_dependent(*args, default=default, **formulations)
