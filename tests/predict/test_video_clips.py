"""Videos given to `predict`: early checks, and saved skeletons."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest

from hocslm_jax.data.prepare.readers.clips import Reading
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25
from hocslm_jax.options import video
from hocslm_jax.pose.estimators import Pose, Poses
from hocslm_jax.predict import video_clips
from hocslm_jax.predict.clip_files import find_files, read_joints
from hocslm_jax.predict.video_clips import open_videos, reader

MODEL = SimpleNamespace(graph=NTU25, compat=None)


@pytest.fixture
def clips(tmp_path):
    for name in ("a/clip.mp4", "b/clip.mov", "b/other.avi", "b/skeleton.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def options(*words):
    parser = argparse.ArgumentParser()
    video(parser)
    return parser.parse_args(words)


def test_folders_give_their_videos_too(clips):
    names = [path.name for path in find_files([str(clips)])]
    assert names == ["clip.mp4", "clip.mov", "other.avi", "skeleton.npy"]


@pytest.mark.parametrize(
    ("save", "files", "reason"),
    [
        ("x.npz", ["b/skeleton.npy"], "no file is a video"),
        ("x.npz", ["a/clip.mp4", "b/other.avi"], "name a folder"),
        ("x.mp4", ["a/clip.mp4"], r"must end in \.npz"),
        ("x", ["a/clip.mp4", "b/clip.mov"], "have one name"),
        ("x.npz", ["a/clip.mp4"], "get them with `npm pack"),
    ],
)
def test_options_that_do_not_fit_are_said_first(clips, save, files, reason):
    given = options("--save-skeleton", save, "--pose-model", str(clips))
    with pytest.raises(UserError, match=reason):
        open_videos(given, [clips / name for name in files])


def test_without_videos_no_models_are_needed(clips):
    assert open_videos(options("--pose-model", "nowhere"), [clips / "b/skeleton.npy"]) is None


def test_saved_skeleton_predicts_like_its_video(clips, monkeypatch):
    rng = np.random.default_rng(0)
    joints = rng.uniform(-0.5, 0.5, size=(9, 2, 33, 3)).astype(np.float32) + np.float32([0, 0, 3])
    joints[0, 1] = np.nan
    sure = np.where(np.isnan(joints[..., 0]), np.float32(np.nan), np.float32(0.7))
    poses = Poses(joints, joints[..., :2], sure, "blazepose33", 30.0)
    monkeypatch.setattr(video_clips, "estimate", lambda path, pose: poses)
    read = reader(MODEL, Reading(), Pose(None, "blazepose33"), clips / "kept")
    clip = read(clips / "a/clip.mp4")
    assert clip.shape == (9, 2, 25, 3) and np.isfinite(clip).all()
    np.testing.assert_array_equal(read_joints(clips / "kept/clip.npz", NTU25), clip)
    with pytest.raises(ValueError, match="no such file"):
        read(clips / "absent.mp4")
