"""The input pipeline: a prepared dataset and a `Feed` go in, batches of NumPy arrays come out.

protocol rows -> shuffle each pass -> host shard -> feeder, augmentation, stream -> batch ->
prefetch, as one Grain dataset. What a clip looks like is a pure function of (seed, pass, row): not
of threads, worker processes or the number of hosts. Batch b of the run holds the same draws on one
host as on sixteen, each host taking every n-th of them, so an iterator's whole state is the number
of batches it has given.

A batch is a dict: x float32 [B, M, T, V, C]; label int32 [B]; mask float32 [B], 1 for a clip and 0
for padding; row int32 [B], the clip's row in the store, -1 for padding. With captions also tokens
int32 [B, L], one of the clip's captions with its EOS, and lengths int32 [B].
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Mapping
from typing import Any

import grain
import numpy as np

from hocslm_jax.data.augment import drop_axis, drop_joints
from hocslm_jax.data.captions import CaptionTable
from hocslm_jax.data.feeders import FEEDERS, SECOND_PERSON, fit_persons
from hocslm_jax.data.streams import STREAMS, check_choice, make_stream
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph, resolve_graph

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Feed:
    """How a clip becomes the encoder's input; the fields of `config.data` that say so.

    Attributes:
      feeder: "ntu" or "nw_ucla", CTR-GCN's two protocols.
      frames: length of the time axis.
      stream: one of `streams.STREAMS`.
      num_persons: length of the person axis.
      repeat: passes over the training clips in one epoch.
      p_interval: share of the frames a training crop keeps (ntu).
      test_interval: share of the frames, centred, that a test clip keeps (ntu).
      drop_axis: probability of zeroing one coordinate axis of a training clip.
      drop_joints: probability of zeroing some joints in some frames of a training clip.
      second_person: "zeros" or "copy" of the first, where a clip has fewer persons.
      graph: skeleton for the stream, by name or as a mapping; "" for the dataset's own.

    Raises:
      UserError: unknown name (with the nearest known one) or a number out of range.
    """

    feeder: str = "nw_ucla"
    frames: int = 52
    stream: str = "joint"
    num_persons: int = 1
    repeat: int = 1
    p_interval: tuple[float, float] = (0.5, 1.0)
    test_interval: float = 0.95
    drop_axis: float = 0.0
    drop_joints: float = 0.0
    second_person: str = "zeros"
    graph: str | Mapping | Graph = ""

    def __post_init__(self):
        check_choice("feeder", self.feeder, FEEDERS)
        check_choice("stream", self.stream, STREAMS)
        check_choice("second_person", self.second_person, SECOND_PERSON)
        for name in ("frames", "num_persons", "repeat"):
            _check(f"data.{name}", getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("drop_axis", "drop_joints"):
            share = getattr(self, name)
            _check(f"data.{name}", share, 0 <= share <= 1, "between 0 and 1")
        ordered = len(self.p_interval) == 2 and 0 < self.p_interval[0] <= self.p_interval[1] <= 1
        _check("data.p_interval", self.p_interval, ordered, "two shares with 0 < low <= high <= 1")
        _check("data.test_interval", self.test_interval, 0 < self.test_interval <= 1, "in (0, 1]")

    @classmethod
    def from_config(cls, data: Mapping[str, Any]) -> "Feed":
        """Takes the fields it knows from `config.data` and ignores the rest."""
        return cls(**{f.name: data[f.name] for f in dataclasses.fields(cls) if f.name in data})

    def graph_of(self, store) -> Graph:
        """The skeleton of the stream: the feed's own or the dataset's."""
        graph = resolve_graph(self.graph) if self.graph else store.graph
        if graph.num_joints != store.graph.num_joints:
            raise UserError(
                f"data.graph {graph.name!r} has {graph.num_joints} joints, "
                f"the clips have {store.graph.num_joints}; give a graph of the same joints"
            )
        return graph


def train_iterator(
    store,
    protocol: str,
    feed: Feed,
    *,
    batch_size: int,
    seed: int,
    num_epochs: int | None = None,
    shard: tuple[int, int] = (0, 1),
    threads: int = 2,
    captions: CaptionTable | None = None,
) -> grain.DatasetIterator:
    """Shuffled, augmented training batches of one host.

    Args:
      store: `data.store.Store`, or anything with `joints(row)`, `ids`, `labels`, `graph` and
        `rows`.
      batch_size: clips per step over all hosts; each gets batch_size / shard count of them.
      seed: non-negative; with the pass and the row it fixes every random choice.
      num_epochs: ends after that many times `feed.repeat` passes, without the last incomplete
        batch; None never ends. A batch may straddle two passes.
      shard: (index, count) of this host.
      threads: prefetching threads; 0 works in the caller's. Does not change what comes out.
      captions: adds a random one of its captions to every clip; the clips stay the same.

    Returns:
      An iterator of batches with `get_state`, `set_state` and `close`.

    Raises:
      UserError: empty split, a batch size that the hosts cannot share evenly, or (while iterating)
        a clip with non-finite coordinates or the wrong shape, by its id.
    """
    rows = _rows(store, protocol, "train")
    _check_shares(batch_size, shard)
    _check("seed", seed, 0 <= seed < 2**32, "between 0 and 2**32 - 1")
    passes = None if num_epochs is None else num_epochs * feed.repeat
    # Without an end: as many batches as an index can count.
    steps = (sys.maxsize if passes is None else passes * len(rows)) // batch_size
    draw = functools.partial(_draws, rows, seed, batch_size, shard)
    build = functools.partial(_build_batch, store, feed, feed.graph_of(store), seed)
    if captions is not None:
        build = functools.partial(_with_captions, build, captions, seed)
    return _prefetched(grain.MapDataset.range(steps).map(draw).map(build), threads)


def eval_batches(
    store,
    protocol: str,
    split: str,
    feed: Feed,
    *,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    limit: int = -1,
    threads: int = 2,
) -> grain.DatasetIterator:
    """Every clip of a split exactly once over all hosts, in test mode and in protocol order.

    A `limit` of 0 or more takes only so many of them, evenly spaced.

    `batch_size` counts all hosts, as in `train_iterator`. Every host gives the same number of
    batches of the same shape; the last is filled up with zero clips of mask 0, label 0 and row -1.

    Returns:
      An iterator as of `train_iterator`, with as many prefetching threads.

    Raises:
      UserError: as `train_iterator`, before the first batch for what can be known then.
    """
    rows = _rows(store, protocol, split)
    _check_shares(batch_size, shard)
    if 0 <= limit < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]
    padded = np.full(-(-len(rows) // batch_size) * batch_size, -1)
    padded[: len(rows)] = rows
    steps = padded[shard[0] :: shard[1]].reshape(-1, batch_size // shard[1])
    build = functools.partial(_build_batch, store, feed, feed.graph_of(store), None)
    steps = grain.MapDataset.source(steps).map(lambda step: [(0, int(row)) for row in step])
    return _prefetched(steps.map(build), threads)


def steps_per_epoch(store, protocol: str, feed: Feed, batch_size: int) -> int:
    """Steps in `feed.repeat` passes over the training clips, the last incomplete batch left out.

    Raises:
      UserError: when the batch is larger than the epoch.
    """
    draws = len(_rows(store, protocol, "train")) * feed.repeat
    if batch_size > draws:
        raise UserError(f"batch_size {batch_size} exceeds an epoch of {draws} clips; lower it")
    return draws // batch_size


def _prefetched(batches: grain.MapDataset, threads: int) -> grain.DatasetIterator:
    _check("data.threads", threads, threads >= 0, "0 or more")
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(batches.to_iter_dataset(options))


def _draws(
    rows: np.ndarray, seed: int, batch_size: int, shard: tuple[int, int], step: int
) -> list[tuple[int, int]]:
    """The (pass, row) of one host's clips in a step: every count-th of the whole batch's."""
    first, last = step * batch_size, (step + 1) * batch_size
    return [_draw(rows, seed, place) for place in range(first + shard[0], last, shard[1])]


def _draw(rows: np.ndarray, seed: int, place: int) -> tuple[int, int]:
    """What comes at a place of an endless sequence of passes, each in an order of its own.

    The orders are those of `grain.MapDataset.source(rows).seed(seed).shuffle().repeat()`, in a
    fifth of the time.
    """
    turn, place = divmod(place, len(rows))
    order = {"max_index": len(rows) - 1, "seed": (_mixed(seed) + turn) % 2**32, "rounds": 4}
    return turn, int(rows[grain.experimental.index_shuffle(place, **order)])


@functools.lru_cache
def _mixed(seed: int) -> int:
    # Mixed before the pass is added to it; else neighbouring seeds have the same orders, one pass
    # apart.
    return int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])


def _with_captions(build, captions: CaptionTable, seed: int, draws: list) -> Batch:
    # A stream of its own: the augmentation must not depend on whether there is a caption.
    drawn = [captions.draw(row, _generator(seed, turn, row, 1)) for turn, row in draws]
    tokens, lengths = zip(*drawn, strict=True)
    return build(draws) | {"tokens": np.stack(tokens), "lengths": np.array(lengths, np.int32)}


def _build_batch(store, feed: Feed, graph: Graph, seed: int | None, draws: list) -> Batch:
    """One batch from (pass, row) draws; seed None is test mode, row -1 padding."""
    rows = np.array([row for _, row in draws], np.int32)
    shape = (len(draws), feed.num_persons, feed.frames, graph.num_joints, 3)
    batch = {
        "x": np.zeros(shape, np.float32),
        "label": np.where(rows >= 0, store.labels[rows], 0).astype(np.int32),
        "mask": (rows >= 0).astype(np.float32),
        "row": rows,
    }
    for x, (turn, row) in zip(batch["x"], draws, strict=True):
        if row >= 0:
            rng = None if seed is None else _generator(seed, turn, row)
            fit_persons(_load(store, row, feed, graph, rng), x, feed.second_person)
    return batch


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.array(key, np.uint32))  # faster than from a list, and the same


def _load(store, row: int, feed: Feed, graph: Graph, rng: np.random.Generator | None) -> np.ndarray:
    """The stream of one clip's persons, float32 [M, T, V, C]."""
    joints = store.joints(row)
    _check_clip(joints, store, row)
    options = {"frames": feed.frames, "num_persons": feed.num_persons}
    if feed.feeder == "ntu":
        options |= {"p_interval": feed.p_interval, "test_interval": feed.test_interval}
    x = FEEDERS[feed.feeder](joints, rng, **options)
    if rng is not None:  # before the stream, as in SkateFormer: a bone to a lost joint is long
        x = drop_axis(x, rng, feed.drop_axis)
        x = drop_joints(x, rng, feed.drop_joints)
    return make_stream(x, feed.stream, graph)


def _check_clip(joints: np.ndarray, store, row: int) -> None:
    wanted = store.graph.num_joints
    if joints.ndim != 4 or joints.shape[2:] != (wanted, 3) or 0 in joints.shape:
        raise UserError(
            f"clip {store.ids[row]}: joints have shape {joints.shape}, expected [frames, persons, "
            f"{wanted}, 3] with at least one frame and person; prepare the dataset again"
        )
    # The sum of the squares tells at a third of the cost, unless it overflows.
    if not math.isfinite(np.vdot(joints, joints)) and not np.isfinite(joints).all():
        raise UserError(
            f"clip {store.ids[row]}: some coordinates are not finite; repair or remove it and "
            "prepare the dataset again"
        )


def _rows(store, protocol: str, split: str) -> np.ndarray:
    rows = np.asarray(store.rows(protocol, split))
    if not len(rows):
        raise UserError(f"protocol {protocol!r} has no clips in its {split} split")
    return rows


def _check_shares(batch_size: int, shard: tuple[int, int]) -> None:
    index, count = shard
    if not 0 <= index < count:
        raise UserError(f"shard {shard} must be (index, count) with 0 <= index < count")
    if batch_size < 1 or batch_size % count:
        raise UserError(f"batch_size {batch_size} must be a positive multiple of the {count} hosts")


def _check(name: str, value, good: bool, wanted: str) -> None:
    if not good:
        raise UserError(f"{name} must be {wanted}, got {value!r}")
