"""The table of layouts: one recording converted to other layouts."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import layouts
from hocslm_jax.data.prepare import folder
from hocslm_jax.data.prepare.readers.clips import clip_of
from hocslm_jax.graph import GRAPHS, UCLA20

RNG = np.random.default_rng(0)
CLIP = RNG.uniform((-0.6, -0.7, 2.2), (1.0, 0.9, 3.8), (6, 1, 20, 3)).astype(np.float32)
RESULT = Path(__file__).resolve().parents[2] / "results/benchmarks/layouts.json"


@pytest.mark.parametrize("name", GRAPHS)
def test_round_trip_keeps_all_but_the_missing_joints(name):
    back = clip_of(layouts.in_layout(CLIP, GRAPHS[name]), UCLA20)
    equal = np.isclose(back, CLIP, atol=1e-5).all(axis=(0, 1, 3))
    (row,) = [
        r for r in json.loads(RESULT.read_text())["rows"] if r["layout"] == name and not r["flat"]
    ]
    changed = {UCLA20.joints[v] for v in np.flatnonzero(~equal)}
    assert changed == {*row["made"], *row["missing"]}


def test_a_projected_clip_is_where_a_camera_sees_it():
    point = np.broadcast_to(np.array([0.5, 0.25, 2], np.float32), (3, 1, 20, 3))
    flat = layouts.projected(layouts.in_layout(point, GRAPHS["coco17"]))
    assert (flat.unit, flat.up) == ("px", "-y")
    wanted = [320 + 571.4 / 4, 240 - 571.4 / 8]
    np.testing.assert_allclose(flat.joints[0, 0, 5], wanted, rtol=1e-6)
    lifted = layouts.lifted(flat)
    assert lifted.joints.shape == (3, 1, 17, 3) and not lifted.joints[..., 2].any()


class Store:
    classes, ids = ("sit", "walk"), ("a", "b")
    labels = np.array([1, 0])

    @property
    def columns(self):
        return {"subject": np.array([3, 4]), "camera": np.array([1, 3])}

    def joints(self, row):
        return CLIP

    def rows(self, protocol, split):
        return np.array([("train", "test").index(split)])


def test_prepare_accepts_a_dataset_in_another_layout(tmp_path):
    layouts.write_folder(Store(), "xview", GRAPHS["coco17"], True, tmp_path)
    recipe = folder.recipe("mine", tmp_path, "coco17", lambda *bad: pytest.fail(str(bad)))
    clips = [clip for shard in recipe.shards for clip in shard()]
    assert recipe.channels == "xy" and recipe.classes == ("sit", "walk")
    assert [(clip.id, clip.label, clip.camera) for clip in clips] == [("a", 1, 1), ("b", 0, 3)]
    assert clips[0].joints.shape == (6, 1, 17, 2)


def test_pairs_have_one_name_in_the_table():
    row = {"layout": "coco17", "flat": True, "correct": 3, "total": 4, "missing": []}
    row |= {"made": ["left foot", "right foot", "left hand", "spine"]}
    made = layouts.make_table({"rows": [row], "model": "m", "command": "c"})
    assert "| `coco17`, x and y alone | 17 | 3 / 4 = 75.0% | feet, hands, spine | – |" in made
