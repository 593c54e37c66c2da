"""Chooses among equivalent formulations of a function the one that is fast on a platform.

Usually the backend decides, at compile time, so that all formulations are traced. `traced_for`
decides at trace time: for ONNX, which is not a backend, or to trace only one formulation.
"""

from collections.abc import Callable

import jax

traced_for = jax.make_user_context("")  # with traced_for("cpu"): …; "" leaves it to the backend
ONNX = "onnx"


def by_platform(*args, default: Callable, onnx: Callable | None = None, **formulations: Callable):
    """`formulations[platform](*args)`, or `default(*args)` on other platforms.

    As `jax.lax.platform_dependent`, except under `traced_for`.
    """
    if traced_for.value == ONNX:
        return (onnx or default)(*args)
    if traced_for.value or not formulations:
        return formulations.get(traced_for.value, default)(*args)
    return jax.lax.platform_dependent(*args, default=default, **formulations)
