"""One skeleton clip in memory: every reader of raw files yields it, and `prepare` writes it.

A clip holds only real frames and real persons; the feeders pad, crop and add the second person of
the reference protocol.
"""

import dataclasses

import numpy as np

from hocslm_jax.errors import UserError

FARTHEST = 1e6  # metres, millimetres or pixels; larger coordinates mean that the file is damaged


class Nobody(UserError, ValueError):
    """A clip without any person: all joints are missing. The file itself is not damaged."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """A labelled skeleton sequence.

    Raises:
      ValueError: the joints have another shape, hold nobody, or cannot be coordinates.

    Attributes:
      id: unique within the dataset, e.g. `a01_s02_e00_v03`.
      joints: float32 [T, M, V, C], metres, in 2D pixels or shares of an image; T >= 1 frames,
        M >= 1 persons, all nearer than `FARTHEST` and not all 0. See `data.channels` for C.
      label: 0-based class.
      subject, camera, setup, replication: as numbered by the dataset; 0 if it has no such number.
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
    """Raises ValueError, with the reason, unless `joints` [T, M, V, C] can be a clip.

    Raises:
      Nobody: all are 0.
    """
    if joints.ndim != 4 or 0 in joints.shape:
        raise ValueError(f"shape {joints.shape}, expected [T, M, V, C] with frames and persons")
    check_near(joints, ~(np.abs(joints) < FARTHEST))
    if not joints.any():
        raise Nobody("it shows nobody: all coordinates are 0")


def check_near(joints: np.ndarray, far: np.ndarray) -> None:
    """Raises ValueError if any of joints [T, M, V, C] is `far`, a bool array of that shape."""
    if far.any():
        frame, person, joint, axis = np.argwhere(far)[0]
        raise ValueError(
            f"{far.sum()} coordinates that are not finite or cannot be metres (beyond {FARTHEST:g})"
            f", the first at [{frame}, {person}, {joint}, {axis}]"
        )


def without_padding(joints: np.ndarray, most: int = 2) -> np.ndarray:
    """The clip without zero frames at its end and without persons that are padding.

    A second or later person is padding if it is all zeros (NTU60) or a copy of the first (NTU120).
    Zero frames within the clip stay, and so does a first person who is absent while the second is
    there.

    Args:
      joints: [T, M, V, C], finite.
      most: the largest number of persons allowed.

    Returns:
      A new float32 array [T', M', V, C] with T' >= 1 and M' >= 1.

    Raises:
      ValueError: no person, more than `most`, all joints at zero, or values that are not finite.
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
