"""Cuts the frames of a long recording into windows, and combines predictions into segments.

In: frames one after another, then a probability of each class for each window. Out: segments with a
start, an end, a class and a score. Pure NumPy with bounded memory, independent of the source of
frames and of the model. Times are frames from the start of the recording.
"""

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

GAP = 10  # up to so many empty frames, a third of a second, do not end a scene
FAR = 0.5  # share of a body's size; no person moves so far between two frames
SWITCH = 8.0  # summed log-likelihood ratio, in nats, at which a new segment begins
LAG = 64  # steps after which the class of a step is final, unless it is clear earlier
LEAST = 1e-4  # the smallest probability


Frame = tuple[int, np.ndarray]  # number, joints [M, V, C]


class Window(NamedTuple):
    """Consecutive frames: the first, the one after the last, and their joints [T, M, V, C]."""

    start: int
    end: int
    joints: np.ndarray


class Segment(NamedTuple):
    """A period with one action.

    Attributes:
      start, end: its first frame, and the one after its last.
      label: the class.
      score: the mean probability of that class, 0 to 1.
    """

    start: int
    end: int
    label: int
    score: float


def scenes(frames: Iterable[Frame]) -> Iterator[Iterator[Frame]]:
    """Splits the recording into scenes: frames with persons, across which no action continues.

    A new scene begins if the first person jumps farther than a person can move between two frames,
    or after more than `GAP` empty frames. Consume all frames of a scene before the next scene.

    Args:
      frames: (number, joints [M, V, C]) each; numbers increase.
    """
    source = iter(frames)
    ahead: list[Frame] = []  # the first frame of the next scene

    def scene() -> Iterator[Frame]:
        number, joints = ahead.pop()
        yield number, joints
        for next_number, next_joints in source:
            somebody = next_joints.any()
            if next_number - number > GAP + 1 or (somebody and _jumps(joints, next_joints)):
                if somebody:
                    ahead.append((next_number, next_joints))
                return
            if somebody:
                number, joints = next_number, next_joints
                yield number, joints

    while True:
        if not ahead:
            ahead += itertools.islice((frame for frame in source if frame[1].any()), 1)
        if not ahead:
            return
        yield scene()


def windows(scene: Iterable[Frame], length: int, hop: int) -> Iterator[Window]:
    """Every `hop` frames, a window of the last `length` frames of a scene; also one at its end.

    The first has half the length, so that there is an early result.
    """
    kept: collections.deque[Frame] = collections.deque(maxlen=length)
    count, given = 0, 0
    for frame in scene:
        kept.append(frame)
        count += 1
        if count >= max(1, length // 2) and count % hop == 0:
            given = count
            yield _window(kept)
    if count > given:
        yield _window(kept)


def _window(kept: Sequence[Frame]) -> Window:
    persons = max(len(joints) for _, joints in kept)
    joints = np.zeros((len(kept), persons, *kept[0][1].shape[1:]), np.float32)
    for row, (_, frame) in zip(joints, kept, strict=True):
        row[: len(frame)] = frame
    return Window(kept[0][0], kept[-1][0] + 1, joints)


def _jumps(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether the first person [M, V, C] has jumped too far."""
    if not (len(before) and len(now) and before[0].any() and now[0].any()):
        return False  # only another person was present
    middle, size = before[0].mean(axis=0), np.ptp(before[0], axis=0).max()
    return bool(np.linalg.norm(now[0].mean(axis=0) - middle) > FAR * max(size, 1e-6))


class Timeline:
    """The classes of one scene over time, from predictions for its overlapping windows.

    Time advances in steps of `hop` frames. The log probabilities of a step are the weighted mean
    over all windows that contain it; centred windows and confident predictions weigh more. Segments
    are the likeliest path through the steps, where each change of class has a cost (Viterbi 1967).
    """

    def __init__(self, length: int, hop: int, switch: float = SWITCH):
        self.length, self.hop, self.switch = length, hop, switch
        self.start = self.end = 0
        self.open: dict[int, list] = {}  # step -> [sum of weights, weighted sum of log p]
        self.steps: collections.deque = collections.deque()  # not final: (previous class, p)
        self.best: np.ndarray | None = None  # the cost of the best path to each class
        self.running: list | None = None  # [start, label, probabilities]

    def add(self, start: int, end: int, probabilities: np.ndarray) -> Iterator[Segment]:
        """Adds the prediction for a window; yields the segments that have ended."""
        if not self.end:
            self.start = start
        self.end = end
        sure = 1 + float(probabilities @ np.log(np.maximum(probabilities, 1e-12))) / np.log(
            max(2, len(probabilities))
        )
        logs = np.log(np.maximum(probabilities, LEAST))
        middle, half = (start + end) / 2, (end - start) / 2
        first, last = (start - self.start) // self.hop, -(-(end - self.start) // self.hop)
        for step in range(first, last):
            at = self.start + (step + 0.5) * self.hop
            weight = max(1 - abs(at - middle) / half, 0.01) * (sure + 1e-3)
            sums = self.open.setdefault(step, [0.0, np.zeros(len(logs))])
            sums[0] += weight
            sums[1] = sums[1] + weight * logs
        # Later windows begin after this one's end - length + hop.
        settled = (end + self.hop - self.length - self.start) // self.hop
        for step in sorted(step for step in self.open if step < settled):
            yield from self._decode(*self.open.pop(step))

    def finish(self) -> Iterator[Segment]:
        """Yields the last segments at the end of the scene."""
        for step in sorted(self.open):
            yield from self._decode(*self.open.pop(step))
        if self.best is not None:
            for label, shares in self._way():
                yield from self._extend(label, shares)
            self.steps.clear()
            yield self._segment(self.end)

    def _decode(self, weight: float, sums: np.ndarray) -> Iterator[Segment]:
        """Adds a step to the best paths; makes the oldest step final if there are too many."""
        logs = sums / weight
        shares = np.exp(logs - logs.max())
        if self.best is None:
            self.best, origin = -logs, np.arange(len(logs))
        else:
            cheapest = int(self.best.argmin())
            change = self.best[cheapest] + self.switch
            origin = np.where(self.best <= change, np.arange(len(logs)), cheapest)
            self.best = np.minimum(self.best, change) - logs
            self.best -= self.best.min()
        self.steps.append((origin, shares / shares.sum()))
        while self.steps and (len(self.steps) > LAG or self._agreed()):
            label, shares = self._way()[0]
            self.steps.popleft()
            yield from self._extend(label, shares)

    def _agreed(self) -> bool:
        """Whether the best paths to all classes begin with the same class."""
        labels = np.arange(len(self.best))
        for origin, _ in itertools.islice(reversed(self.steps), len(self.steps) - 1):
            labels = origin[labels]
        return bool((labels == labels[0]).all())

    def _way(self) -> list[tuple[int, np.ndarray]]:
        """The classes of all steps that are not final, on the best path."""
        label, way = int(self.best.argmin()), []
        for origin, shares in reversed(self.steps):
            way.append((label, shares))
            label = int(origin[label])
        return way[::-1]

    def _extend(self, label: int, shares: np.ndarray) -> Iterator[Segment]:
        """Extends the current segment by a step, or ends it and begins another."""
        if self.running is None:
            self.running = [self.start, self.start, label, 0.0]
        elif label != self.running[2]:
            here = self.running[1]
            yield self._segment(here)
            self.running = [here, here, label, 0.0]
        self.running[1] += self.hop
        self.running[3] += float(shares[label])

    def _segment(self, end: int) -> Segment:
        start, reached, label, score = self.running
        return Segment(start, end, label, score / ((reached - start) / self.hop))
