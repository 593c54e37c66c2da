"""InfoGCN's extra step for NTU RGB+D: turn every person upright and facing one way.

In: joints of one clip, already translated. Out: the same in each person's own axes, found once in
frame 0. CTR-GCN and HocSLM do without; files that InfoGCN prepared carry `_aligned` in their name.
"""

import numpy as np

BASE_OF_SPINE, MID_SPINE, LEFT_HIP, RIGHT_HIP = 0, 1, 12, 16


def align(joints: np.ndarray, *, mirror: bool = True, drop_late: bool = True) -> np.ndarray:
    """Rotates each person about the origin so that spine and hips of frame 0 lie along axes.

    The reading: spine is the way from the base of the spine to its middle, hips that from the right
    hip to the left one, less its part along the spine. After the step the spine points along +z and
    the hips along +x. Both are unit vectors, so lengths and angles stay; so does the origin, which
    is the first person's mid spine after the usual translation, for the second person too. One turn
    serves all frames.

    Args:
      joints: float32 [T, M, 25, 3]; an absent person is zeros and stays so.
      mirror: As in the reference, y is hips x spine. These axes are left-handed: the body comes out
        mirrored, left and right hand exchanged. Off, y is spine x hips and the step is a rotation.
      drop_late: As in the reference, a person who is absent in frame 0 is removed from the whole
        clip (zeros). Off, his axes come from the first frame that has him.

    Returns:
      float32 [T, M, 25, 3].

    Raises:
      ValueError: a person without direction in that frame: spine of no length, or hips along it.
    """
    aligned = np.zeros_like(joints, np.float32)
    for person in range(joints.shape[1]):
        track = joints[:, person]  # [T, V, 3]
        present = track.any(axis=(1, 2))
        if present[0] or (present.any() and not drop_late):
            axes = _axes(track[present.argmax()].astype(np.float64), mirror)  # [3, 3]
            aligned[:, person] = track @ axes
    return aligned


def _axes(pose: np.ndarray, mirror: bool) -> np.ndarray:
    """Columns: the directions of a pose [V, 3] that become x, y and z."""
    spine = _unit(pose[MID_SPINE] - pose[BASE_OF_SPINE])
    hips = pose[LEFT_HIP] - pose[RIGHT_HIP]
    hips = _unit(hips - spine * (hips @ spine))
    side = np.cross(hips, spine) if mirror else np.cross(spine, hips)
    return np.stack([hips, side, spine], axis=1)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    if length < 1e-6:  # metres
        raise ValueError("spine and hips give no orientation to align with")
    return vector / length
