"""Common to all readers: messages, units, axes, layouts, and the order of persons."""

import numpy as np
import pytest
from reader_files import BODY, BVH, PIXELS, openpose, save

from hocslm_jax.data.clip import Nobody
from hocslm_jax.data.prepare.readers.formats import FORMATS, describe, read_recording
from hocslm_jax.data.prepare.readers.recording import (
    Detection,
    Recording,
    assemble,
    guess_unit,
    in_metres,
    turned_up,
)
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, NTU25
from hocslm_jax.predict.clip_files import to_draw


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"poses": [], "version": 2}, "an object with the keys 'poses', 'version'"),
        ([[1, 2], [3]], "a list of 2, the first list"),
        ([{"a": 1}], "the first an object with the keys 'a'"),
        ([], "a list of 0"),
        ('"text"', "str"),
        ("[1, 2", "damaged JSON .*delimiter"),
        ("[" * 5000, "recursion"),
        ("", "empty file"),
    ],
)
def test_unknown_json_is_described(tmp_path, content, word):
    with pytest.raises(UserError, match=word) as caught:
        read_recording(save(tmp_path, "clip.json", content))
    assert len(str(caught.value)) <= 300 + len(str(tmp_path))


def test_unreadable_paths_are_refused(tmp_path):
    for path, word in (
        (tmp_path / "absent.npy", "no such file"),
        (tmp_path / "absent.json", "no such file"),
        (tmp_path, "a folder without"),
        (save(tmp_path, "clip.txt", "1"), "'.txt' are not read"),
        (save(tmp_path, "clip.csv", b"\xff\xff"), "UTF-8"),
    ):
        with pytest.raises(UserError, match=word):
            read_recording(path)
    with pytest.raises(UserError, match="axes are for arrays"):
        read_recording(save(tmp_path, "walk.bvh", BVH), axes="TVC")
    with pytest.raises(UserError, match="its joints are openpose18"):
        path = save(tmp_path, "frame.json", openpose([PIXELS[0, 0, :1].repeat(18, 0)]))
        read_recording(path, layout="coco17")


def test_ntu_skeleton_without_bodies_shows_nobody(tmp_path):
    with pytest.raises(Nobody):
        read_recording(save(tmp_path, "S001C001P001R001A001.skeleton", "2\n0\n0\n"))
    with pytest.raises(UserError) as caught:
        read_recording(save(tmp_path, "S001C001P001R001A002.skeleton", "2\n1\n"))
    assert not isinstance(caught.value, Nobody)


def test_ntu_skeleton(tmp_path):
    joint = "0.1 0.2 3.0 1 2 3 4 0 0 0 1 2"
    body = "\n".join(["72057594037931101 0 1 1 1 1 0 0.5 0.1 2", "25", *[joint] * 25])
    path = save(tmp_path, "S001C001P001R001A001.skeleton", f"2\n1\n{body}\n1\n{body}\n")
    recording = read_recording(path)
    assert recording.joints.shape == (2, 1, 25, 3) and recording.layout is NTU25


def test_units():
    assert [guess_unit(BODY * scale) for scale in (1, 100, 1000, 1e5)] == ["m", "cm", "mm", None]
    for unit, scale in (("mm", 1000), ("cm", 100)):
        recording = in_metres(Recording(BODY * scale, unit=unit))
        np.testing.assert_allclose(recording.joints, BODY, rtol=1e-5)
        assert recording.unit == "m"
    pixels = Recording(PIXELS, unit="px")
    assert in_metres(pixels) is pixels


@pytest.mark.parametrize("up", ["x", "-x", "y", "-y", "z", "-z"])
def test_turning_preserves_shape_and_handedness(up):
    joints = BODY.copy()
    joints[0, 0, 0] = np.nan
    turned = turned_up(Recording(joints, up="z"), up)
    there = turned.joints[1:].reshape(-1, 3)
    before = joints[1:].reshape(-1, 3)
    turn = np.linalg.lstsq(before, there, rcond=None)[0]
    assert np.isclose(np.linalg.det(turn), 1)
    axis = np.zeros(3)
    axis["xyz".index(up[-1])] = -1 if up[0] == "-" else 1
    np.testing.assert_allclose([0, 0, 1] @ turn, axis, atol=1e-5)
    assert np.isnan(turned.joints[0, 0, 0]).all() and np.isnan(turned.joints).sum() == 3


def test_2d_turning_only_flips_y():
    turned = turned_up(Recording(PIXELS, up="-y"), "y")
    np.testing.assert_array_equal(turned.joints, PIXELS * np.float32([1, -1]))
    same = Recording(PIXELS, up="-y")
    assert turned_up(same, "z") is same


def test_2d_turning_shows_the_same_picture():
    """Left and right stay where the camera saw them: what is drawn does not change."""
    seen = turned_up(Recording(PIXELS, up="-y"), "-y").joints
    turned = turned_up(Recording(PIXELS, up="-y"), "y").joints
    up, down = GRAPHS["ucla20"], GRAPHS["coco17"]
    assert (up.up, down.up) == ("y", "-y")
    np.testing.assert_array_equal(to_draw(turned, up, "xy"), to_draw(seen, down, "xy"))
    drawn = to_draw(turned, up, "xy")
    # Who is to the right in the picture, where x is larger, is drawn to the right.
    right = np.argmax(PIXELS[0, 0, :, 0])
    assert np.argmax(drawn[0, 0, :, 0]) == right


def test_person_keeps_index_over_frames():
    points = np.ones((5, 2), np.float32)
    found = [Detection(4, "b", points, None), Detection(6, "a", points * 2, None)]
    joints, confidence, tracks = assemble([*found, Detection(6, "b", points, None)])
    assert joints.shape == (3, 2, 5, 2) and tracks == ("b", "a") and confidence is None
    assert np.isnan(joints[1]).all() and (joints[2, 1] == 2).all()
    with pytest.raises(ValueError, match="too many"):
        assemble([Detection(n, n, points, None) for n in range(2000)])


def test_all_documented_formats_are_known():
    assert {"npy", "npz", "mat", "csv", "bvh", "openpose", "kinetics", "mediapipe"} <= set(FORMATS)
    assert {"alphapose", "coco", "ntu", "nw_ucla"} <= set(FORMATS)
    assert describe(3) == "int"
