"""One skeleton clip in memory: what every raw-format reader yields and every builder writes.

Only real frames and real persons are kept; padding, cropping and the second person of the reference
protocol are matters of the feeders.
"""

import dataclasses

import numpy as np

from hocslm_jax.errors import UserError

FARTHEST = 1e6  # metres, millimetres or pixels; what lies beyond is a damaged file


class Nobody(UserError, ValueError):
    """A clip in which nobody is: all joints are missing. No fault of the file."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """A labelled skeleton sequence.

    Raises:
      ValueError: joints of another shape, without anybody, or that cannot be meant as coordinates.

    Attributes:
      id: unique within the dataset, e.g. `a01_s02_e00_v03`.
      joints: float32 [T, M, V, C], metres, in 2D pixels or shares of an image; T >= 1 frames,
        M >= 1 persons, all nearer than `FARTHEST` and not all 0. See `data.channels` for C.
      label: 0-based class.
      subject, camera, setup, replication: as numbered by the dataset; 0 where it has none.
      caption: a sentence about the motion, or "".
    """

    id: str
    joints: np.ndarray
    label: int
    subject: int = 0
    camera: int = 0
    setup: int = 0
    replication: int = 0
    caption: str = ""

    def __post_init__(self):
        check_joints(self.joints)


def check_joints(joints: np.ndarray) -> None:
    """Raises ValueError, with the reason, unless `joints` [T, M, V, C] can be somebody's.

    Raises:
      Nobody: all are 0.
    """
    if joints.ndim != 4 or 0 in joints.shape:
        raise ValueError(f"shape {joints.shape}, expected [T, M, V, C] with frames and persons")
    check_near(joints, ~(np.abs(joints) < FARTHEST))
    if not joints.any():
        raise Nobody("nobody is in it: all coordinates are 0")


def check_near(joints: np.ndarray, far: np.ndarray) -> None:
    """Raises ValueError where any of joints [T, M, V, C] is `far`, bool of the same shape."""
    if far.any():
        frame, person, joint, axis = np.argwhere(far)[0]
        raise ValueError(
            f"{far.sum()} coordinates that are not finite or cannot be metres (beyond {FARTHEST:g})"
            f", the first at [{frame}, {person}, {joint}, {axis}]"
        )


def without_padding(joints: np.ndarray, most: int = 2) -> np.ndarray:
    """The clip without the zero frames at its end and without padded further persons.

    A further person is padding if it is all zeros (NTU60) or a copy of the first (NTU120). Zero
    frames within the clip stay, and so does a first person who is absent while the second is there.

    Args:
      joints: [T, M, V, C], finite.
      most: persons that there may be.

    Returns:
      float32 [T', M', V, C], T' >= 1, M' >= 1, an array of its own.

    Raises:
      ValueError: no person or more than `most`, no joint anywhere but at zero, or not finite.
    """
    if not 1 <= joints.shape[1] <= most:
        raise ValueError(f"{joints.shape[1]} persons, expected 1 to {most}")
    with np.errstate(over="ignore", invalid="ignore"):
        joints = np.array(joints, np.float32)
    if not np.isfinite(joints).all():
        raise ValueError("coordinates that are not finite")
    present = np.flatnonzero(joints.any(axis=(1, 2, 3)))
    if not len(present):
        raise Nobody("no frames, or nothing but zeros in them")
    joints = joints[: present[-1] + 1]
    first, *others = joints.swapaxes(0, 1)
    real = [one for one in others if one.any() and not np.array_equal(one, first)]
    return np.stack([first, *real], axis=1)
