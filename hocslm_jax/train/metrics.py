"""Reports of a running training: `metrics.jsonl`, TensorBoard, the terminal, running totals.

In: (sum, count) pairs and plain numbers with their step. Out: one JSON object a line, in the order
of the steps. Process 0 alone writes. After a resume, lines after the restored step are dropped, so
that no step is reported twice.
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from hocslm_jax.files.atomic import write_text


@dataclasses.dataclass
class Totals:
    """Running totals of a run, saved in its checkpoints."""

    window: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # since the last log
    epoch: dict[str, list[float]] = dataclasses.field(default_factory=dict)  # since the last eval
    best_correct: int = -1
    best_epoch: int = 0
    best_val: int = -1  # correct clips of the val split, where there is one
    evaluated_step: int = -1
    steps_timed: int = 0
    train_seconds: float = 0.0  # in training steps alone
    wall_clock_s: float = 0.0  # total time, over all resumes
    streams: dict[str, list[int]] = dataclasses.field(default_factory=dict)  # as `best_…`

    def add(self, metrics: Mapping[str, tuple[float, float]]) -> None:
        for name, (total, count) in metrics.items():
            for sums in (self.window, self.epoch):
                old = sums.get(name, (0.0, 0.0))
                sums[name] = [old[0] + float(total), old[1] + float(count)]

    def add_time(self, seconds: float, steps: int) -> None:
        if steps:
            self.add({"step_time_s": (seconds, steps)})
            self.steps_timed += steps
            self.train_seconds += seconds

    def note_best(
        self,
        epoch: int,
        correct: int,
        streams: Mapping[str, int],
        val: tuple[int, Mapping[str, int]] | None = None,
    ) -> None:
        """Keeps the best epoch of the run, and of each of several streams.

        Args:
          correct, streams: correct test clips, in all and of each stream.
          val: the same for the val split; if given, it selects the best epoch.
        """
        if better(val and val[0], self.best_val, correct, self.best_correct):
            self.best_correct, self.best_epoch = correct, epoch
            self.best_val = val[0] if val else -1
        for name, count in streams.items():
            best, _, best_val = [*self.streams.get(name, [-1, 0]), -1][:3]
            its = val[1][name] if val else None
            if better(its, best_val, count, best):
                self.streams[name] = [count, epoch] if its is None else [count, epoch, its]

    def of_stream(self, name: str, streams: Sequence[str]) -> "Totals":
        """The totals of one of several streams, as if it had been run alone."""
        best_correct, best_epoch, best_val = [*self.streams[name], -1][:3]
        own = {part: of_stream(getattr(self, part), name, streams) for part in ("window", "epoch")}
        own |= {"best_correct": best_correct, "best_epoch": best_epoch, "best_val": best_val}
        return dataclasses.replace(self, **own, streams={})


def better(val: int | None, best_val: int, correct: int, best_correct: int) -> bool:
    """Whether an epoch is the best so far, on the val split or, without one, on the test split."""
    return correct > best_correct if val is None else val > best_val


def of_stream(values: Mapping[str, Any], name: str, streams: Sequence[str]) -> dict[str, Any]:
    """The numbers of one stream by name: `loss/joint` as `loss`, and numbers of all streams."""
    shared = {key: v for key, v in values.items() if key.rpartition("/")[2] not in streams}
    return shared | {
        key.removesuffix(f"/{name}"): v for key, v in values.items() if key.endswith(f"/{name}")
    }


def means(sums: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: total / count for name, (total, count) in sums.items() if count}


class Stopwatch:
    """Seconds since the last `lap`."""

    def __init__(self):
        self.last = time.monotonic()

    def lap(self) -> float:
        now = time.monotonic()
        seconds, self.last = now - self.last, now
        return seconds


class MetricWriter:
    """Writes scalars to `metrics.jsonl`, and to TensorBoard if tensorboardX is installed."""

    def __init__(self, workdir: Path, step: int, evaluated: bool = True):
        """Drops lines of an earlier process after the state that the run starts from.

        Args:
            step: step of that state.
            evaluated: whether it was evaluated before it was saved; otherwise this run does it.
        """
        self.file = self.board = None
        if jax.process_index() == 0:
            path = workdir / "metrics.jsonl"
            truncate(path, step, evaluated)
            self.file = path.open("a")
            self.board = tensorboard(workdir / "tensorboard", step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if self.file is None:
            return
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        self.file.flush()  # so that the line is kept even if this process is killed
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        for sink in (self.file, self.board):
            if sink is not None:
                sink.close()


def tensorboard(folder: Path, step: int):
    """A TensorBoard writer from `step` on, or None if tensorboardX is not installed."""
    try:
        import tensorboardX  # imported here, because it imports PyTorch if installed
    except ImportError:
        return None
    return tensorboardX.SummaryWriter(str(folder), purge_step=step + 1)


def truncate(path: Path, step: int, evaluated: bool = True) -> None:
    """Keeps complete lines of a metrics file up to `step`, its evaluation only if `evaluated`."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            values = json.loads(line) if line.endswith("\n") else {}
            again = values["step"] == step and "eval/top1" in values and not evaluated
            if values["step"] <= step and not again:
                kept.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # an incomplete line of a killed process, or a damaged one
    write_text(path, "".join(kept))
