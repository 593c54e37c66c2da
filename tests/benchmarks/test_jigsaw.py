"""The puzzle of NW-UCLA's training views: every order of a clip's thirds, and no test clip."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import jigsaw
from hocslm_jax.data.prepare import folder
from hocslm_jax.errors import UserError
from hocslm_jax.graph import resolve_graph


def test_every_order_of_the_thirds_is_there_once():
    clip = np.arange(7 * 2 * 3, dtype=np.float32).reshape(7, 1, 2, 3)
    found = jigsaw.puzzles(clip)
    assert len(found) == 6 and (found["012"] == clip).all()
    for order, joints in found.items():
        assert joints.shape == clip.shape
        np.testing.assert_array_equal(np.sort(joints[:, 0, 0, 0]), clip[:, 0, 0, 0])
        assert (order == "012") == np.array_equal(joints, clip)


def test_what_is_written_can_be_prepared(tmp_path, monkeypatch):
    splits = {"train": [0, 2], "test": [3]}
    store = SimpleNamespace(
        graph=resolve_graph("ucla20"),
        ids=("a", "official_test", "b", "c"),
        rows=lambda protocol, split: splits[split] if protocol == "view2_val" else [1],
        joints=lambda row: np.zeros((5, 1, 20, 3), np.float32),
    )
    monkeypatch.setattr(jigsaw, "open_store", lambda *_: store)
    assert jigsaw.write(tmp_path, tmp_path / "clips") == 18
    with open(tmp_path / "clips/clips.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["id"][0], row["split"]) for row in rows} == {
        ("a", "train"),
        ("b", "train"),
        ("c", "test"),
    }
    recipe = folder.recipe("jigsaw", tmp_path / "clips", None, lambda *bad: None)
    assert len(recipe.classes) == 6 and recipe.graph == store.graph
    with pytest.raises(UserError, match="not empty"):
        jigsaw.write(tmp_path, tmp_path / "clips")
