"""From a raw clip to the encoder's fixed window, by CTR-GCN's protocols for NTU and NW-UCLA.

In: joints float32 [T, M, V, C] of one clip (only real frames and persons) and a random generator,
or None for test mode. C is two or three coordinates, optionally with a confidence, to which only
the choice of frames applies. Out: float32 [M, frames, V, C] of the first `num_persons` persons, the
joint stream from which all others are made; `fit_persons` adds the absent ones at the end. Pure
functions of their arguments; NumPy only.
"""

import functools
import math

import numpy as np

from hocslm_jax.data.augment import random_roll, random_rotation, random_view, turned
from hocslm_jax.data.channels import on_coordinates
from hocslm_jax.data.prepare.measure import skeleton_size

MIN_CROP = 64  # frames; CTR-GCN never crops to fewer than its window of 64
SECOND_PERSON = ("zeros", "copy")


def ntu(
    joints: np.ndarray,
    rng: np.random.Generator | None = None,
    *,
    frames: int = 64,
    num_persons: int = 2,
    p_interval: tuple[float, float] = (0.5, 1.0),
    test_interval: float = 0.95,
    rotation: float = math.degrees(0.3),
    coordinates: int = 3,
) -> np.ndarray:
    """CTR-GCN's NTU feeder: crop, resize to `frames` by linear interpolation, rotate when training.

    Args:
      joints: [T, M, V, C] in metres, origin at the mid spine of the first frame (`centred`). Frames
        without anybody are left out.
      rng: generator for the crop and the rotation; None takes the central `test_interval` of the
        frames.
      num_persons: only the first so many persons are kept.
      p_interval: share of the frames that a training crop keeps, uniform; never fewer than 64
        frames.
      rotation: bound of the training turns about each axis, in 2D about the view axis; degrees.
      coordinates: how many of the channels are coordinates.

    Returns:
      float32 [min(M, num_persons), frames, V, C]. As in the reference, a person who enters or
      leaves is interpolated with the zeros of the frames where they are absent.
    """
    joints = with_somebody(joints[:, :num_persons])
    valid = len(joints)
    if rng is None:
        margin = int((1 - test_interval) * valid / 2)
        start, length = margin, valid - 2 * margin
    else:
        length = min(max(int(valid * rng.uniform(*p_interval)), MIN_CROP), valid)
        start = int(rng.integers(valid - length, endpoint=True))
    x = _resize(joints[start : start + length], frames)  # [frames, M, V, C]
    if rng is not None:
        draw = random_rotation if coordinates == 3 else random_roll
        x = turned(x, draw(rng, math.radians(rotation)))
    return x.swapaxes(0, 1)


def nw_ucla(
    joints: np.ndarray,
    rng: np.random.Generator | None = None,
    *,
    frames: int = 52,
    num_persons: int = 1,
    rotation: float | None = None,
    coordinates: int = 3,
    masked: bool = False,
) -> np.ndarray:
    """CTR-GCN's NW-UCLA feeder: rotate when training, min-max each axis to [-1, 1], sample frames.

    The reference also scales a training clip by U(0.5, 1.5), which the min-max undoes; it is left
    out. Frames are drawn without replacement from 100 copies of the clip and sorted; in test mode
    evenly spaced.

    Args and result as in `ntu`, except `rotation`: whole degrees, only about x and y, None = 60;
    in 2D about the view axis, None = 17 (0.3 rad). An axis on which every joint of every frame is
    equal becomes 0, the middle of the box, where the reference divides 0 by 0 and feeds NaN.
    One-frame clips repeat that frame.

    Args:
      masked: True leaves every missing value (exactly 0) out of the box and sets it to 0 again;
        False does so only for joints that the whole clip lacks.
    """
    joints = joints[:, :num_persons]
    x = on_coordinates(lambda x: _boxed(x, rng, rotation, masked), joints, coordinates)
    return x[_pick_frames(len(x), frames, rng)].swapaxes(0, 1)


def _boxed(
    x: np.ndarray, rng: np.random.Generator | None, rotation: float | None, masked: bool
) -> np.ndarray:
    """Coordinates [T, M, V, 2 or 3], turned when training, with each axis in [-1, 1]."""
    count = x.shape[-1]
    points = (x - x[0, 0, 0]).reshape(-1, count).T  # [C, T*M*V], centred for float32's sake
    if rng is not None and count == 3:
        # The protocol multiplies row vectors: points.T @ (Ry Rx).
        points = random_view(rng, 60 if rotation is None else int(rotation)).T @ points
    elif rng is not None:
        bound = 0.3 if rotation is None else math.radians(rotation)
        points = random_roll(rng, bound) @ points
    seen = x.any(axis=-1)  # [T, M, V]
    if not masked:  # a joint that the whole clip lacks, as it has another skeleton, has no place
        seen = np.broadcast_to(seen.any(axis=(0, 1)), seen.shape)
    seen = seen.ravel()
    inside = points if seen.all() or not seen.any() else points[:, seen]
    low, high = inside.min(axis=1, keepdims=True), inside.max(axis=1, keepdims=True)
    extent = high - low
    points = (points - low) * (2 / np.where(extent > 0, extent, 1)) - (extent > 0)
    if inside.shape != points.shape:
        points[:, ~seen] = 0
    return points.T.reshape(x.shape)


def fit_persons(x: np.ndarray, out: np.ndarray, second_person: str) -> None:
    """Writes [M, T, V, C] to `out` [num_persons, T, V, C], which is zero, and fills up the rest.

    Streams of an absent person equal the streams of its filling, so this step may come last.

    Args:
      second_person: what an absent person is: "zeros" (NTU60 scripts) or "copy" of the first
        (NTU120).
    """
    out[: len(x)] = x
    if second_person == "copy":
        out[len(x) :] = x[0]


def with_somebody(joints: np.ndarray) -> np.ndarray:
    """The frames [T', M, V, C] with at least one person, or all frames if there are none.

    CTR-GCN counts the frames with a person and takes that many from the start. That is the same on
    its own data, where empty frames come last; other data has them anywhere and would lose poses.
    """
    if joints[:, 0, 0, 0].all():  # the usual case, which is fast to detect
        return joints
    held = joints.any(axis=(1, 2, 3))
    return joints if held.all() or not held.any() else joints[held]


def centred(joints: np.ndarray, joint: int) -> np.ndarray:
    """Moves the origin of a clip [T, M, V, 3] to `joint` of the first person, when first seen.

    Missing values (exactly 0: an absent person, or a joint that was not found) stay 0. A clip that
    is already centred is returned as it is. If the joint is missing in the person's first frame,
    the next frame with it is used; if no frame has it, the mean of the first pose is.
    """
    seen = joints.any(axis=-1)  # [T, M, V]
    if not seen.any():
        return joints
    person = int(seen.any(axis=(0, 2)).argmax())
    first = int(seen[:, person].any(axis=1).argmax())
    pose = joints[first, person][seen[first, person]]
    low, high = pose.min(axis=0), pose.max(axis=0)
    found = np.flatnonzero(seen[:, person, joint])
    if not seen[first, person, joint] and (low <= 0).all() and (high >= 0).all():
        return joints  # the joint is at the origin, which is within the body
    origin = joints[found[0], person, joint] if len(found) else (low + high) / 2
    return np.where(seen[..., None], joints - origin, np.float32(0))


def of_size_one(joints: np.ndarray) -> np.ndarray:
    """Divides a clip [T, M, V, 2] by its `skeleton_size`, so that a body is about 1 long.

    Coordinates in an image are pixels or shares of it, and depend on how far away the camera is.
    """
    size = skeleton_size(joints)
    return joints / np.float32(size) if size else joints


FEEDERS = {"ntu": ntu, "nw_ucla": nw_ucla}


def _pick_frames(length: int, frames: int, rng: np.random.Generator | None) -> np.ndarray:
    if rng is None:
        return np.linspace(0, length - 1, frames).astype(np.int64)
    copies = max(100, math.ceil(frames / length))
    return np.sort(rng.choice(length * copies, frames, replace=False, shuffle=False) // copies)


def _resize(x: np.ndarray, frames: int) -> np.ndarray:
    if len(x) == frames:
        return x
    before, after, early, late = _taps(len(x), frames)
    rows = x.reshape(len(x), -1)
    out, other = rows.take(before, axis=0), rows.take(after, axis=0)
    out *= early
    other *= late
    out += other
    return out.reshape(frames, *x.shape[1:])


@functools.lru_cache(maxsize=1024)
def _taps(length: int, frames: int) -> tuple[np.ndarray, ...]:
    """Two source frames per output frame (half-pixel centres) and their weights [frames, 1]."""
    source = ((np.arange(frames) + 0.5) * length / frames - 0.5).clip(0, length - 1)
    before = source.astype(np.int64)
    late = (source - before).astype(np.float32)[:, None]
    return before, np.minimum(before + 1, length - 1), 1 - late, late
