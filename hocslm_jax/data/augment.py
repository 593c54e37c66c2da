"""Random changes of a clip: rotation and SkateFormer's two strong augmentations.

Clips go in and come out as float32 [M, T, V, C]. Every function is pure: the result depends on its
arguments and the state of the generator it is given, and the clip is never changed in place. NumPy
only.
"""

import math

import numpy as np

DROPPED_JOINTS = (4, 12)  # inclusive bounds, as in SkateFormer
DROPPED_FRAMES = (16, 32)


def rotation(x: float, y: float, z: float = 0.0) -> np.ndarray:
    """Rz @ Ry @ Rx, float32 [3, 3], from angles in radians.

    Signs as in CTR-GCN: each factor turns a column vector by minus its angle. Apply it to rows with
    `points @ rotation(...).T`, or transposed where the protocol multiplies rows from the right.
    """
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(angle), math.sin(angle)) for angle in (x, y, z))
    # Multiplied out, since every clip takes one, of Rz = [cz sz 0; -sz cz 0; 0 0 1],
    # Ry = [cy 0 -sy; 0 1 0; sy 0 cy] and Rx = [1 0 0; 0 cx sx; 0 -sx cx].
    entries = (
        *(cz * cy, sz * cx + cz * sy * sx, sz * sx - cz * sy * cx),
        *(-sz * cy, cz * cx - sz * sy * sx, cz * sx + sz * sy * cx),
        *(sy, -cy * sx, cy * cx),
    )
    return np.array(entries, np.float32).reshape(3, 3)


def random_rotation(rng: np.random.Generator, bound: float = 0.3) -> np.ndarray:
    """Turns about all three axes, angles uniform in [-bound, bound] radians (CTR-GCN on NTU)."""
    return rotation(*rng.uniform(-bound, bound, size=3))


def random_view(rng: np.random.Generator, bound: int = 60) -> np.ndarray:
    """Turns about x and y by whole degrees, uniform in [-bound, bound] (CTR-GCN on NW-UCLA)."""
    about_x, about_y = rng.integers(-bound, bound, size=2, endpoint=True)
    return rotation(math.radians(about_x), math.radians(about_y))


def drop_axis(x: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
    """Sets one axis, drawn uniformly, to zero with the given probability (SkateFormer)."""
    if rng.random() >= probability:
        return x
    out = x.copy()
    out[..., rng.integers(x.shape[-1])] = 0.0
    return out


def drop_joints(x: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
    """Sets 4-12 joints to zero in 16-32 frames with the given probability (SkateFormer).

    Joints and frames are drawn without replacement; every person loses the same ones. A clip with
    fewer joints or frames than the drawn number loses all it has.
    """
    if rng.random() >= probability:
        return x
    frames, joints = x.shape[1:3]
    lost_joints = rng.choice(joints, min(_count(rng, DROPPED_JOINTS), joints), replace=False)
    lost_frames = rng.choice(frames, min(_count(rng, DROPPED_FRAMES), frames), replace=False)
    out = x.copy()
    out[:, lost_frames[:, None], lost_joints] = 0.0
    return out


def _count(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(*bounds, endpoint=True))
