"""Notes of `prepare` and `--check` on datasets that are usable but unusual."""

import json

import numpy as np
import pytest

from hocslm_jax.__main__ import main
from hocslm_jax.data.prepare.measure import Census, coordinate_range, skeleton_size
from hocslm_jax.data.prepare.notices import odd_size, persons_left_out
from hocslm_jax.data.store import open_store

GRAPH = {"joints": ["hip", "head", "foot"], "edges": [[1, 0], [2, 0]], "root": 0}
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
    assert Census().summary()["persons"] == []
