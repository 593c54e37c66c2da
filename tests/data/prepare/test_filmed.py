"""Folders of videos become datasets of skeletons; the pose estimator is a stand-in here."""

import json

import numpy as np
import pytest

from hocslm_jax.__main__ import main
from hocslm_jax.data.prepare import filmed
from hocslm_jax.data.prepare.filmed import recording_of, with_splits
from hocslm_jax.data.prepare.readers.arrays import write_npz
from hocslm_jax.data.prepare.readers.clips import Reading, clip_of, read_clip
from hocslm_jax.data.prepare.readers.formats import read_recording
from hocslm_jax.data.store import open_store
from hocslm_jax.graph import GRAPHS, NTU25
from hocslm_jax.pose.estimators import Poses


def poses(frames=12, persons=1, seed=0):
    """People with a body's proportions, 3 m before the camera; the last lacks the first frame."""
    rng = np.random.default_rng(seed)
    body = rng.uniform(-0.3, 0.3, size=(33, 3)) + np.linspace(-0.8, 0.8, 33)[:, None] * [0, 1, 0]
    way = np.cumsum(rng.normal(scale=0.01, size=(frames, persons, 1, 3)), axis=0)
    joints = (body + way + [0.5, 0, 3]).astype(np.float32)
    confidence = np.full(joints.shape[:3], 0.5, np.float32)
    pixels = 400 * joints[..., :2] / joints[..., 2:] + 300
    if persons > 1:
        joints[0, -1], pixels[0, -1], confidence[0, -1] = np.nan, np.nan, np.nan
    return Poses(joints, pixels, confidence, "blazepose33", 29.97)


@pytest.fixture
def estimator(monkeypatch):
    """The videos that poses were made of; a name with `bad` gives none."""
    made = []

    def estimate(video, pose):
        made.append(video.name)
        if "bad" in video.name:
            raise ValueError("no person was found in it")
        return poses(seed=len(made))

    monkeypatch.setattr(filmed, "open_pose", lambda *_: "open")
    monkeypatch.setattr(filmed, "estimate", estimate)
    return made


def films(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def prepare(tmp_path, *options):
    source = tmp_path / "films"
    where = ["--source", str(source), "--data-dir", str(tmp_path / "data"), "--name", "mine"]
    return main(["prepare", "videos", *where, *options])


def splits(tmp_path):
    store = open_store("mine", tmp_path / "data")
    names = np.asarray(store.ids)
    return {split: sorted(names[store.rows("split", split)]) for split in ("train", "test")}


def test_folders_name_labels_and_splits(tmp_path, estimator):
    names = [
        f"{s}/{c}/{c}{n}_{s}.mp4"
        for s in ("train", "test")
        for c in ("wave", "sit")
        for n in (1, 2)
    ]
    films(tmp_path / "films", *names)
    assert prepare(tmp_path) == 0
    store = open_store("mine", tmp_path / "data")
    assert store.classes == ("sit", "wave") and store.graph == GRAPHS["blazepose33"]
    assert splits(tmp_path)["test"] == ["sit1_test", "sit2_test", "wave1_test", "wave2_test"]
    assert len(estimator) == 8
    assert prepare(tmp_path) == 0 and len(estimator) == 8, "skeletons are kept"


def test_a_table_names_labels_and_subjects(tmp_path, estimator, capsys):
    films(tmp_path / "films", "a.avi", "deep/b_rgb.avi", "c.mov")
    table = tmp_path / "labels.csv"
    table.write_text("file;label;split;subject\na.avi;wave;train;3\ndeep/b_rgb.avi;sit;test;4\n")
    assert prepare(tmp_path, "--labels", str(table), "--graph", "ntu25") == 0
    store = open_store("mine", tmp_path / "data")
    assert store.graph == NTU25 and store.joints(0).shape[2] == 25
    assert splits(tmp_path) == {"train": ["a"], "test": ["b"]}
    assert "1 videos have no label: c" in capsys.readouterr().err


def test_what_cannot_be_used_is_named(tmp_path, estimator, capsys):
    films(tmp_path / "films", "wave/a.mp4", "wave/b.mp4", "sit/bad.mp4", "sit/c.mp4", "sit/d.mp4")
    assert prepare(tmp_path) == 2
    assert "bad.mp4: no person was found in it" in capsys.readouterr().err
    assert prepare(tmp_path, "--allow-bad") == 0
    assert splits(tmp_path)["test"] == ["b", "d"]
    table = tmp_path / "labels.csv"
    table.write_text("file,label\na.mp4,x\nabsent.mp4,x\na,y\n")
    assert prepare(tmp_path, "--labels", str(table), "--force") == 2
    err = capsys.readouterr().err
    assert "no video 'absent.mp4'" in err and "a second row of 'a'" in err


def test_errors_are_found_before_videos_are_processed(tmp_path, estimator, capsys):
    assert prepare(tmp_path) == 2 and "no such folder" in capsys.readouterr().err
    films(tmp_path / "films", "a.mp4")
    assert prepare(tmp_path) == 2 and "or give --labels" in capsys.readouterr().err
    films(tmp_path / "films", "x/b.mp4", "y/c.mp4")
    (tmp_path / "films/a.mp4").unlink()
    assert prepare(tmp_path, "--graph", "ntu") == 2 and estimator == []
    assert prepare(tmp_path) == 0 and len(estimator) == 2
    capsys.readouterr()
    assert prepare(tmp_path, "--persons", "2") == 2 and len(estimator) == 2
    assert "--skeletons" in capsys.readouterr().err


def test_every_fifth_video_of_a_class_tests_by_default():
    rows = [
        {"id": f"{c}{n:02}", "label": c} for c, many in (("a", 12), ("b", 3)) for n in range(many)
    ]
    tests = {row["id"] for row in with_splits(rows) if row["split"] == "test"}
    assert tests == {"a04", "a09", "b02"}, "a class of few has one, too"
    told = [{"id": "x", "label": "a", "split": "val"}, {"id": "y", "label": "a", "split": ""}]
    assert with_splits(told) == told


def test_saved_skeletons_come_back_as_they_were(tmp_path):
    recording = recording_of(poses(persons=2))
    write_npz(tmp_path / "clip.npz", recording)
    found = read_recording(tmp_path / "clip.npz")
    assert (found.layout, found.unit, found.up) == (GRAPHS["blazepose33"], "m", "-y")
    assert found.fps == pytest.approx(29.97)
    np.testing.assert_array_equal(found.joints, recording.joints)
    np.testing.assert_array_equal(found.confidence, recording.confidence)
    clip = read_clip(tmp_path / "clip.npz", NTU25)
    np.testing.assert_array_equal(clip, clip_of(recording, NTU25))


@pytest.mark.parametrize("field", ["layout", "unit", "up", "axes"])
def test_inconsistent_saved_skeleton_is_refused(tmp_path, field):
    np.savez(tmp_path / "clip.npz", joints=poses().joints, **{field: "nonsense"})
    with pytest.raises(Exception, match=f"{field} is 'nonsense', expected one of"):
        read_recording(tmp_path / "clip.npz")


def test_facing_direction_matches_kinect_coordinates():
    """There x grows to the sensor's left, y up and z away, so that faces look along -z."""
    names = GRAPHS["blazepose33"].joints
    joints = poses().joints
    joints[..., names.index("left shoulder"), :] = [0.7, -0.4, 3.0]  # the image's right
    joints[..., names.index("right shoulder"), :] = [0.3, -0.4, 3.0]
    joints[..., names.index("nose"), :] = [0.5, -0.6, 2.8]  # nearer than the shoulders
    clip = clip_of(recording_of(poses()._replace(joints=joints)), NTU25)
    at = {name: clip[0, 0, v] for v, name in enumerate(NTU25.joints)}
    across = at["left shoulder"] - at["right shoulder"]
    facing = np.cross(across, [0, 1, 0])
    np.testing.assert_allclose(facing / np.linalg.norm(facing), [0, 0, -1], atol=1e-6)
    assert at["left shoulder"][2] == pytest.approx(3.0) and at["left shoulder"][1] > 0


def test_the_table_is_what_folders_have(tmp_path, estimator):
    films(tmp_path / "films", "wave/a.mp4", "wave/b.mp4", "sit/c.mp4", "sit/d.mp4")
    prepare(tmp_path)
    kept = tmp_path / "films_skeletons"
    assert json.loads((kept / "graph.json").read_text())["name"] == "blazepose33"
    where = ["--source", str(kept), "--data-dir", str(tmp_path / "data"), "--channels", "xyz"]
    assert main(["prepare", "folder", "--name", "again", *where]) == 0
    np.testing.assert_array_equal(
        open_store("again", tmp_path / "data").joints(0),
        open_store("mine", tmp_path / "data").joints(0),
    )


def test_models_of_2d_joints_see_the_image():
    found, coco = poses(), GRAPHS["coco17"]
    clip = clip_of(recording_of(found, 2), coco, Reading("xyc"))
    nose = coco.joints.index("nose")
    np.testing.assert_allclose(clip[:, 0, nose, :2], found.pixels[:, 0, 0])
    assert (clip[..., 2] == 0.5).all()
