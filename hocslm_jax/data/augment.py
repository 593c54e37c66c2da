"""Random changes of training clips, and the fixed views of test clips (test-time augmentation).

Clips go in and come out as float32 [M, T, V, C], the raw joints of `random_crop` and `change_view`
as [T, M, V, C]; the first two or three of C are coordinates (`data.channels`). Every function is
pure: the result depends on its arguments and the state of the generator it is given, and the clip
is never changed in place. NumPy only.
"""

import dataclasses
import itertools
import math

import numpy as np

from hocslm_jax.data.channels import on_coordinates

DROPPED_JOINTS = (4, 12)  # inclusive bounds, as in SkateFormer
DROPPED_FRAMES = (16, 32)
MIN_CROP = 8  # frames; a shorter clip is never cropped
TEST_CROP = 0.8  # share of the frames that a crop of a test clip keeps


def rotation(x: float, y: float, z: float = 0.0) -> np.ndarray:
    """Rz @ Ry @ Rx, float32 [3, 3], from angles in radians.

    Signs as in CTR-GCN: each factor turns a column vector by minus its angle. Apply it to rows with
    `points @ rotation(...).T`, or transposed where the protocol multiplies rows from the right.
    """
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(angle), math.sin(angle)) for angle in (x, y, z))
    # The product is written out, because every clip needs one. Rz = [cz sz 0; -sz cz 0; 0 0 1],
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


def random_roll(rng: np.random.Generator, bound: float = 0.3) -> np.ndarray:
    """A turn about the view axis, [2, 2], of an angle uniform in [-bound, bound] radians.

    It is the only rotation that keeps coordinates within the image plane.
    """
    return roll(rng.uniform(-bound, bound))


def roll(angle: float) -> np.ndarray:
    """A turn about the view axis, float32 [2, 2], with the sign of `rotation`."""
    return rotation(0, 0, angle)[:2, :2]


def turned(x: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The clip [..., C] with its coordinates turned by a matrix [2, 2] or [3, 3]."""
    count = len(turn)
    return on_coordinates(lambda x: (x.reshape(-1, count) @ turn.T).reshape(x.shape), x, count)


def random_crop(joints: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """The frames [T, M, V, C] without up to `share` of them, from both ends, uniformly."""
    if not share:
        return joints
    kept = math.ceil(len(joints) * rng.uniform(1 - share, 1))
    length = min(max(kept, MIN_CROP), len(joints))
    start = int(rng.integers(len(joints) - length, endpoint=True))
    return joints[start : start + length]


def augment(x: np.ndarray, rng: np.random.Generator, feed, swap: np.ndarray | None) -> np.ndarray:
    """Augments a training clip [M, T, V, C], between the feeder and the stream.

    Args:
      feed: with the probabilities `drop_axis`, `drop_joints`, and `scale`, `jitter` and
        `coordinates`, see `feeder.Feed`. Setting one to 0 does not change the random draws of the
        others.
      swap: None, or int [V], the joint on the other side of every joint: the clip is mirrored.
    """
    if swap is not None:
        x = mirror(x, swap)
    if feed.scale:
        size = rng.uniform(1 - feed.scale, 1 + feed.scale, size=feed.coordinates)
        x = on_coordinates(lambda x: x * size.astype(np.float32), x, feed.coordinates)
    if feed.jitter:
        x = on_coordinates(lambda x: jitter(x, rng, feed.jitter), x, feed.coordinates)
    x = on_coordinates(lambda x: drop_axis(x, rng, feed.drop_axis), x, feed.coordinates)
    return drop_joints(x, rng, feed.drop_joints)


def mirror(x: np.ndarray, swap: np.ndarray) -> np.ndarray:
    """The mirror image [..., V, C] of a body: x negated, the joints of left and right exchanged."""
    sign = np.ones(x.shape[-1], np.float32)
    sign[0] = -1
    return x[..., swap, :] * sign


def jitter(x: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Adds Gaussian noise to every joint of the persons who are present."""
    present = x.any(axis=(2, 3), keepdims=True)  # absent persons stay zero
    return x + np.float32(deviation) * present * rng.standard_normal(x.shape, np.float32)


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


@dataclasses.dataclass(frozen=True)
class ClipView:
    """One view of a test clip, for test-time augmentation.

    Attributes:
      degrees: angle of the turn about the vertical axis; in 2D, about the view axis.
      start: share of the frames before the part that is used.
      length: share of the frames that is used.
      mirrored: whether left and right are exchanged.
    """

    degrees: float = 0.0
    start: float = 0.0
    length: float = 1.0
    mirrored: bool = False


def views_of(views: int, angle: float, crops: int, mirrored: bool) -> tuple[ClipView, ...]:
    """All combinations of `views` turns from -angle to angle, `crops` crops and the mirror image.

    One view is the clip as it is, one crop is the whole clip; (1, _, 1, False) is the plain test.
    """
    turns = np.linspace(-angle, angle, views) if views > 1 else [0.0]
    starts = np.linspace(0, 1 - TEST_CROP, crops) if crops > 1 else [0.0]
    length = TEST_CROP if crops > 1 else 1.0
    sides = (False, True) if mirrored else (False,)
    return tuple(
        ClipView(float(degrees), float(start), length, side)
        for degrees, start, side in itertools.product(turns, starts, sides)
    )


def change_view(
    joints: np.ndarray, view: ClipView, swap: np.ndarray | None, coordinates: int = 3
) -> np.ndarray:
    """Raw joints [T, M, V, C] in that view; absent persons stay zero.

    Args:
      swap: int [V], the joint on the other side of every joint; needed if the view is mirrored.
      coordinates: how many of the channels are coordinates.
    """
    length = min(max(round(len(joints) * view.length), MIN_CROP), len(joints))
    start = min(round(len(joints) * view.start), len(joints) - length)
    joints = joints[start : start + length]
    if view.degrees:
        angle = math.radians(view.degrees)
        turn = rotation(0, angle) if coordinates == 3 else roll(angle)
        joints = on_coordinates(lambda x: x @ turn.T, joints, coordinates)
    return mirror(joints, swap) if view.mirrored else joints


def _count(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(*bounds, endpoint=True))
