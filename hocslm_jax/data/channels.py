"""What the last axis of a clip holds: coordinates, and optionally a confidence after them.

`xy` and `xyz` are coordinates alone; in `xyc` and `xyzc` the last channel is the confidence of a
pose estimator in the joint, 0 for a missing joint. Only this module knows the layout. NumPy only.
"""

from collections.abc import Callable

import numpy as np

from hocslm_jax.errors import UserError

CHANNELS = ("xy", "xyc", "xyz", "xyzc")
USUAL = "xyz"


def coordinates_of(channels: str) -> int:
    """How many of the channels, the first ones, are coordinates: 2 or 3."""
    return len(channels.removesuffix("c"))


def has_confidence(channels: str) -> bool:
    return channels.endswith("c")


def on_coordinates(
    function: Callable[[np.ndarray], np.ndarray], x: np.ndarray, coordinates: int
) -> np.ndarray:
    """`function` of the first `coordinates` channels of x [..., C], which keeps their shape.

    A confidence stays unchanged.
    """
    if x.shape[-1] == coordinates:
        return function(x)
    return np.concatenate([function(x[..., :coordinates]), x[..., coordinates:]], axis=-1)


def chosen(joints: np.ndarray, channels: str, wanted: str) -> np.ndarray:
    """Selects the `wanted` channels of joints [..., C] that have `channels`."""
    return joints if channels == wanted else joints[..., : len(wanted)]


def check_chosen(name: str, channels: str, wanted: str) -> None:
    """Raises UserError unless clips of dataset `name` have the wanted channels."""
    if wanted not in (channels, channels.removesuffix("c")):
        known = dict.fromkeys((channels, channels.removesuffix("c")))
        raise UserError(
            f"data.channels={wanted}, but the clips of {name} have {channels}; "
            f"use {' or '.join(known)}"
        )
