"""Converts clips of one skeleton into clips of another, by the names of their joints.

In: joints [T, M, V, C] of a source Graph. Out: joints [T, M, V', C] of a target Graph. A joint that
the source lacks is the mean of others (`joint_names.MADE_OF`), or missing (NaN). NumPy only.
"""

import functools

import numpy as np

from hocslm_jax.data.joint_names import MADE_OF, common_names
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph

Weights = dict[int, float]  # source joint: its weight; the weights add up to 1, or there are none


def convert_layout(
    joints: np.ndarray, source: Graph, target: Graph
) -> tuple[np.ndarray, np.ndarray]:
    """Converts a clip to another layout.

    Missing persons and joints (NaN or all zeros) stay missing, and so do joints computed from them.
    A joint that is missing in all frames counts as one that the source lacks. Axes, units and
    origin do not change. A confidence is converted as a further channel, or alone as [T, M, V, 1].

    Args:
      joints: float [T, M, V, C] of `source`, in any coordinates.

    Returns:
      (joints float32 [T, M, V', C] of `target`, whether each of its joints is missing, bool [V']).

    Raises:
      UserError: the clip has another number of joints than `source`, or no joint of `target` can be
        made from it.
    """
    joints = np.asarray(joints, np.float32)
    if joints.ndim != 4 or joints.shape[2] != source.num_joints:
        raise UserError(
            f"a clip of {source.name} has shape [T, M, {source.num_joints}, C], not {joints.shape}"
        )
    there = (~np.isnan(joints[..., :2]) & (joints[..., :2] != 0)).any(axis=(0, 1, 3))  # [V]
    recipe = conversion(source, target, tuple(np.flatnonzero(~there)) if there.any() else ())
    missing = np.array([not weights for weights in recipe])
    if missing.all():
        raise UserError(
            f"no joint of {source.name} has the name of one of {target.name}: "
            f"{', '.join(source.joints[:3])}, … and {', '.join(target.joints[:3])}, …"
        )
    columns = [_middle(joints, weights) for weights in recipe]
    return np.stack(columns, axis=2), missing


@functools.lru_cache
def conversion(source: Graph, target: Graph, lacking: tuple[int, ...] = ()) -> tuple[Weights, ...]:
    """For every joint of `target`, the weights of the joints it is made of; {} = missing.

    Args:
      lacking: joints of `source` that a clip does not have.
    """
    if source.joints == target.joints:
        return tuple({v: 1.0} for v in range(target.num_joints))
    places: dict[str, int] = {}
    for v, name in enumerate(common_names(source.joints)):
        if v not in lacking:
            places.setdefault(name, v)
    names = zip(target.joints, common_names(target.joints), strict=True)
    own = {name: v for v, name in enumerate(source.joints) if v not in lacking}
    return tuple(
        {own[name]: 1.0} if name in own else _made(common, places) for name, common in names
    )


def _made(name: str, places: dict[str, int], above: tuple[str, ...] = ()) -> Weights:
    """The weights of a joint; `above` are the joints that it is needed for, to avoid cycles."""
    if name in places:
        return {places[name]: 1.0}
    for group in MADE_OF.get(name, ()):
        if set(group) & {name, *above}:
            continue
        parts = [_made(part, places, (*above, name)) for part in group]
        if all(parts):
            weights: Weights = {}
            for part in parts:
                for v, share in part.items():
                    weights[v] = weights.get(v, 0.0) + share / len(parts)
            return weights
    return {}


def _middle(joints: np.ndarray, weights: Weights) -> np.ndarray:
    """The weighted mean [T, M, C] of some joints; NaN where there are none, 0 if one is absent."""
    if not weights:
        return np.full(joints.shape[:2] + joints.shape[3:], np.nan, np.float32)
    parts = [joints[:, :, v] for v in weights]
    mean = sum(
        part * np.float32(share) for part, share in zip(parts, weights.values(), strict=True)
    )
    absent = np.any([~part.any(axis=-1) for part in parts], axis=0)  # [T, M]
    return np.where(absent[..., None], np.float32(0), mean)
