"""What of a padded clip is real: where the last frame with a body is, and who is in it."""

import numpy as np


def trim(joints: np.ndarray, most: int = 2) -> np.ndarray:
    """The clip without the zero frames at its end and without padded further persons.

    A further person is padding if it is all zeros (NTU60) or a copy of the first (NTU120). Zero
    frames within the clip stay, and so does a first person who is absent while the second is there.

    Args:
      joints: [T, M, V, 3], finite.
      most: persons that there may be.

    Returns:
      float32 [T', M', V, 3], T' >= 1, M' >= 1, an array of its own.

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
        raise ValueError("no frames, or nothing but zeros in them")
    joints = joints[: present[-1] + 1]
    first, *others = joints.swapaxes(0, 1)
    real = [one for one in others if one.any() and not np.array_equal(one, first)]
    return np.stack([first, *real], axis=1)
