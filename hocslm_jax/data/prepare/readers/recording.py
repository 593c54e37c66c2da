"""What every reader returns: the skeletons of one file, and what the file says about them.

In: detections or arrays. Out: a Recording, in the file's own units, axes and layout; a joint that
is not there is NaN. The functions below bring one to a model's units, axes and layout. NumPy only.
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
SPARSEST = 10  # frame numbers that are further apart than this on average are no frame numbers
# What turns each axis up into y up without mirroring a body, [3, 3]. Where y points down, z points
# away from the camera; so it does with y up in Kinect's coordinates, and who faces it still does.
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
      joints: float32 [T, M, V, 2 or 3]; NaN where a joint or a person is not there.
      confidence: float32 [T, M, V] as the file has it, NaN where there is none; or None.
      layout: whose joints these are, or None if the file does not say.
      names: the joints' names, where the file names them.
      unit: of `UNITS`, or None if it cannot be told.
      up: the axis that points up, as in `Graph.up`, or None.
      fps: frames a second, or None.
      tracks: a name for each person; () where the file has none.

    Raises:
      ValueError: with the reason: another shape, too much, nobody in it, or coordinates that cannot
        be meant.
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
            raise Nobody("nobody is in it: no joint has coordinates")
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

    Time begins at the first frame and has every number up to the last; a person takes the same
    place of M in all frames.

    Args:
      frames: numbers of frames that exist, with or without anybody.

    Raises:
      ValueError: nobody, persons with other joints, one twice in a frame, or frame numbers that are
        none.
    """
    if not detections:
        raise Nobody("nobody is in it")
    numbers = {detection.frame for detection in detections} | set(frames)
    first, count = min(numbers), max(numbers) - min(numbers) + 1
    if count > SPARSEST * len(numbers) + SPARSEST:
        raise ValueError(
            f"frames {first} to {max(numbers)}, of which {len(numbers)} exist: no frame numbers"
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
    """Raises ValueError where an array of this shape is more than any clip has."""
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
        raise ValueError(f"{what} is no list of numbers") from None


def guess_unit(joints: np.ndarray) -> str | None:
    """The unit of joints [T, M, V, C] by the size of a body, None if it fits none.

    A body's size is the longest side of its box, in the median over frames and persons. In images
    it says only whether coordinates are pixels.
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
    """The built-in layout that has exactly these joints, in whatever order; the first such."""
    wanted = set(common_names(names))
    if len(wanted) != len(names):
        return None
    layouts = GRAPHS.values()
    return next((graph for graph in layouts if set(common_names(graph.joints)) == wanted), None)


def in_order_of(recording: Recording, layout: Graph) -> Recording:
    """A recording whose joints have names, with them in the order of `layout`.

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
      ValueError: the layout of the recording is not known.
      UserError: as `convert_layout`.
    """
    if recording.layout is None:
        count = recording.joints.shape[2]
        raise ValueError(f"whose its {count} joints are is not known; say it with --layout")
    count, confidence = recording.joints.shape[-1], recording.confidence
    parts = [recording.joints] + ([] if confidence is None else [confidence[..., None]])
    joints = np.concatenate(parts, axis=-1)
    joints, missing = convert_layout(joints, recording.layout, target)
    confidence = None if confidence is None else joints[..., count]
    fields = {"layout": target, "names": target.joints, "confidence": confidence}
    return dataclasses.replace(recording, joints=joints[..., :count], **fields), missing


def in_metres(recording: Recording) -> Recording:
    """The recording in metres, if its unit is a length; else as it is."""
    if recording.unit not in METRES or recording.unit == "m":
        return recording
    joints = recording.joints * np.float32(METRES[recording.unit])
    return dataclasses.replace(recording, joints=joints, unit="m")


def turned_up(recording: Recording, up: str) -> Recording:
    """The recording with axis `up` upwards; as it is if nobody knows which axis is up now.

    3D coordinates are turned, never mirrored. In 2D only the direction of y can change.
    """
    if recording.up in (None, up):
        return recording
    if recording.joints.shape[3] == 2:
        if {up, recording.up} != {"y", "-y"}:
            return recording
        turn = np.diag(np.float32([1, -1]))
    else:
        turn = np.array(_TURNS[up], np.float32).T @ np.array(_TURNS[recording.up], np.float32)
    # A sum over axes instead of a product of matrices, in which 0 x NaN would spread.
    source = np.abs(turn).argmax(axis=1)
    joints = recording.joints[..., source] * turn[np.arange(len(turn)), source]
    return dataclasses.replace(recording, joints=joints, up=up)
