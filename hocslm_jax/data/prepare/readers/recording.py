"""The result of every reader: the skeletons of one file, and what the file states about them.

In: detections or arrays. Out: a Recording in the file's own units, axes and layout; missing joints
are NaN. The functions below convert it to a model's units, axes and layout. NumPy only.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from hocslm_jax.data.clip import FARTHEST, Nobody
from hocslm_jax.data.joint_names import common_names
from hocslm_jax.data.layouts import convert_layout
from hocslm_jax.graph import GRAPHS, Graph

MAX_NUMBERS = 1 << 24  # in a file: two hours of 25 joints
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
UNITS = (*METRES, "px", "normalised")
SPARSEST = 10  # numbers with a larger average gap are not frame numbers
# Rotations [3, 3] that turn each `up` axis into y without mirroring a body. If y points down, z
# points away from the camera, as in Kinect's coordinates with y up; a person who faces the camera
# still does after the rotation.
_TURNS = {
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
}


@dataclasses.dataclass(frozen=True)
class Recording:
    """The skeletons of one file.

    Attributes:
      joints: float32 [T, M, V, 2 or 3]; NaN for missing joints and persons.
      confidence: float32 [T, M, V] as in the file, NaN where it has none; or None.
      layout: layout of the joints, or None if the file does not state it.
      names: the joints' names, if the file has them.
      unit: one of `UNITS`, or None if unknown.
      up: the axis that points up, as in `Graph.up`, or None.
      fps: frames a second, or None.
      tracks: a name for each person; () if the file has none.

    Raises:
      ValueError: with the reason: a wrong shape, too many numbers, nobody in it, or impossible
        coordinates.
    """

    joints: np.ndarray
    confidence: np.ndarray | None = None
    layout: Graph | None = None
    names: tuple[str, ...] = ()
    unit: str | None = None
    up: str | None = None
    fps: float | None = None
    tracks: tuple[str, ...] = ()

    def __post_init__(self):
        shape = self.joints.shape
        if len(shape) != 4 or 0 in shape or shape[3] not in (2, 3):
            raise ValueError(f"shape {shape}, expected [T, M, V, 2 or 3] with frames and persons")
        if self.layout and self.layout.num_joints != shape[2]:
            raise ValueError(
                f"it has {shape[2]} joints, {self.layout.name} has {self.layout.num_joints}"
            )
        lost = np.isnan(self.joints).any(axis=-1, keepdims=True)
        if lost.all():
            raise Nobody("it shows nobody: no joint has coordinates")
        if (far := np.abs(self.joints) >= FARTHEST).any():
            frame, person, joint, _ = np.argwhere(far)[0]
            raise ValueError(
                f"a coordinate beyond {FARTHEST:g}: frame {frame}, person {person}, joint {joint}"
            )
        joints = np.where(lost, np.float32(np.nan), self.joints).astype(np.float32, copy=False)
        object.__setattr__(self, "joints", joints)


class Detection(NamedTuple):
    """One person in one frame: joints [V, 2 or 3], confidence [V] or None."""

    frame: int
    track: object
    joints: np.ndarray
    confidence: np.ndarray | None


def assemble(
    detections: Sequence[Detection], frames: Iterable[int] = ()
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """(joints [T, M, V, C], confidence [T, M, V] or None, track names) of persons in frames.

    Time runs from the first to the last frame number, without gaps; a person has the same index in
    M in all frames.

    Args:
      frames: numbers of all existing frames, including empty ones.

    Raises:
      ValueError: nobody, persons with different joints, a person twice in a frame, or impossible
        frame numbers.
    """
    if not detections:
        raise Nobody("it shows nobody")
    numbers = {detection.frame for detection in detections} | set(frames)
    first, count = min(numbers), max(numbers) - min(numbers) + 1
    if count > SPARSEST * len(numbers) + SPARSEST:
        raise ValueError(
            f"frames {first} to {max(numbers)}, of which {len(numbers)} exist: not frame numbers"
        )
    places = {track: m for m, track in enumerate(dict.fromkeys(d.track for d in detections))}
    shape = (count, len(places), *detections[0].joints.shape)
    check_size(shape)
    joints = np.full(shape, np.nan, np.float32)
    confidence = np.full(shape[:3], np.nan, np.float32)
    seen = set()
    for frame, track, points, scores in detections:
        if points.shape != shape[2:]:
            raise ValueError(f"frame {frame} has {len(points)} joints, an earlier one {shape[2]}")
        if (frame, track) in seen:
            raise ValueError(f"person {str(track)[:50]!r} is in frame {frame} twice")
        seen.add((frame, track))
        joints[frame - first, places[track]] = points
        if scores is not None:
            confidence[frame - first, places[track]] = scores
    has_scores = any(detection.confidence is not None for detection in detections)
    return joints, confidence if has_scores else None, tuple(map(str, places))


def check_size(shape: Sequence[int]) -> None:
    """Raises ValueError if an array of this shape is larger than any clip."""
    size = 1
    for length in shape:
        size *= int(length)
    if size > MAX_NUMBERS:
        raise ValueError(f"shape {tuple(shape)} has {size} numbers, too many for a clip")


def floats(values: object, what: str) -> np.ndarray:
    """Numbers, or nested lists of them, as float32; null is NaN.

    Raises:
      ValueError: anything else; names `what`.
    """
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(values, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{what} is not a list of numbers") from None


def guess_unit(joints: np.ndarray) -> str | None:
    """The unit of joints [T, M, V, C], guessed from the size of a body; None if none fits.

    The size of a body is the longest side of its box, median over frames and persons. For 2D joints
    it only shows whether coordinates are pixels.
    """
    flat = joints.reshape(-1, *joints.shape[2:])
    seen = ~np.isnan(flat).any(axis=-1, keepdims=True)  # [N, V, 1]
    flat, seen = flat[seen.any(axis=(1, 2))], seen[seen.any(axis=(1, 2))]
    if not len(flat):
        return None
    if joints.shape[3] == 2:
        return "normalised" if np.abs(flat[seen[..., 0]]).max() <= 2 else "px"
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = np.where(seen, flat, np.inf), np.where(seen, flat, -np.inf)
        size = float(np.median((high.max(axis=1) - low.min(axis=1)).max(axis=-1)))
    bounds = {"m": (0.3, 3.5), "cm": (30, 350), "mm": (400, 3500)}
    return next((unit for unit, (low, high) in bounds.items() if low <= size <= high), None)


def layout_of(names: Sequence[str]) -> Graph | None:
    """The first built-in layout with exactly these joints, in any order."""
    wanted = set(common_names(names))
    if len(wanted) != len(names):
        return None
    layouts = GRAPHS.values()
    return next((graph for graph in layouts if set(common_names(graph.joints)) == wanted), None)


def in_order_of(recording: Recording, layout: Graph) -> Recording:
    """A recording with named joints, with its joints in the order of `layout`.

    Raises:
      ValueError: a joint of `layout` is not among the names.
    """
    places = {name: v for v, name in enumerate(common_names(recording.names))}
    places |= {name: v for v, name in enumerate(recording.names)}
    order, lost = [], []
    for name, common in zip(layout.joints, common_names(layout.joints), strict=True):
        place = places.get(name, places.get(common))
        lost += [name] if place is None else []
        order.append(place)
    if lost:
        raise ValueError(
            f"it lacks the joints {', '.join(map(repr, lost[:3]))} of {layout.name}; "
            f"it has {', '.join(map(repr, recording.names[:5]))}"
        )
    confidence = recording.confidence
    return dataclasses.replace(
        recording,
        joints=recording.joints[:, :, order],
        confidence=None if confidence is None else confidence[:, :, order],
        layout=layout,
        names=layout.joints,
    )


def as_layout(recording: Recording, target: Graph) -> tuple[Recording, np.ndarray]:
    """(The recording in another layout, whether each joint of it is missing, bool [V']).

    Raises:
      ValueError: the layout of the recording is unknown.
      UserError: as `convert_layout`.
    """
    if recording.layout is None:
        count = recording.joints.shape[2]
        raise ValueError(f"the layout of its {count} joints is unknown; name it with --layout")
    count, confidence = recording.joints.shape[-1], recording.confidence
    parts = [recording.joints] + ([] if confidence is None else [confidence[..., None]])
    joints = np.concatenate(parts, axis=-1)
    joints, missing = convert_layout(joints, recording.layout, target)
    confidence = None if confidence is None else joints[..., count]
    fields = {"layout": target, "names": target.joints, "confidence": confidence}
    return dataclasses.replace(recording, joints=joints[..., :count], **fields), missing


def in_metres(recording: Recording) -> Recording:
    """The recording in metres if its unit is a length, otherwise unchanged."""
    if recording.unit not in METRES or recording.unit == "m":
        return recording
    joints = recording.joints * np.float32(METRES[recording.unit])
    return dataclasses.replace(recording, joints=joints, unit="m")


def turned_up(recording: Recording, up: str) -> Recording:
    """The recording with axis `up` upwards; unchanged if its current up axis is unknown.

    3D coordinates are turned, never mirrored. In 2D only y changes its sign: a picture whose rows
    are counted downwards becomes the same picture with y upwards, in which left and right are where
    the camera saw them. A rotation by 180 degrees would show the picture mirrored.
    """
    if recording.up in (None, up):
        return recording
    if recording.joints.shape[3] == 2:
        if {up, recording.up} != {"y", "-y"}:
            return recording
        turn = np.diag(np.float32([1, -1]))
    else:
        turn = np.array(_TURNS[up], np.float32).T @ np.array(_TURNS[recording.up], np.float32)
    # A sum over axes: in a matrix product, 0 x NaN would spread NaN to other axes.
    source = np.abs(turn).argmax(axis=1)
    joints = recording.joints[..., source] * turn[np.arange(len(turn)), source]
    return dataclasses.replace(recording, joints=joints, up=up)
