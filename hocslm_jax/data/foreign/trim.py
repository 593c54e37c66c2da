"""What of a padded clip is real: where the last frame with a body is, and who is in it."""

import numpy as np


def trim(joints: np.ndarray) -> np.ndarray:
    """The clip without the zero frames at its end and without a padded second person.

    A second person is padding if it is all zeros (NTU60) or a copy of the first (NTU120). Zero
    frames within the clip stay, and so does a first person who is absent while the second is there.

    Args:
      joints: [T, M, V, 3], finite.

    Returns:
      float32 [T', M', V, 3], T' >= 1, M' of 1 or 2, an array of its own.

    Raises:
      ValueError: no person or more than two, no joint anywhere but at zero, or not finite.
    """
    if joints.shape[1] not in (1, 2):
        raise ValueError(f"{joints.shape[1]} persons, expected 1 or 2")
    with np.errstate(over="ignore"):
        joints = np.array(joints, np.float32)
    if not np.isfinite(joints).all():
        raise ValueError("coordinates that are not finite")
    present = np.flatnonzero(joints.any(axis=(1, 2, 3)))
    if not len(present):
        raise ValueError("no frames, or nothing but zeros in them")
    joints = joints[: present[-1] + 1]
    second = joints[:, 1:]
    padded = not second.any() or np.array_equal(second, joints[:, :1])
    return np.array(joints[:, :1] if padded else joints)
