"""The input pipeline: makes batches of NumPy arrays from a prepared dataset and a `Feed`.

protocol rows -> shuffle each pass -> host shard -> feeder, augmentation, stream -> batch ->
prefetch, as one Grain dataset. A clip is a pure function of (seed, pass, row), independent of
threads, worker processes and the number of hosts. Batch b holds the same draws on one host as on
sixteen, where each host takes every n-th of them. So the only state of an iterator is the number of
batches that it has returned.

A batch is a dict: x float32 [B, M, T, V, C], or [B, S, M, T, V, C] for a feed of S streams; label
int32 [B]; mask float32 [B], 1 for a clip and 0 for padding; row int32 [B], the clip's row in the
store, -1 for padding. With captions also tokens int32 [B, L], one of the clip's captions with its
EOS, and lengths int32 [B]. With a teacher also teacher float32 [B, classes], its probabilities.
"""

import functools
import sys

import grain
import numpy as np

from hocslm_jax.data.augment import ClipView
from hocslm_jax.data.captions import CaptionTable
from hocslm_jax.data.feeder import Feed, build_batch, check_value, with_captions, with_teacher
from hocslm_jax.errors import UserError

__all__ = ["Feed", "eval_batches", "steps_per_epoch", "train_iterator"]


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
    teacher: np.ndarray | None = None,
) -> grain.DatasetIterator:
    """Shuffled, augmented training batches of one host.

    Args:
      store: `data.store.Store`, or anything with `joints(row)`, `ids`, `labels`, `graph` and
        `rows`.
      batch_size: clips per step over all hosts; each gets batch_size / shard count of them.
      seed: non-negative; with the pass and the row it fixes every random choice.
      num_epochs: the iterator ends after that many times `feed.repeat` passes, without the last
        incomplete batch; None never ends. A batch may straddle two passes.
      shard: (index, count) of this host.
      threads: prefetching threads; 0 works in the caller's thread. The batches do not depend on it.
      captions: adds to every clip one of its captions, drawn at random; the clips do not change.
      teacher: float32 [clips of the store, classes]; adds its row [classes] to every clip.

    Returns:
      An iterator of batches with `get_state`, `set_state` and `close`.

    Raises:
      UserError: empty split, a batch size that the hosts cannot share evenly, or (while iterating)
        a clip, named by its id, with non-finite coordinates or a wrong shape.
    """
    rows = _rows(store, protocol, "train")
    _check_shares(batch_size, shard)
    check_value("seed", seed, 0 <= seed < 2**32, "between 0 and 2**32 - 1")
    passes = None if num_epochs is None else num_epochs * feed.repeat
    # An endless iterator has as many batches as an index can count.
    steps = (sys.maxsize if passes is None else passes * len(rows)) // batch_size
    draw = functools.partial(_draws, rows, seed, batch_size, shard)
    build = functools.partial(build_batch, store, feed, feed.graph_of(store), seed)
    if captions is not None:
        build = functools.partial(with_captions, build, captions, feed, seed)
    if teacher is not None:
        build = functools.partial(with_teacher, build, teacher)
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
    view: ClipView | None = None,
) -> grain.DatasetIterator:
    """Every clip of a split exactly once over all hosts, in test mode and in protocol order.

    If `limit` is 0 or more, only that many are taken, evenly spaced. A `view` changes the clips
    (test-time augmentation).

    `batch_size` counts all hosts, as in `train_iterator`. Every host gives the same number of
    batches of the same shape; the last is filled up with zero clips of mask 0, label 0 and row -1.

    Returns:
      An iterator as of `train_iterator`, with as many prefetching threads.

    Raises:
      UserError: as `train_iterator`; raised before the first batch if it can be known by then.
    """
    rows = _rows(store, protocol, split)
    _check_shares(batch_size, shard)
    if 0 <= limit < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]
    padded = np.full(-(-len(rows) // batch_size) * batch_size, -1)
    padded[: len(rows)] = rows
    steps = padded[shard[0] :: shard[1]].reshape(-1, batch_size // shard[1])
    build = functools.partial(build_batch, store, feed, feed.graph_of(store), None, view=view)
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
    check_value("data.threads", threads, threads >= 0, "0 or more")
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(batches.to_iter_dataset(options))


def _draws(
    rows: np.ndarray, seed: int, batch_size: int, shard: tuple[int, int], step: int
) -> list[tuple[int, int]]:
    """The (pass, row) of one host's clips in a step: every count-th of the whole batch's."""
    first, last = step * batch_size, (step + 1) * batch_size
    return [_draw(rows, seed, place) for place in range(first + shard[0], last, shard[1])]


def _draw(rows: np.ndarray, seed: int, place: int) -> tuple[int, int]:
    """The (pass, row) at one place of an endless sequence of passes, each shuffled anew.

    The orders are those of `grain.MapDataset.source(rows).seed(seed).shuffle().repeat()`, in a
    fifth of the time.
    """
    turn, place = divmod(place, len(rows))
    order = {"max_index": len(rows) - 1, "seed": (_mixed(seed) + turn) % 2**32, "rounds": 4}
    return turn, int(rows[grain.experimental.index_shuffle(place, **order)])


@functools.lru_cache
def _mixed(seed: int) -> int:
    # The seed is mixed before the pass is added. Otherwise neighbouring seeds would give the same
    # orders, shifted by one pass.
    return int(np.random.SeedSequence((seed, 1)).generate_state(1)[0])


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
