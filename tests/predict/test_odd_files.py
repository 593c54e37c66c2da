"""Folders of frames, suffixes in capitals, and damaged NTU files, for prediction."""

import json

import numpy as np
import pytest
from made_clips import clip, skeleton_file

from hocslm_jax.data.prepare.readers.clips import Reading
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS
from hocslm_jax.predict.clip_files import find_files, load_clip, read_joints


def frames_folder(folder, frames=3):
    """A folder as OpenPose writes it: a file for each frame."""
    folder.mkdir(parents=True)
    for number in range(frames):
        points = np.random.default_rng(number).uniform(50, 400, (25, 3)) * [1, 1, 0.002]
        people = [{"pose_keypoints_2d": points.ravel().tolist()}]
        path = folder / f"walk_{number:012d}_keypoints.json"
        path.write_text(json.dumps({"version": 1.3, "people": people}))
    return folder


def test_a_folder_of_frames_is_one_clip(tmp_path):
    walk, run = frames_folder(tmp_path / "clips/walk"), frames_folder(tmp_path / "clips/run")
    np.save(tmp_path / "clips/a.npy", clip())
    (tmp_path / "clips/a.npy").rename(tmp_path / "clips/a.NPY")
    assert find_files([str(tmp_path / "clips")]) == [tmp_path / "clips/a.NPY", run, walk]
    assert find_files([str(walk)]) == [walk]
    assert load_clip(walk).shape == (3, 1, 25, 3)
    joints = read_joints(walk, GRAPHS["coco17"], reading=Reading("xyc"))
    assert joints.shape == (3, 1, 17, 3)


def test_suffixes_in_capitals(tmp_path):
    joints = clip()
    for name in ("a.npy", "a.json", "a.skeleton"):
        path = tmp_path / name.upper()
        if name == "a.npy":
            np.save(tmp_path / name, joints)
            (tmp_path / name).rename(path)
        elif name == "a.json":
            path.write_text(json.dumps({"skeletons": joints[:, 0].tolist()}))
        else:
            path.write_text(skeleton_file(clip(joints=25)))
        assert load_clip(path).shape[:2] == (3, 1)


def test_a_body_that_is_twice_in_a_frame_is_refused(tmp_path):
    path = tmp_path / "S001C001P001R001A001.skeleton"
    path.write_text(
        skeleton_file(clip(people=2, joints=25)).replace("72057594037921", "72057594037920")
    )
    with pytest.raises(UserError, match="body 72057594037920 is there more than once in a frame"):
        load_clip(path)
