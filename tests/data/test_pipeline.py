"""The Grain pipeline over an in-memory store: determinism, sharding, resume, exact evaluation."""

import dataclasses

import grain
import numpy as np
import pytest

from hocslm_jax.data.augment import mirror
from hocslm_jax.data.pipeline import Feed, eval_batches, steps_per_epoch, train_iterator
from hocslm_jax.errors import UserError
from hocslm_jax.graph import UCLA20, Graph, other_side

PAIR = Graph("pair", ("root", "tip"), ((1, 0),), 0)


@dataclasses.dataclass(frozen=True)
class MemoryStore:
    """What the pipeline needs of a Store: even rows train, odd rows test."""

    clips: tuple[np.ndarray, ...]
    graph: Graph = UCLA20

    @property
    def ids(self):
        return tuple(f"clip{row}" for row in range(len(self.clips)))

    @property
    def labels(self):
        return np.arange(len(self.clips), dtype=np.int32) % 3

    def rows(self, protocol, split):
        return np.arange(len(self.clips))[{"train": 0, "test": 1}[split] :: 2]

    def joints(self, row):
        return self.clips[row]


def make_store(count=26, graph=UCLA20):
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 30, size=count)
    shape = (1, graph.num_joints, 3)
    clips = tuple(rng.normal(size=(t, *shape)).astype(np.float32) for t in lengths)
    return MemoryStore(clips, graph)


STORE = make_store()
FEED = Feed(frames=8, repeat=3, drop_axis=0.5, drop_joints=0.5)


def take(steps, *, store=STORE, feed=FEED, batch_size=4, seed=1, **options):
    iterator = train_iterator(store, "p", feed, batch_size=batch_size, seed=seed, **options)
    batches = [next(iterator) for _ in range(steps)]
    iterator.close()
    return batches


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_batch_contract():
    (batch,) = take(1)
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "x": ((4, 1, 8, 20, 3), "float32"),
        "label": ((4,), "int32"),
        "mask": ((4,), "float32"),
        "row": ((4,), "int32"),
    }
    assert (batch["mask"] == 1).all()
    np.testing.assert_array_equal(batch["label"], STORE.labels[batch["row"]])


@pytest.mark.parametrize("threads", [0, 4])
def test_threads_do_not_change_the_batches(threads):
    assert_same(take(12, threads=1), take(12, threads=threads))


@pytest.mark.parametrize("count", [2, 4])
def test_hosts_together_see_what_one_host_sees(count):
    whole = take(8)
    shards = [take(8, shard=(index, count)) for index in range(count)]
    for step, batch in enumerate(whole):
        for key, value in batch.items():
            parts = [shard[step][key] for shard in shards]
            np.testing.assert_array_equal(np.stack(parts, axis=1).reshape(value.shape), value)


def test_every_pass_visits_each_clip_once_in_a_new_order():
    rows = np.concatenate([batch["row"] for batch in take(13, batch_size=4)]).reshape(4, 13)
    for visited in rows:
        assert sorted(visited) == STORE.rows("p", "train").tolist()
    assert len({tuple(visited) for visited in rows}) == 4


def test_an_epoch_is_repeat_passes():
    iterator = train_iterator(STORE, "p", FEED, batch_size=13, seed=1, num_epochs=2)
    rows = np.concatenate([batch["row"] for batch in iterator])
    assert np.bincount(rows)[::2].tolist() == [2 * FEED.repeat] * 13
    assert steps_per_epoch(STORE, "p", FEED, 13) == 3
    assert steps_per_epoch(STORE, "p", FEED, 4) == 9  # 39 draws, the last three left over


def test_hosts_end_after_the_same_batch():
    options = {"batch_size": 2, "seed": 1, "num_epochs": 1}
    shards = [list(train_iterator(STORE, "p", FEED, shard=(i, 2), **options)) for i in (0, 1)]
    assert [len(shard) for shard in shards] == [19, 19]  # 39 draws


def test_a_clip_differs_in_every_pass_and_seed():
    feed = dataclasses.replace(FEED, drop_axis=0.0, drop_joints=0.0)
    found = {}
    for seed in (1, 2):
        for batch in take(2, feed=feed, batch_size=13, seed=seed):
            for row, x in zip(batch["row"].tolist(), batch["x"], strict=True):
                found.setdefault(row, []).append(x)
    for row, views in found.items():
        assert len(views) == 4
        assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(views) for b in views[:i]), row


def test_neighbouring_seeds_do_not_share_their_orders():
    orders = [[tuple(b["row"]) for b in take(4, batch_size=13, seed=seed)] for seed in (1, 2, 3)]
    assert len({order for run in orders for order in run}) == 12


@pytest.mark.parametrize("count", [2, 26, 70])
def test_the_orders_are_those_of_grains_shuffle(count):
    store = make_store(count)
    order = grain.MapDataset.source(store.rows("p", "train")).seed(3).shuffle().repeat(4)
    rows = [batch["row"] for batch in take(2 * count, store=store, batch_size=1, seed=3)]
    np.testing.assert_array_equal(np.concatenate(rows), list(order))


@pytest.mark.parametrize("threads", [0, 3])
def test_resume_is_bit_exact(threads):
    iterator = train_iterator(STORE, "p", FEED, batch_size=4, seed=1, threads=threads)
    for _ in range(5):
        next(iterator)
    state = iterator.get_state()
    wanted = [next(iterator) for _ in range(6)]
    fresh = train_iterator(STORE, "p", FEED, batch_size=4, seed=1, threads=1)
    fresh.set_state(state)
    assert_same([next(fresh) for _ in range(6)], wanted)
    iterator.set_state(state)  # and back in time on the same iterator
    assert_same([next(iterator) for _ in range(6)], wanted)


def test_state_survives_another_number_of_hosts():
    iterator = train_iterator(STORE, "p", FEED, batch_size=4, seed=1)
    for _ in range(5):
        next(iterator)
    half = train_iterator(STORE, "p", FEED, batch_size=4, seed=1, shard=(1, 2))
    half.set_state(iterator.get_state())
    np.testing.assert_array_equal(next(half)["x"], next(iterator)["x"][1::2])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("local", [1, 4, 5, 64])
def test_evaluation_gives_every_clip_once(count, local):
    batch_size = local * count
    shards = [
        list(eval_batches(STORE, "p", "test", FEED, batch_size=batch_size, shard=(index, count)))
        for index in range(count)
    ]
    assert len({len(shard) for shard in shards}) == 1
    batches = [batch for shard in shards for batch in shard]
    assert all(batch["x"].shape == (local, 1, 8, 20, 3) for batch in batches)
    rows = np.concatenate([batch["row"] for batch in batches])
    mask = np.concatenate([batch["mask"] for batch in batches])
    label = np.concatenate([batch["label"] for batch in batches])
    x = np.concatenate([batch["x"] for batch in batches])
    np.testing.assert_array_equal(label, np.where(mask, STORE.labels[rows], 0))
    assert sorted(rows[mask == 1]) == STORE.rows("p", "test").tolist()
    assert (rows[mask == 0] == -1).all()
    assert not x[mask == 0].any()
    assert x[mask == 1].any(axis=(1, 2, 3, 4)).all()


def test_evaluation_does_not_depend_on_threads():
    first, *others = (
        list(eval_batches(STORE, "p", "test", FEED, batch_size=2, threads=threads))
        for threads in (0, 1, 5)
    )
    for other in others:
        assert_same(first, other)


def test_evaluation_resumes():
    batches = eval_batches(STORE, "p", "test", FEED, batch_size=2)
    next(batches)
    other = eval_batches(STORE, "p", "test", FEED, batch_size=2)
    other.set_state(batches.get_state())
    assert_same(list(other), list(batches))


def test_evaluation_is_not_random_and_keeps_protocol_order():
    first, second = (list(eval_batches(STORE, "p", "test", FEED, batch_size=5)) for _ in range(2))
    assert_same(first, second)
    rows = np.concatenate([batch["row"] for batch in first])
    np.testing.assert_array_equal(rows[rows >= 0], STORE.rows("p", "test"))


def test_the_feed_chooses_stream_window_and_persons():
    feed = Feed(feeder="ntu", frames=16, num_persons=2, stream="bone", second_person="copy")
    (batch,) = take(1, feed=feed, batch_size=2)
    assert batch["x"].shape == (2, 2, 16, 20, 3)
    assert not batch["x"][..., UCLA20.root, :].any()
    np.testing.assert_array_equal(batch["x"][:, 0], batch["x"][:, 1])


def test_strong_augmentations_act_in_training_alone():
    feed = Feed(frames=8, drop_axis=1.0)
    (batch,) = take(1, feed=feed, batch_size=13)
    assert ((batch["x"] == 0).all(axis=(1, 2, 3)).sum(axis=-1) == 1).all()
    for batch in eval_batches(STORE, "p", "test", feed, batch_size=13):
        assert not (batch["x"] == 0).all(axis=(1, 2, 3)).any()


def test_a_clip_and_its_caption_are_mirrored_together():
    class Told:  # a table of captions, each of which tells whether it is about a mirrored clip
        def draw(self, row, rng, mirrored):
            return np.array([mirrored]), 1

    still, told = Feed(frames=8, repeat=3), Told()
    feed = dataclasses.replace(still, mirror=0.5)
    pairs = zip(take(4, feed=feed, captions=told), take(4, feed=still), strict=True)
    for batch, plain in pairs:
        for x, mirrored, other in zip(batch["x"], batch["tokens"], plain["x"], strict=True):
            wanted = mirror(other, other_side(UCLA20)) if mirrored else other
            np.testing.assert_array_equal(x, wanted)
    shares = [batch["tokens"].mean() for batch in take(12, feed=feed, captions=told)]
    assert 0.2 < np.mean(shares) < 0.8


def test_another_graph_changes_the_bones():
    flipped = PAIR.as_mapping() | {"name": "flipped", "edges": [[0, 1]], "root": 1}
    store = make_store(graph=PAIR)
    own, other = (
        next(eval_batches(store, "p", "test", Feed(stream="bone", graph=g), batch_size=2))["x"]
        for g in ("", flipped)
    )
    np.testing.assert_array_equal(own[..., 1, :], -other[..., 0, :])
    with pytest.raises(UserError, match=r"'ucla20' has 20 joints, the clips have 2"):
        next(eval_batches(store, "p", "test", Feed(graph="ucla20"), batch_size=2))


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.full((4, 1, 20, 3), np.nan, np.float32), "clip6: 240 coordinates that are not finite"),
        (np.full((4, 1, 20, 3), 1e30, np.float32), r"clip6: 240 coordinates .*beyond 1e\+06"),
        (np.full((4, 1, 20, 3), -2e6, np.float32), r"clip6: 240 coordinates .*beyond 1e\+06"),
        (np.zeros((4, 1, 25, 3), np.float32), r"clip6: joints have shape \(4, 1, 25, 3\)"),
        (np.zeros((0, 1, 20, 3), np.float32), r"clip6: joints have shape \(0, 1, 20, 3\)"),
    ],
)
@pytest.mark.parametrize("threads", [0, 2])
def test_bad_clip_is_named(clip, message, threads):
    clips = list(STORE.clips)
    clips[6] = clip
    with pytest.raises(UserError, match=message):
        take(13, store=MemoryStore(tuple(clips)), batch_size=13, threads=threads)


def test_large_coordinates_are_not_bad():
    clips = tuple(clip * np.float32(1e5) for clip in STORE.clips)  # as in micrometres
    (batch,) = take(1, store=MemoryStore(clips), feed=Feed(feeder="ntu", frames=8))
    assert np.isfinite(batch["x"]).all() and batch["x"].any()


def test_requests_that_cannot_be_met():
    empty = MemoryStore(())
    with pytest.raises(UserError, match="no clips in its train split"):
        take(1, store=empty)
    with pytest.raises(UserError, match="no clips in its test split"):
        eval_batches(empty, "p", "test", FEED, batch_size=2)
    with pytest.raises(UserError, match="batch_size 5 must be a positive multiple of the 2 hosts"):
        take(1, batch_size=5, shard=(0, 2))
    with pytest.raises(UserError, match="shard"):
        take(1, shard=(2, 2))
    with pytest.raises(UserError, match="seed"):
        take(1, seed=-1)
    with pytest.raises(UserError, match=r"data.threads must be 0 or more, got -1"):
        take(1, threads=-1)
    with pytest.raises(UserError, match="batch_size 40 exceeds an epoch of 39 clips"):
        steps_per_epoch(STORE, "p", FEED, 40)
