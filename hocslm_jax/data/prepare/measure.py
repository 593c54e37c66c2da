"""Measures clips; the numbers reveal wrong units or axes, empty frames and equal clips.

In: coordinates float32 [T, M, V, 2 or 3]. Out: the size of a skeleton, the range of its
coordinates, and a summary of a whole dataset as JSON types, which its index keeps and
`prepare.notices` describes.
"""

import collections
import dataclasses
import hashlib

import numpy as np

from hocslm_jax.data.channels import USUAL, coordinates_of

POSES = 16  # of a clip that are measured, evenly spaced


def skeleton_size(joints: np.ndarray) -> float:
    """The longest side of the box around a pose, median over the poses: a person's height.

    Missing joints, which are exactly 0, do not count; 0 if all joints are missing.
    """
    every = joints[:: max(1, len(joints) // POSES)].reshape(-1, *joints.shape[2:])  # [N, V, C]
    seen = every.any(axis=2, keepdims=True)
    low = np.where(seen, every, np.inf).min(axis=1)
    high = np.where(seen, every, -np.inf).max(axis=1)
    sides = (high - low).max(axis=1)[seen.any(axis=(1, 2))]  # [poses with anybody]
    return float(np.median(sides)) if len(sides) else 0.0


def coordinate_range(joints: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest coordinate of the joints that are not missing."""
    seen = joints[joints.any(axis=-1)]
    return (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)


@dataclasses.dataclass
class Census:
    """Adds up the clips of a dataset, one after another, in the order of their rows.

    Attributes:
      channels: of the clips.
      never: for each joint, the number of clips that lack it throughout.
    """

    channels: str = USUAL
    persons: list[int] = dataclasses.field(default_factory=list)
    sizes: list[float] = dataclasses.field(default_factory=list)
    ranges: list[tuple[float, float]] = dataclasses.field(default_factory=list)
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

    def summary(self) -> dict:
        """What `index.json` keeps under "measured".

        Returns:
          persons: of each clip; size: smallest, median and largest `skeleton_size`; range: of all
            coordinates; empty: numbers of clips with empty frames, and of these frames; equal:
            groups of rows of equal clips; never, only if there are any: for each joint, the number
            of clips that lack it throughout.
        """
        quantiles = np.quantile(self.sizes or [0.0], (0, 0.5, 1))
        low, high = zip(*self.ranges or [(0.0, 0.0)], strict=True)
        never = {str(joint): count for joint, count in sorted(self.never.items())}
        found = {"never": never} if never else {}
        return found | {
            "persons": self.persons,
            "size": [float(f"{size:.4g}") for size in quantiles],
            "range": [float(f"{min(low):.4g}"), float(f"{max(high):.4g}")],
            "empty": [int(np.count_nonzero(self.empty)), sum(self.empty)],
            "equal": [rows for rows in self.rows.values() if len(rows) > 1],
        }
