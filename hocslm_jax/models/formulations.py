"""One function in several formulations, of which each platform gets the one that is fast there.

Usually the backend that is compiled for decides, as late as possible. Where a model is traced for
something that is no backend of XLA, `traced_for` decides while it is traced.
"""

from collections.abc import Callable

import jax

traced_for = jax.make_user_context("")  # with traced_for(ONNX): …; "" leaves it to the backend
ONNX = "onnx"


def by_platform(*args, default: Callable, onnx: Callable | None = None, **formulations: Callable):
    """`formulations[platform](*args)`, or `default(*args)` on a platform that has none of its own.

    As `jax.lax.platform_dependent`, but for what is traced under `traced_for`.
    """
    if traced_for.value == ONNX:
        return (onnx or default)(*args)
    if not formulations:
        return default(*args)
    return jax.lax.platform_dependent(*args, default=default, **formulations)
