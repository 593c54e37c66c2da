"""Counts FLOPs of the matrix products of a function before compilation.

In: a jaxpr. Out: FLOPs (a multiply and an add each) of its products and convolutions. The body of a
loop counts as often as it runs; rematerialised products count again.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def product_flops(jaxpr: core.Jaxpr, platform: str) -> float:
    """FLOPs of one call; if the platform selects the formulation, that of `platform`.

    Other conditionals count as their larger branch, loops of unknown length as one iteration.
    """
    total = 0.0
    for eqn in jaxpr.eqns:
        inner = [product_flops(body, platform) for body in _bodies(eqn.params)]
        if eqn.primitive.name == "dot_general":
            total += _dot(eqn)
        elif eqn.primitive.name == "conv_general_dilated":
            total += _convolution(eqn)
        elif eqn.primitive.name == "cond":
            total += _branch(inner, eqn.params.get("branches_platforms"), platform)
        else:
            total += sum(inner) * eqn.params.get("length", 1)  # a scan's
    return total


def _branch(counts: list[float], platforms: tuple | None, platform: str) -> float:
    if not platforms:
        return max(counts)
    named = (platform in names if names else True for names in platforms)  # the default is last
    return next(itertools.compress(counts, named))


def _bodies(params: dict[str, Any]) -> Iterator[core.Jaxpr]:
    for value in params.values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, core.ClosedJaxpr):
                yield one.jaxpr
            elif isinstance(one, core.Jaxpr):
                yield one


def _dot(eqn) -> float:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    lhs = eqn.invars[0].aval.shape
    return 2.0 * eqn.outvars[0].aval.size * math.prod(lhs[axis] for axis in contracted)


def _convolution(eqn) -> float:
    """As if padding were computed too."""
    kernel = eqn.invars[1].aval
    outputs = kernel.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 2.0 * eqn.outvars[0].aval.size * kernel.size / outputs
