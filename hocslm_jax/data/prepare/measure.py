"""Measures clips; the numbers reveal wrong units or axes, empty frames and equal clips.

In: coordinates float32 [T, M, V, 2 or 3]. Out: the size of a skeleton, the range of its
coordinates, and a summary of a whole dataset as JSON types, which its index keeps and
`prepare.notices` describes.
"""

import collections
import dataclasses
import hashlib

import numpy as np

from hocslm_jax.data.channels import coordinates_of
from hocslm_jax.data.joint_names import common_names
from hocslm_jax.graph import Graph

POSES = 16  # of a clip that are measured, evenly spaced
# Joints at the upper and at the lower end of a body, the best first.
ABOVE = (("head",), ("nose",), ("neck",), ("shoulder centre",), ("left shoulder", "right shoulder"))
_LOW = ("ankle", "foot", "heel", "knee")
BELOW = (*((f"left {name}", f"right {name}") for name in _LOW), *((name,) for name in _LOW))
MIDDLE = (("left hip", "right hip"), ("hip centre",))
OVERTURNED = -0.3  # sizes; the head of a person who lies or bends is about as high as the feet
EXCHANGED = 5  # times shorter ways of two persons if they are exchanged
OTHER_UNIT = 10  # times larger or smaller than the median: no person


def skeleton_size(joints: np.ndarray) -> float:
    """The longest side of the box around a pose, median over the poses: a person's height.

    Missing joints, which are exactly 0, do not count; 0 if all joints are missing.
    """
    every = _poses(joints)
    seen = every.any(axis=2, keepdims=True)
    low = np.where(seen, every, np.inf).min(axis=1)
    high = np.where(seen, every, -np.inf).max(axis=1)
    sides = (high - low).max(axis=1)[seen.any(axis=(1, 2))]  # [poses with anybody]
    return float(np.median(sides)) if len(sides) else 0.0


def _poses(joints: np.ndarray) -> np.ndarray:
    """Some poses [N, V, C] of a clip, evenly spaced over the frames with anybody."""
    there = joints[joints.any(axis=(1, 2, 3))]
    return there[:: max(1, len(there) // POSES)].reshape(-1, *joints.shape[2:])


def exchanges(joints: np.ndarray) -> int:
    """The number of frames after which two persons [T, 2 or more, V, C] change their places.

    Their centres jump by a quarter of a body, and would move less than a fifth as far if the two
    were exchanged.
    """
    seen = joints[:, :2].any(axis=-1, keepdims=True)  # [T, 2, V, 1]
    counts = seen.sum(axis=2)
    centre = joints[:, :2].sum(axis=2) / np.where(counts, counts, np.nan)  # [T, 2, C]
    if centre.shape[1] < 2:
        return 0
    before, after = centre[:-1], centre[1:]
    kept = np.linalg.norm(after - before, axis=2).sum(axis=1)  # [T - 1]
    changed = np.linalg.norm(after - before[:, ::-1], axis=2).sum(axis=1)
    jumps = kept > skeleton_size(joints) / 2  # both together
    return int((jumps & (changed < kept / EXCHANGED)).sum())


def uprightness(joints: np.ndarray, graph: Graph) -> tuple[float, float]:
    """How far the head is above the feet, and above the hips, along the graph's `up`.

    In skeleton sizes, as medians over the poses: about 1 and 0.5 for people who stand, negative if
    the axis points down, 0 if another axis is up. NaN if the graph or the clip lacks such joints.
    """
    axis, sign = "xyz".index(graph.up[-1]), -1 if graph.up[0] == "-" else 1
    size = skeleton_size(joints)
    if axis >= joints.shape[-1] or not size:
        return np.nan, np.nan
    every = _poses(joints)
    heights = np.where(every.any(axis=2), every[..., axis], np.nan)  # [N, V]
    names = common_names(graph.joints)

    def height(groups) -> np.ndarray:  # [N]
        group = next((group for group in groups if set(group) <= set(names)), None)
        if group is None:
            return np.full(len(heights), np.nan)
        return heights[:, [names.index(name) for name in group]].mean(axis=1)

    head, found = height(ABOVE), []
    for lower in (BELOW, MIDDLE):
        rise = head - height(lower)
        rise = rise[~np.isnan(rise)]
        found.append(sign * float(np.median(rise)) / size if len(rise) else np.nan)
    return found[0], found[1]


def coordinate_range(joints: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest coordinate of the joints that are not missing."""
    seen = joints[joints.any(axis=-1)]
    return (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)


@dataclasses.dataclass
class Census:
    """Adds up the clips of a dataset, one after another, in the order of their rows.

    Attributes:
      channels: of the clips.
      graph: their skeleton.
      never: for each joint, the number of clips that lack it throughout.
    """

    channels: str
    graph: Graph
    persons: list[int] = dataclasses.field(default_factory=list)
    sizes: list[float] = dataclasses.field(default_factory=list)
    ranges: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    upright: list[tuple[float, float]] = dataclasses.field(default_factory=list)
    still: list[bool] = dataclasses.field(default_factory=list)
    exchanged: list[bool] = dataclasses.field(default_factory=list)
    empty: list[int] = dataclasses.field(default_factory=list)  # frames without anybody
    rows: dict[bytes, list[int]] = dataclasses.field(default_factory=dict)  # by content
    never: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def add(self, joints: np.ndarray) -> None:
        """Counts one more clip."""
        content = hashlib.blake2b(np.ascontiguousarray(joints, np.float32), digest_size=16)
        content.update(repr(joints.shape).encode())
        self.rows.setdefault(content.digest(), []).append(len(self.persons))
        joints = joints[..., : coordinates_of(self.channels)]
        there = joints.any(axis=(2, 3))  # [T, M]
        self.persons.append(int(there.any(axis=0).sum()))
        self.empty.append(int((~there.any(axis=1)).sum()))
        self.never.update(np.flatnonzero(~joints.any(axis=(0, 1, 3))).tolist())
        self.sizes.append(skeleton_size(joints))
        self.ranges.append(coordinate_range(joints))
        self.upright.append(uprightness(joints, self.graph))
        self.still.append(not (joints[1:] != joints[:-1]).any())
        self.exchanged.append(exchanges(joints) > 0)

    def summary(self) -> dict:
        """What `index.json` keeps under "measured".

        Returns:
          persons: of each clip; size: smallest, median and largest `skeleton_size`; range: of all
            coordinates; empty: numbers of clips with empty frames, and of these frames; equal:
            groups of rows of equal clips; never, only if there are any: for each joint, the number
            of clips that lack it throughout; upright, only if it is known: the medians of
            `uprightness`, None where unknown; odd, only if there are any: rows of clips that are
            upside down compared with most clips ("overturned"), of quite another size ("size"),
            without any motion ("still"), or with persons who change places ("exchanged").
        """
        quantiles = np.quantile(self.sizes or [0.0], (0, 0.5, 1))
        low, high = zip(*self.ranges or [(0.0, 0.0)], strict=True)
        never = {str(joint): count for joint, count in sorted(self.never.items())}
        found = {"never": never} if never else {}
        found |= self._odd()
        return found | {
            "persons": self.persons,
            "size": [float(f"{size:.4g}") for size in quantiles],
            "range": [float(f"{min(low):.4g}"), float(f"{max(high):.4g}")],
            "empty": [int(np.count_nonzero(self.empty)), sum(self.empty)],
            "equal": [rows for rows in self.rows.values() if len(rows) > 1],
        }

    def _odd(self) -> dict:
        """The entries "upright" and "odd" of `summary`."""
        upright = np.array(self.upright, float).reshape(-1, 2)
        known = [column[~np.isnan(column)] for column in upright.T]
        medians = [float(f"{np.median(column):.3g}") if len(column) else None for column in known]
        found = {"upright": medians} if any(map(len, known)) else {}
        odd: dict[str, list[int]] = {}
        if (medians[0] or 0) > -OVERTURNED:
            odd["overturned"] = np.flatnonzero(upright[:, 0] < OVERTURNED).tolist()
        odd["still"] = np.flatnonzero(self.still).tolist()
        odd["exchanged"] = np.flatnonzero(self.exchanged).tolist()
        sizes = np.array(self.sizes, float)
        if len(sizes) and coordinates_of(self.channels) == 3:
            usual = np.median(sizes)
            other = (sizes > usual * OTHER_UNIT) | (sizes * OTHER_UNIT < usual)
            odd["size"] = np.flatnonzero(other).tolist()
        odd = {key: rows for key, rows in odd.items() if rows}
        return found | ({"odd": odd} if odd else {})
