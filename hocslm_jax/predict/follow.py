"""`predict --follow`: recognises actions in a long or live recording as it arrives.

In: frames as JSON lines on the standard input or in a file that may still grow, or a long video.
Out: JSON lines: a prediction for each window of frames, and a line for each segment with one
action, when it has ended. Memory does not grow with the recording.
"""

import argparse
import collections
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hocslm_jax.data.prepare.readers.clips import Reading
from hocslm_jax.errors import UserError, brief
from hocslm_jax.files.videos import is_video
from hocslm_jax.graph import Graph
from hocslm_jax.language.describe import Decoding
from hocslm_jax.pose.estimators import Pose
from hocslm_jax.predict.live_frames import parse_frames, read_lines, until_stopped, video_frames
from hocslm_jax.predict.predictor import Predictor
from hocslm_jax.predict.timeline import Frame, Segment, Timeline, Window, scenes, windows

SMOOTH = 0.5  # weight of earlier windows in the probabilities that are shown
KEPT = 600  # a segment is described from at most its last so many frames
REMEMBERED = 1000  # windows over which the latency is measured


def follow(
    args: argparse.Namespace,
    predictor: Predictor,
    files: Sequence[Path],
    pose: Pose | None,
    decoding: Decoding | None,
    reading: Reading,
) -> int:
    """Reads to the end, or to Ctrl-C, and writes a line for each window and segment.

    Args:
      reading: the channels of the frames, and their layout if not the model's.

    Raises:
      UserError: several files, or an invalid window or hop.
    """
    if len(files) > 1 or args.save_skeleton or args.out:
        raise UserError("--follow reads one FILE; it cannot draw or save skeletons")
    length = args.window or predictor.members[0].feed.frames
    hop = args.hop or max(1, length // 8)
    if not 1 <= hop <= length:
        raise UserError(f"--window {length} --hop {hop}: 1 <= hop <= window is needed")
    predictor.predict(_example(predictor))  # compiles before frames arrive
    report = lambda reason: print(brief(f"skipped: {reason}"), file=sys.stderr)  # noqa: E731
    latencies: collections.deque[float] = collections.deque(maxlen=REMEMBERED)
    began, count = time.perf_counter(), 0
    with contextlib.ExitStack() as stack:
        frames = _frames(files, pose, predictor.graph, reading, args.wait, report, stack)
        try:
            for event in answers(predictor, frames, length, hop, decoding, report):
                print(as_line(event, predictor.classes, args.top), flush=True)
                if isinstance(event, Answer):
                    count += 1
                    latencies.append(event.seconds)
        except ValueError as error:  # damaged video; earlier results are printed
            raise UserError(f"{files[0]}: {error}") from None
    if count:
        middle, most = (1000 * np.quantile(latencies, q) for q in (0.5, 0.95))
        print(
            f"{count} windows in {time.perf_counter() - began:.1f} s; the answer to a window takes "
            f"{middle:.0f} ms in the median, {most:.0f} ms at the 95th percentile",
            file=sys.stderr,
        )
    return 0


def _frames(
    files, pose, graph: Graph, reading: Reading, wait: float, report, stack
) -> Iterator[Frame]:
    if files and is_video(files[0]):
        return until_stopped(video_frames(files[0], pose, graph, reading))
    stream = sys.stdin.buffer
    if files:
        try:
            stream = stack.enter_context(files[0].open("rb"))
        except OSError as error:
            raise UserError(f"{files[0]}: {error.strerror or error}") from None
    lines = until_stopped(read_lines(stream, wait if files else 0.0))
    return parse_frames(lines, graph, reading, report)


class Answer(NamedTuple):
    """The prediction for a window, and its latency in seconds after the window's last frame.

    `probabilities` [classes] are smoothed over the previous windows of the scene.
    """

    start: int
    end: int
    probabilities: np.ndarray
    seconds: float


class EndedSegment(NamedTuple):
    """A segment that has ended, and a sentence about it if requested."""

    segment: Segment
    description: str | None


def answers(
    predictor: Predictor,
    frames: Iterable[Frame],
    length: int,
    hop: int,
    decoding: Decoding | None,
    report: Callable[[str], None],
) -> Iterator[Answer | EndedSegment]:
    """The answers about a recording, as soon as they are known.

    Args:
      length, hop: of the windows, frames.
      decoding: how to describe segments; None gives no sentences.
      report: called with the reason if a window cannot be used.
    """
    kept: collections.deque[Frame] = collections.deque(maxlen=KEPT if decoding else 0)

    def ended(segment: Segment) -> EndedSegment:
        clip = [frame for frame in kept if segment.start <= frame[0] < segment.end]
        if decoding is None or not clip:
            return EndedSegment(segment, None)
        joints = next(windows(clip, len(clip), len(clip))).joints
        return EndedSegment(segment, predictor.predict(joints, decoding).description)

    for scene in scenes(_kept(frames, kept)):
        timeline, shown = Timeline(length, hop), None
        for window in windows(scene, length, hop):
            began = time.perf_counter()
            try:
                shares = shares_of(predictor, window)
            except UserError as error:
                report(f"frames {window.start} to {window.end}: {error}")
                continue
            shown = shares if shown is None else SMOOTH * shown + (1 - SMOOTH) * shares
            yield Answer(window.start, window.end, shown, time.perf_counter() - began)
            yield from map(ended, timeline.add(window.start, window.end, shares))
        yield from map(ended, timeline.finish())


def shares_of(predictor: Predictor, window: Window) -> np.ndarray:
    """The probabilities [classes] of a window, in the order of the classes."""
    found = predictor.predict(window.joints).probabilities
    return np.array([found[name] for name in predictor.classes])


def as_line(event: Answer | EndedSegment, classes: Sequence[str], top: int) -> str:
    """One JSON object."""
    if isinstance(event, EndedSegment):
        start, end, label, score = event.segment
        line = {"kind": "segment", "start": start, "end": end, "class": classes[label]}
        line["score"] = round(score, 4)
        if event.description is not None:
            line["description"] = event.description
        return json.dumps(line, ensure_ascii=False)
    order = np.argsort(-event.probabilities, kind="stable")[:top]
    shares = {classes[label]: round(float(event.probabilities[label]), 4) for label in order}
    line = {"kind": "window", "start": event.start, "end": event.end, "class": next(iter(shares))}
    line |= {"probabilities": shares, "latency_ms": round(1000 * event.seconds, 1)}
    return json.dumps(line, ensure_ascii=False)


def _kept(frames: Iterable[Frame], kept: collections.deque) -> Iterator[Frame]:
    for frame in frames:
        kept.append(frame)
        yield frame


def _example(predictor: Predictor) -> np.ndarray:
    """An arbitrary clip [T, 1, V, 3] that the model accepts."""
    shape = (1, 1, predictor.graph.num_joints, len(predictor.reading.channels))
    joints = np.random.default_rng(0).uniform(0.1, 0.9, size=shape)
    return np.repeat(joints, predictor.members[0].feed.frames, axis=0).astype(np.float32)
