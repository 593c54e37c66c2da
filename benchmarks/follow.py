"""Accuracy and speed of `predict --follow` on long recordings.

    python -m benchmarks.follow --checkpoint results/nw_ucla/weights/hglnet/joint_30_seed0

In: a model and its prepared dataset. The clips of a split are concatenated in a fixed random order,
in two ways: as recorded, where people jump to another place after each clip, which `follow` treats
as the end of an action; and joined, with each clip moved to the place where the previous one ended,
so that only the action changes. Out: the F1 of the found segments, the share of frames with the
right class, and windows per second of wall-clock time and of CPU time, which does not depend on
other load of the machine.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.record import measured_here, one_line_errors, table, write_result
from hocslm_jax.data.store import open_store
from hocslm_jax.predict.follow import Answer, answers
from hocslm_jax.predict.load_model import load_pretrained
from hocslm_jax.predict.timeline import Segment
from hocslm_jax.train.environment import use_compilation_cache

OVERLAP = 0.5  # least intersection over union of a found segment with a true one


def segment_f1(
    found: Sequence[Segment], true: Sequence[Segment], least: float = OVERLAP
) -> tuple[float, int]:
    """(F1, hits): a found segment hits a true one of its class if they overlap by at least `least`.

    Overlap is intersection over union; every true segment is hit once (Lea et al. 2017).
    """
    hit: set[int] = set()
    for segment in found:
        overlaps = [
            (overlap(segment, other), place)
            for place, other in enumerate(true)
            if other.label == segment.label and place not in hit
        ]
        best, place = max(overlaps, default=(0.0, -1))
        if best >= least:
            hit.add(place)
    return 2 * len(hit) / max(1, len(found) + len(true)), len(hit)


def overlap(one: Segment, other: Segment) -> float:
    """Intersection over union of two intervals."""
    shared = min(one.end, other.end) - max(one.start, other.start)
    return max(0, shared) / (max(one.end, other.end) - min(one.start, other.start))


def merged(segments: Iterable[Segment]) -> list[Segment]:
    """Merges neighbouring segments of the same class."""
    found: list[Segment] = []
    for segment in segments:
        if found and found[-1].label == segment.label and found[-1].end == segment.start:
            segment = found.pop()._replace(end=segment.end)
        found.append(segment)
    return found


def recording(
    clips: Sequence[np.ndarray], labels: Sequence[int], centre: int, joined: bool
) -> tuple[np.ndarray, list[Segment]]:
    """(Frames [T, M, V, 3] of concatenated clips, the true segments)."""
    parts, true, end = [], [], 0
    for clip, label in zip(clips, labels, strict=True):
        if joined and parts:
            clip = clip + (parts[-1][-1, 0, centre] - clip[0, 0, centre])
        parts.append(clip)
        true.append(Segment(end, end + len(clip), int(label), 1.0))
        end += len(clip)
    return np.concatenate(parts), merged(true)


def measure(predictor, frames: np.ndarray, true: list[Segment], length: int, hop: int) -> dict:
    """Accuracy and speed on one recording."""
    found, seconds = [], []
    start, used = time.perf_counter(), time.process_time()
    for event in answers(predictor, enumerate(frames), length, hop, None, print):
        if isinstance(event, Answer):
            seconds.append(event.seconds)
        else:
            found.append(event.segment)
    total, used = time.perf_counter() - start, time.process_time() - used
    found = merged(found)
    f1, hits = segment_f1(found, true)
    truth, told = np.full(len(frames), -1), np.full(len(frames), -2)
    for segments, row in ((true, truth), (found, told)):
        for segment in segments:
            row[segment.start : segment.end] = segment.label
    return {
        "true": len(true),
        "found": len(found),
        "hits": hits,
        "f1": f1,
        "frames": len(frames),
        "right_frames": int((truth == told).sum()),
        "windows": len(seconds),
        "windows_per_s": len(seconds) / total,
        "windows_per_cpu_s": len(seconds) / used,
        "latency_ms": {str(q): 1000 * float(np.quantile(seconds, q)) for q in (0.5, 0.95)},
    }


def make_table(result: dict) -> str:
    """One row per recording."""
    lines = [
        [
            name,
            f"{row['hits']} hits, {row['found']} found, {row['true']} true",
            f"**{100 * row['f1']:.1f}**",
            f"{100 * row['right_frames'] / row['frames']:.1f} %",
            f"{row['windows_per_s']:.0f} ({row['windows_per_cpu_s']:.0f})",
            f"{row['latency_ms']['0.5']:.0f}, {row['latency_ms']['0.95']:.0f}",
        ]
        for name, row in result["recordings"].items()
    ]
    columns = [
        "clips",
        "segments",
        "F1 at 50 %",
        "right frames",
        "windows/s (of CPU time)",
        "ms (50 %, 95 %)",
    ]
    machine, settings = result["machine"], result["settings"]
    return (
        table(columns, lines)
        + f"\n\nWindows of {settings['window']} frames, every {settings['hop']}; on "
        + f"{settings['cores']} core(s) of {machine['cpu']}. `{result['command']}`"
    )


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.follow")
    add = parser.add_argument
    add("--checkpoint", required=True)
    add("--data-dir", type=Path, default=Path("data"))
    add("--split", default="test", choices=("train", "test"))
    add("--clips", type=int, help="most clips to use")
    add("--window", type=int, help="frames (default: the model's)")
    add("--hop", type=int, help="frames (default: an eighth of a window)")
    add("--cores", type=int, default=1)
    add("--json", type=Path)
    args = parser.parse_args(argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    use_compilation_cache()
    predictor = load_pretrained(args.checkpoint)
    data = predictor.members[0].config.data
    store = open_store(data.dataset, args.data_dir)
    rows = np.random.default_rng(0).permutation(store.rows(data.protocol, args.split))[: args.clips]
    clips, labels = [store.joints(row) for row in rows], store.labels[rows]
    length = args.window or predictor.members[0].feed.frames
    hop = args.hop or max(1, length // 8)
    predictor.predict(clips[0])  # compiles
    found = {}
    for name in ("as recorded", "joined"):
        centre = predictor.graph.centre
        frames, true = recording(clips, labels, centre, name == "joined")
        found[name] = measure(predictor, frames, true, length, hop)
        print(name, found[name])
    settings = {"window": length, "hop": hop, "cores": args.cores, "clips": len(clips)}
    settings |= {"split": args.split, "dataset": data.dataset, "protocol": data.protocol}
    write_result(
        args.json,
        {
            "benchmark": "follow",
            "settings": settings,
            "recordings": found,
            **measured_here("follow", arguments=argv),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
