"""`predict` in Python with clips of every kind, and with what is no clip; nothing is compiled."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from hocslm_jax.data.layouts import convert_layout
from hocslm_jax.data.prepare.readers.clips import Reading
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, UCLA20
from hocslm_jax.predict.clip_files import load_clip
from hocslm_jax.predict.predictor import Predictor

JOINTS = np.random.default_rng(0).uniform(-0.8, 0.8, (12, 20, 3)).astype(np.float32)  # metres


@pytest.fixture
def model():
    """A model without a network; `seen` are the clips that it was given."""
    seen = []

    def batches(forward, clips, size):
        seen.extend(clips)
        yield np.zeros((len(clips), 2), np.float32), None

    found = Predictor()
    found.graph, found.classes, found.compat, found.reading = UCLA20, ("a", "b"), None, Reading()
    member = SimpleNamespace(
        batches=batches, forward=None, feed=SimpleNamespace(num_persons=2), notes=lambda clip: ()
    )
    found.members, found.seen = (member,), seen
    return found


def saved(folder):
    """The clip in three formats; the table has its joints in another order."""
    np.save(folder / "a.npy", JOINTS)
    (folder / "a.json").write_text(json.dumps({"skeletons": JOINTS.tolist()}))
    order = [*range(1, 20), 0]
    names = [UCLA20.joints[v].replace(" ", "_") for v in order]
    rows = [",".join(f"{name}_{axis}" for name in names for axis in "xyz")]
    rows += [",".join(map(str, frame[order].ravel())) for frame in JOINTS]
    (folder / "a.csv").write_text("\n".join(rows))
    return [folder / "a.npy", str(folder / "a.json"), folder / "a.csv"]


def test_paths_are_read_and_mapped(model, tmp_path):
    paths = saved(tmp_path)
    assert model.predict(paths[0]).frames == 12
    found = model.predict([*paths, JOINTS])
    assert [prediction.frames for prediction in found] == [12] * 4
    for clip in model.seen:
        np.testing.assert_allclose(clip[:, 0], JOINTS, atol=1e-6)


def test_arrays_and_lists_are_alike(model):
    for clip in (JOINTS, JOINTS[:, None], JOINTS.astype(float), JOINTS.tolist(), list(JOINTS)):
        assert model.predict(clip).persons == 1
    assert len(model.predict(iter([JOINTS, JOINTS]))) == 2 and model.predict([]) == []
    for clip in model.seen:
        np.testing.assert_allclose(clip[:, 0], JOINTS, atol=1e-6)


def test_a_layout_is_mapped_in_any_unit(model):
    coco, _ = convert_layout(JOINTS[:, None], UCLA20, GRAPHS["coco17"])
    for scale in (1, 100, 1000):
        model.predict(coco * scale, layout="coco17")
    elbow, there = UCLA20.joints.index("left elbow"), GRAPHS["coco17"].joints.index("left elbow")
    turned = coco[:, :, there] * [-1, -1, 1]  # COCO's y is down, the model's is up
    for clip in model.seen:
        np.testing.assert_allclose(clip[:, :, elbow], turned, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("clip", "layout", "word"),
    [
        (None, "", "NoneType is not a clip: give an array, a path"),
        (5, "", "int is not a clip"),
        ({"joints": JOINTS}, "", "dict is not a clip"),
        (b"a.npy", "", "bytes is not a clip"),
        ("absent.npy", "", "absent.npy: no such file"),
        (["absent.json", JOINTS], "", "absent.json: no such file"),
        ("clip.gif", "", "clip.gif: no such file"),
        (JOINTS, "coco71", "did you mean 'coco17'"),
        (JOINTS, "coco17", "has 20 joints, coco17 has 17"),
        (JOINTS[:, :17], "", "it has 17 joints.* name their layout"),
        (JOINTS[..., :2], "", "expected"),
        (JOINTS[..., :2], "ucla20", "2 coordinates; xyz needs 3"),
        (JOINTS[:0], "", "not a clip"),
        (JOINTS * np.nan, "", "shows nobody"),
        (JOINTS * 0, "", "shows nobody"),
        (JOINTS * np.inf, "", "not finite"),
        (JOINTS.astype(str), "", "is not a clip"),
        (JOINTS > 0, "", "is not a clip"),
        (JOINTS + 1j, "", "is not a clip"),
        (JOINTS[0], "", "is not a clip"),
        ([JOINTS, JOINTS[0]], "", "clip 1: .*is not a clip"),
        ([[JOINTS[0], JOINTS[1, :3]]], "", "clip 0: "),
        ([JOINTS, "a", None], "", "a: no such file"),
        ([JOINTS, None], "", "clip 1: .*is not a clip"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_line(model, clip, layout, word):
    with pytest.raises(UserError, match=word) as caught:
        model.predict(clip, layout=layout)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_videos_and_folders_are_no_skeleton_files(tmp_path):
    (tmp_path / "clip.MP4").touch()
    for path, word in ((tmp_path / "clip.MP4", "predict_video"), (tmp_path, "file in this folder")):
        with pytest.raises(UserError, match=word):
            load_clip(path)
