"""Frames of a long or live recording: from JSON lines as they arrive, or from a video.

In: a stream of lines, or a video. Out: (number, joints [M, V, 3]) of each frame. A line is one
frame: a list of persons, each a list of its joints [x, y, z], or of the model's own channels; or an
object with these as `persons` and optionally the frame's number as `frame`.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hocslm_jax.data.channels import USUAL, coordinates_of
from hocslm_jax.data.clip import FARTHEST
from hocslm_jax.data.prepare.filmed import recording_of
from hocslm_jax.data.prepare.readers.clips import Reading, clip_of
from hocslm_jax.data.prepare.readers.recording import Recording
from hocslm_jax.errors import UserError
from hocslm_jax.files.text import parse_json
from hocslm_jax.graph import Graph, resolve_graph
from hocslm_jax.pose.estimators import Pose, Poses, bodies
from hocslm_jax.predict.timeline import Frame

MAX_LINE = 1 << 20  # bytes of a frame
MOST_PERSONS = 10
POLL = 0.05  # seconds between two checks of a file that may grow
MAX_NUMBER = 10**15


def read_lines(stream: BinaryIO, wait: float = 0.0) -> Iterator[bytes]:
    """The lines of a stream; too long lines are cut.

    Args:
      wait: the stream ends when no data has arrived for so many seconds.
    """
    line, since = b"", time.monotonic()
    while True:
        part = stream.readline(MAX_LINE + 1)
        if part:
            line, since = (line + part)[: MAX_LINE + 1], time.monotonic()
            if part.endswith(b"\n"):
                yield line
                line = b""
        elif time.monotonic() - since >= wait:
            break
        else:
            time.sleep(POLL)
    if line:
        yield line


def parse_frames(
    lines: Iterable[bytes], graph: Graph, reading: Reading, report: Callable[[str], None]
) -> Iterator[Frame]:
    """The frames in lines; calls `report` with the reason for each invalid line.

    Args:
      graph: the skeleton of the returned frames.
      reading: their channels, and the layout of the lines' joints if it differs.
    """
    source = resolve_graph(reading.layout) if reading.layout else graph
    last = -1
    for place, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            number, persons = parse_frame(line, source.num_joints, reading.channels)
            number = last + 1 if number is None else number
            if number <= last:
                raise ValueError(f"frame {number} comes after frame {last}")
            if source is not graph and persons.any():
                persons = _converted(persons, source, graph, reading)
        except (ValueError, UserError) as error:
            report(f"line {place}: {error}")
            continue
        last = number
        yield number, persons


def parse_frame(line: bytes, joints: int, channels: str = USUAL) -> tuple[int | None, np.ndarray]:
    """(The frame's number, if the line gives one; its persons, float32 [M, joints, channels]).

    A joint of null or NaN is missing and becomes 0. If the confidence is left out, it is 1.

    Raises:
      ValueError: with the reason, if the line is not a valid frame.
    """
    if len(line) > MAX_LINE:
        raise ValueError(f"over {MAX_LINE} bytes")
    value, number = parse_json(line), None
    if isinstance(value, dict):
        if "persons" not in value:
            raise ValueError("an object without 'persons'")
        number, value = value.get("frame"), value["persons"]
        if number is not None and (type(number) is not int or not 0 <= number < MAX_NUMBER):
            raise ValueError(f"{str(number)[:30]!r} is not a frame number")
    if not isinstance(value, list) or len(value) > MOST_PERSONS:
        raise ValueError(f"not a list of at most {MOST_PERSONS} persons")
    if not value:
        return number, np.zeros((0, joints, len(channels)), np.float32)
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            persons = np.array(value, np.float32)  # None becomes NaN
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"persons that are not lists of {[*channels]}") from None
    count = coordinates_of(channels)
    if persons.shape[1:] not in ((joints, len(channels)), (joints, count)):
        raise ValueError(
            f"persons of shape {persons.shape[1:]}, expected ({joints}, {len(channels)})"
        )
    if (np.abs(persons) >= FARTHEST).any():
        raise ValueError(f"a coordinate beyond {FARTHEST:g}")
    if persons.shape[2] < len(channels):
        persons = np.concatenate([persons, np.ones_like(persons[..., :1])], axis=-1)
    missing = np.isnan(persons).any(axis=-1, keepdims=True)
    return number, np.where(missing, np.float32(0), persons)


def video_frames(video: Path, pose: Pose, graph: Graph, reading: Reading) -> Iterator[Frame]:
    """The frames of a video, with skeletons that have the joints of `graph`.

    Raises:
      ValueError: the video is damaged; with the reason.
      UserError: as `bodies`.
    """
    found, fps = bodies(video, pose)
    for number, people in enumerate(found):
        # The index of a person is their number, also while others are not seen.
        persons = 1 + max((body.track for body in people), default=-1)
        frame = np.zeros((persons, graph.num_joints, len(reading.channels)), np.float32)
        if people:
            arrays = (np.stack(values)[None] for values in [*zip(*people, strict=True)][1:])
            recording = recording_of(
                Poses(*arrays, pose.layout, fps), coordinates_of(reading.channels)
            )
            frame[[body.track for body in people]] = clip_of(recording, graph, reading)[0]
        yield number, frame


def _converted(persons: np.ndarray, source: Graph, graph: Graph, reading: Reading) -> np.ndarray:
    """Converts persons [M, V, C] of a layout to the joints of `graph`."""
    there = persons.any(axis=(1, 2))
    count = coordinates_of(reading.channels)
    joints, sure = persons[None, there, :, :count], persons[None, there, :, count:]
    recording = Recording(
        np.where(joints.any(axis=-1, keepdims=True), joints, np.float32(np.nan)),
        sure[..., 0] if sure.shape[-1] else None,
        layout=source,
        unit="m" if count == 3 else "px",
        up=source.up if count == 3 else "-y",
    )
    frame = np.zeros((len(persons), graph.num_joints, len(reading.channels)), np.float32)
    frame[there] = clip_of(recording, graph, reading)[0]
    return frame


def until_stopped(source: Iterable) -> Iterator:
    """The items of a source until its end or Ctrl-C, which lets work in progress finish."""
    asked, waiting, items = threading.Event(), False, iter(source)

    def ask(*_):
        asked.set()
        if waiting:
            raise KeyboardInterrupt

    with _handler(ask):
        while not asked.is_set():
            try:
                waiting = True
                item = next(items)
                waiting = False
            except (StopIteration, KeyboardInterrupt):
                return
            yield item


@contextlib.contextmanager
def _handler(function: Callable) -> Iterator[None]:
    """Handles Ctrl-C if possible, which is only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, function)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
