"""Notes of `prepare` and `--check` on datasets that are usable but unusual."""

import json

import numpy as np
import pytest

from hocslm_jax.__main__ import main
from hocslm_jax.data.prepare.measure import (
    Census,
    coordinate_range,
    exchanges,
    skeleton_size,
    uprightness,
)
from hocslm_jax.data.prepare.notices import notices, odd_size, persons_left_out
from hocslm_jax.data.store import open_store
from hocslm_jax.graph import GRAPHS, resolve_graph

GRAPH = {"joints": ["hip", "head", "foot"], "edges": [[1, 0], [2, 0]], "root": 0}
HEIGHTS = {"shoulder": 1.4, "elbow": 1.1, "wrist": 0.9, "hand": 0.8, "hip": 1.0, "knee": 0.5}
HEIGHTS |= {"ankle": 0.1, "foot": 0.05}
POSE = np.array([[0, 0, 0], [0, 0.8, 0], [0, -0.9, 0]], np.float32)  # 1.7 high


def clip(number, persons=1, frames=6):
    rng = np.random.default_rng(number)
    return (POSE + rng.normal(size=(frames, persons, 1, 3)) / 10).astype(np.float32)


@pytest.fixture
def said(tmp_path, capsys):
    """Prepares rows (array, label, split) and returns its notes, which `--check` says as well."""

    def prepare(rows, *arguments, classes=None):
        source = tmp_path / "source"
        source.mkdir()
        (source / "graph.json").write_text(json.dumps(GRAPH))
        if classes:
            (source / "classes.txt").write_text(classes)
        table = ["id,file,label,split"]
        for place, (array, label, split) in enumerate(rows):
            np.save(source / f"{place}.npy", array)
            table.append(f"c{place},{place}.npy,{label},{split}")
        (source / "clips.csv").write_text("\n".join(table))
        command = ["prepare", "folder", "--name", "mine", "--source", str(source)]
        command += ["--data-dir", str(tmp_path)]
        assert main([*command, *arguments]) == 0
        notes = [n for n in capsys.readouterr().err.splitlines() if n.startswith("note: ")]
        assert main([*command, "--check"]) == 0
        assert capsys.readouterr().err.splitlines() == notes
        return "\n".join(notes)

    return prepare


def rows(*changes):
    """Two classes, each with a clip to train and one to test, and other rows."""
    pairs = [(label, split) for label in ("sit", "walk") for split in ("train", "test")]
    plain = [(clip(n), label, split) for n, (label, split) in enumerate(pairs)]
    return [*plain, *changes]


def test_numbers_of_a_good_one(said):
    notes = said(rows((clip(7, persons=2), "sit", "train")))
    assert notes.count("\n") == 0
    assert "4 of 1, 1 of 2; median skeleton size 1.7 (1.7 to 1.7)" in notes


FAULTS = {
    "no training clips": [(clip(8), "jump", "test")],
    "class 'jump' has no test clips": [(clip(8), "jump", "train")],
    "'Sit', 'sit'": [(clip(8), "Sit", "train"), (clip(9), "Sit", "test")],
    "('s it', 'sit')": [(clip(8), "s it", "train"), (clip(9), "s it", "test")],
    "equal in train and test (c0 = c4)": [(clip(0), "walk", "test")],
    "equal in train and val (c0 = c4)": [(clip(0), "sit", "val")],
    "1 clips of val choose": [(clip(8), "sit", "val")],
    "2 frames of 1 clips hold nobody": [(np.insert(clip(8), [0, 3], 0, axis=0), "sit", "train")],
    "has 9 persons": [(clip(8, persons=9, frames=20), "sit", "train")],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_line_for_each_fault(said, fault):
    notes = said(rows(*FAULTS[fault]))
    assert fault in notes
    assert all(len(line) < 300 for line in notes.splitlines())


def test_a_class_that_lost_its_clips(said):
    lost = (np.full((3, 3, 3), np.nan), "jump", "train")
    assert "class 'jump' has no clip at all" in said(rows(lost), "--allow-bad")


def test_numbers_that_are_one_number(said):
    more = [(clip(n), label, s) for n, (label, s) in enumerate(
        [("1", "train"), ("1", "test"), ("01", "train"), ("01", "test")], 10)]  # fmt: skip
    assert "('01', '1') differ only in" in said(rows(*more))


@pytest.mark.parametrize("scale", [1000, 0.001])
def test_another_unit(said, scale):
    notes = said([(scale * array, *where) for array, *where in rows()])
    assert f"the skeleton's size is {1.7 * scale:.4g}, " in notes and "metres" in notes


def test_a_file_fixes_the_order_of_the_classes(said, tmp_path):
    notes = said(rows(), classes="\ufeffwalk\r\n\r\n sit \njump\n")
    assert open_store("mine", tmp_path).classes == ("walk", "sit", "jump")
    assert "class 'jump' has no clip at all" in notes


def test_persons_that_are_left_out(said, tmp_path):
    said(rows((clip(7, persons=3), "sit", "train")))
    store = open_store("mine", tmp_path)
    assert (store.num_persons, store.feeder) == (3, "")
    assert persons_left_out(store, store.rows("split", "train"), 3) == ""
    told = persons_left_out(store, store.rows("split", "train"), 1)
    assert told.startswith("data.num_persons=1 leaves out 2 persons of 1 of 3 clips")
    assert persons_left_out(store, store.rows("split", "test"), 1) == ""


def test_sizes():
    assert skeleton_size(clip(0)) == pytest.approx(1.7, abs=1e-5)
    away = clip(0, persons=2) + 3
    away[:, 1] = 0  # nobody
    away[2, 0, 1] = 0  # a missing head
    assert skeleton_size(away) == pytest.approx(1.7, abs=1e-5)
    assert coordinate_range(away)[0] > 1.5
    assert odd_size(1.7) == odd_size(0.3) == odd_size(1.7, usual=2.0) == ""
    assert "is it in millimetres" in odd_size(1700.0, usual=1.7)
    assert "0.00017" in odd_size(0.00017, usual=1.7)
    assert Census("xyz", GRAPHS["ntu25"]).summary()["persons"] == []


@pytest.mark.parametrize(
    ("change", "upright"),
    [
        (lambda x: x, 1),
        (lambda x: x * [1, -1, 1], -1),  # y points down
        (lambda x: x[..., [0, 2, 1]], 0),  # z is up
        (lambda x: x[..., [1, 0, 2]], 0),  # x and y are swapped
        (lambda x: x[:, :, [0, 2, 1]], -1),  # joints in another order
    ],
)
def test_axes_and_joints_that_do_not_fit_the_graph(said, change, upright):
    standing = [(change(array), *more) for array, *more in rows()]
    found = uprightness(standing[0][0], resolve_graph(GRAPH))[0]
    assert found == pytest.approx(upright, abs=0.05)
    notes = said(standing)
    assert ("head is not above the feet along y" in notes) == (upright < 1)


def test_the_up_axis_of_the_graph_counts():
    down = clip(0) * [1, -1, 1]
    found = uprightness(down, resolve_graph(GRAPH | {"up": "-y"}))
    assert found == pytest.approx((1, 0.8 / 1.7), abs=0.05)
    assert np.isnan(uprightness(down[..., :2], resolve_graph(GRAPH | {"up": "z"}))).all()
    unknown = GRAPH | {"joints": ["a", "b", "c"]}
    assert np.isnan(uprightness(down, resolve_graph(unknown))).all()
    flat = clip(0)
    flat[:, :, 1] = 0  # no head
    assert np.isnan(uprightness(flat, resolve_graph(GRAPH))).all()


def test_single_clips_unlike_the_others(said):
    still = np.repeat(clip(8)[:1], 5, axis=0)
    notes = said(
        rows(
            (clip(5) * [1, -1, 1], "sit", "train"),
            (clip(6) * 1000, "sit", "train"),
            (still, "sit", "train"),
            (clip(9, frames=1), "walk", "train"),
        ),
    )
    assert "clip 'c4' is upside down compared with the others" in notes
    assert "clip 'c5' is 10 times larger or smaller than most: another unit?" in notes
    assert "2 clips ('c6', 'c7') are without motion: one frame, or equal ones" in notes
    assert all(len(line) < 300 for line in notes.splitlines())


def test_persons_who_change_places(said):
    two = np.repeat(clip(5, persons=2)[:1], 20, axis=0)
    two += np.linspace(0, 0.2, 20, dtype=np.float32)[:, None, None, None]  # they walk
    two[:, 1] += np.float32([1.5, 0, 0])
    mixed = two.copy()
    mixed[7:12] = mixed[7:12, ::-1]
    assert (exchanges(two), exchanges(mixed), exchanges(clip(1))) == (0, 2, 0)
    passing = two.copy()  # two people walk past each other
    passing[:, 0] += np.linspace(0, 1.5, 20)[:, None, None] * np.float32([1, 0, 0])
    passing[:, 1] -= np.linspace(0, 1.5, 20)[:, None, None] * np.float32([1, 0, 0])
    assert exchanges(passing) == 0
    gone = mixed.copy()
    gone[7:12, 1] = 0  # the other one is not seen
    assert exchanges(gone) == 0
    notes = said(rows((mixed, "sit", "train")))
    assert "in clip 'c4' two persons change places" in notes


def test_labels_that_cannot_be_right(said):
    notes = said(rows((clip(0), "walk", "train")))
    assert "2 clips have the joints of a clip of another class (c0 = c4)" in notes


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"] * 4, "class 'a' is the only one"),
        (["a", "b", "c", "d"], "each clip has a class of its own"),
    ],
)
def test_classes_that_cannot_be_learned(said, labels, message):
    splits = ("train", "test", "train", "test")
    notes = said([(clip(n), *row) for n, row in enumerate(zip(labels, splits, strict=True))])
    assert message in notes


def test_the_size_is_that_of_frames_with_somebody():
    every_second = clip(0, frames=40)
    every_second[::2] = 0
    assert skeleton_size(every_second) == pytest.approx(1.7, abs=1e-5)


def test_another_layout_of_as_many_joints():
    """The 20 joints of UTD-MHAD begin with the head, those of Northwestern-UCLA with the hips."""
    ucla, utd = GRAPHS["ucla20"], GRAPHS["utd20"]
    heights = {"head": 1.6, "shoulder centre": 1.4, "spine": 1.1, "hip centre": 1.0}
    heights |= {f"{s} {j}": h for s in ("left", "right") for j, h in HEIGHTS.items()}
    for graph, named, fits in ((ucla, ucla, True), (utd, utd, True), (utd, ucla, False)):
        pose = np.float32([[0.1, heights[name], 3] for name in graph.joints])
        census = Census("xyz", named)
        census.add(np.repeat(pose[None, None], 5, axis=0))
        index = {"classes": ["a"], "columns": {"id": ["c"], "label": [0]}}
        index |= {"protocols": {}, "graph": named.as_mapping()}
        said = "\n".join(notices(index, census.summary()))
        assert ("the head is not above the hips" in said) == (not fits)
