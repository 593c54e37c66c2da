"""A file of any format as a clip of one skeleton, for `prepare folder` and `predict`.

In: a path or an array, the target skeleton, and the user's settings for the files (`Reading`). Out:
joints float32 [T, M, V, C] in the order of that skeleton, 3D ones in metres and upright. Short gaps
are filled over time; joints that are still missing are 0, and so is their confidence.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hocslm_jax.data.channels import CHANNELS, USUAL, coordinates_of, has_confidence
from hocslm_jax.data.clip import FARTHEST, Nobody, check_joints, check_near
from hocslm_jax.data.gaps import LONGEST, fill_gaps, mark_missing
from hocslm_jax.data.prepare.readers.arrays import from_array, split
from hocslm_jax.data.prepare.readers.formats import ARRAYS, as_declared, read_recording
from hocslm_jax.data.prepare.readers.recording import (
    MAX_NUMBERS,
    Recording,
    as_layout,
    in_metres,
    turned_up,
)
from hocslm_jax.files.npy import read_npy
from hocslm_jax.graph import Graph, resolve_graph

SURE = 2.0  # above every confidence; estimators give probabilities, a few slightly more


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files become clips: facts that the files themselves do not state.

    Attributes:
      channels: of the clips, one of `channels.CHANNELS`.
      missing: the value of all coordinates of a missing joint; None = no such value. NaN and a
        confidence of 0 always mark a missing joint.
      gap: the longest gap, in frames, that is filled over time.
      layout: name of the layout of the files' joints; "" = that stated in the file, or the target
        skeleton.
      axes: the order of an array's axes, e.g. "TVC"; "" = as `as_clip` takes them.
    """

    channels: str = USUAL
    missing: float | None = None
    gap: int = LONGEST
    layout: str = ""
    axes: str = ""

    def noted(self) -> dict:
        """The settings that are not the default, to read another file of the same source."""
        found = {"missing": self.missing, "gap": self.gap}
        return {key: value for key, value in found.items() if value != getattr(USUAL_READING, key)}


USUAL_READING = Reading()


def reading_of(noted: object, channels: str = USUAL) -> Reading:
    """The Reading of a dataset or a run from its stored `Reading.noted`.

    Raises:
      ValueError: the stored value is damaged.
    """
    noted = noted if isinstance(noted, Mapping) else {}
    missing, gap = noted.get("missing"), noted.get("gap", LONGEST)
    number = missing is None or (type(missing) in (int, float) and abs(missing) < FARTHEST)
    if channels not in CHANNELS or not number or type(gap) is not int or gap < 0:
        raise ValueError(f"clips cannot be read with {dict(noted)}"[:100])
    return Reading(channels, missing, gap)


def read_clip(path: Path, graph: Graph | None, reading: Reading = USUAL_READING) -> np.ndarray:
    """One file as float32 [T, M, V, C] with the joints of `graph`, or without it with its own.

    Raises:
      ValueError: with the reason: the file is missing or has an unknown format, unit, layout or
        number of coordinates, or as `as_clip`; `Nobody` if all joints are missing.
      UserError: a file other than .npy cannot be read.
    """
    if path.suffix.lower() == ".npy" and not reading.axes and not reading.layout:
        array = read_npy(path)
        if array.dtype.kind not in "fiu":
            raise ValueError("not a .npy file of numbers")
        return as_clip(array, graph.num_joints if graph else array.shape[-2], reading)
    recording = _declared(path, reading, graph)
    is_array = path.suffix.lower() in ARRAYS
    if recording.joints.shape[-1] == 3 and recording.unit is None and not is_array:
        raise ValueError("its unit is not clear from the size of a body; convert it to metres")
    return clip_of(recording, graph, reading)


def mapped(array: np.ndarray, graph: Graph, reading: Reading) -> np.ndarray:
    """An array [T, M, V, C] or [T, V, C] of `reading.layout` as a clip [T, M, V', C] of `graph`.

    Raises:
      ValueError: other joints or coordinates, or as `read_clip`.
    """
    axes = reading.axes or ("TVC" if array.ndim == 3 else "TMVC")
    recording = from_array(array, axes, resolve_graph(reading.layout))
    return clip_of(_with_confidence(recording, reading), graph, reading)


def clip_of(
    recording: Recording, graph: Graph | None, reading: Reading = USUAL_READING
) -> np.ndarray:
    """A Recording as `read_clip` gives it, of any unit.

    Raises:
      ValueError: as `read_clip`.
    """
    wanted, count = coordinates_of(reading.channels), recording.joints.shape[-1]
    if count != wanted:
        raise ValueError(f"its joints have {count} coordinates; {reading.channels} needs {wanted}")
    joints = mark_missing(recording.joints, reading.missing, _known(recording.confidence))
    recording = dataclasses.replace(recording, joints=joints)
    reading = dataclasses.replace(reading, missing=None)  # the number was in the file's unit
    recording = turned_up(in_metres(recording), graph.up if graph else "y")
    if graph:
        if recording.layout is None and recording.joints.shape[2] == graph.num_joints:
            recording = as_declared(recording, graph)
        recording, _ = as_layout(recording, graph)
    return finished(recording.joints, recording.confidence, reading)


def channels_in(path: Path, reading: Reading, graph: Graph | None = None) -> str:
    """The channels of a dataset of the skeleton `graph`, from its first clip.

    A confidence is kept if the joints are 2D or it is part of an array.

    Raises:
      ValueError, UserError: the file cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy" and not reading.axes:
        array = read_npy(path)
        if array.dtype.kind not in "fiu" or array.ndim not in (3, 4):
            raise ValueError(f"an array of {array.dtype} and shape {array.shape} is not a clip")
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.asarray(array, np.float32)
        joints, confidence = split(array if array.ndim == 4 else array[:, None])
    else:
        recording = _declared(path, reading, graph)
        joints, confidence = recording.joints, recording.confidence
    keeps = joints.shape[-1] == 2 or suffix in ARRAYS
    channels = "xyz"[: joints.shape[-1]] + "c" * (confidence is not None and keeps)
    if channels not in CHANNELS:
        raise ValueError(f"shape {joints.shape}: two or three coordinates are expected")
    return channels


def as_clip(array: np.ndarray, num_joints: int, reading: Reading = USUAL_READING) -> np.ndarray:
    """An array [T, M, V, C] or [T, V, C] as float32 [T, M, V, C], without all-zero persons.

    C is given by `reading.channels`; if the array lacks the confidence, it is 1 for known joints.

    Raises:
      ValueError: a wrong shape, axes in another order, an invalid confidence, or as
        `clip.check_joints`; `Nobody` if all joints are missing.
    """
    if array.ndim == 3:
        array = array[:, None]
    channels, count = reading.channels, coordinates_of(reading.channels)
    widths = dict.fromkeys((len(channels), count))
    if array.ndim != 4 or array.shape[2] != num_joints or array.shape[3] not in widths:
        last = " or ".join(map(str, widths))
        raise ValueError(
            f"shape {array.shape}, expected (T, {num_joints}, {last}) or (T, M, {num_joints}, "
            f"{last}): {channels}"
        )
    if not array.size:
        raise ValueError("no frames or no persons")
    if array.size > MAX_NUMBERS:
        raise ValueError(f"{array.size} numbers, too many for a clip")
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.array(array, np.float32)
    confidence = values[..., count] if values.shape[-1] > count else None
    if confidence is not None and ((confidence < 0) | (confidence > SURE)).any():
        raise ValueError(f"the last of {channels} is not a confidence: it leaves the range 0 to 1")
    clip = finished(values[..., :count], confidence, reading)
    frames, persons = clip.shape[:2]
    if persons > 2 and (persons > frames or _smoother_by_person(clip)):
        raise ValueError(
            f"shape {array.shape} read as (frames, persons, joints, {channels}) is {frames} frames "
            f"of {persons} persons, but the second axis looks like time; put time first"
        )
    return clip


def finished(
    joints: np.ndarray, confidence: np.ndarray | None, reading: Reading = USUAL_READING
) -> np.ndarray:
    """Coordinates [T, M, V, 2 or 3], NaN where missing, as a clip float32 [T, M, V, C].

    Short gaps are filled over time. The confidence [T, M, V] of a joint that was seen does not
    change, or is 1 if it is unknown; that of a missing joint is 0, even if it was filled. Persons
    who are always missing are left out.

    Raises:
      ValueError: as `clip.check_joints`; `Nobody` if all joints are missing.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        joints = np.asarray(joints, np.float32)
    check_near(joints, np.abs(joints) >= FARTHEST)
    confidence = _known(confidence)
    joints = mark_missing(joints, reading.missing, confidence)
    lost = np.isnan(joints[..., 0])  # [T, M, V]
    if lost.size and lost.all():
        raise Nobody("it shows nobody: all joints are missing")
    seen = joints.any(axis=-1) & ~lost  # joints at exactly 0 are missing too
    if lost.any():
        joints = np.nan_to_num(fill_gaps(joints, reading.gap)[0], nan=0.0)
    check_joints(joints)
    persons = joints.any(axis=(0, 2, 3))
    if has_confidence(reading.channels):
        sure = seen if confidence is None else np.where(seen, confidence, 0)
        joints = np.concatenate([joints, sure[..., None].astype(np.float32)], axis=-1)
    return np.ascontiguousarray(joints[:, persons])


def _declared(path: Path, reading: Reading, graph: Graph | None) -> Recording:
    likely = graph.num_joints if graph else 0
    recording = read_recording(path, reading.axes or None, reading.layout or None, likely)
    return _with_confidence(recording, reading)


def _with_confidence(recording: Recording, reading: Reading) -> Recording:
    """The Recording, with the confidence that `reading` declares but the reader did not know."""
    joints, known = recording.joints, recording.confidence is not None
    if known or not has_confidence(reading.channels) or joints.shape[-1] != len(reading.channels):
        return recording
    parts = {"joints": joints[..., :-1], "confidence": joints[..., -1], "unit": None}
    return dataclasses.replace(recording, **parts)


def _known(confidence: np.ndarray | None) -> np.ndarray | None:
    """The confidence, with 1 where the file has none."""
    return None if confidence is None else np.nan_to_num(confidence, nan=1.0)


def _smoother_by_person(clip: np.ndarray) -> bool:
    """Whether poses change far less from one person to the next than from frame to frame."""
    by_frame, by_person = (np.median(np.abs(np.diff(clip, axis=axis))) for axis in (0, 1))
    return bool(by_person < by_frame / 2)
