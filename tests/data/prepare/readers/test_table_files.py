"""Joints in .csv tables, and motion capture in .bvh files."""

import numpy as np
import pytest
from reader_files import BODY, BVH, save

from hocslm_jax.data.prepare.readers.formats import read_recording
from hocslm_jax.data.prepare.readers.recording import (
    as_layout,
)
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, resolve_graph


@pytest.mark.parametrize(
    ("spelling", "separator"),
    [("{}_{}", ","), ("{}.{}", ";"), ("{} {}", "\t"), ("{}_{}", ",")],
)
def test_a_column_for_each_coordinate(tmp_path, spelling, separator):
    names = [name.replace(" ", "_") for name in reversed(NTU25.joints)]  # in another order
    header = ["time", *(spelling.format(name, axis) for name in names for axis in "xyz")]
    rows = [[0.1, *row] for row in BODY[:, 0, ::-1].reshape(6, 75).tolist()]
    text = "\n".join(separator.join(map(str, row)) for row in [header, *rows])
    if separator == ";":
        text = "\ufeff" + text.replace(".", ",").replace(",x", ".x").replace(",y", ".y")
        text = text.replace(",z", ".z").replace("\n", "\r\n")
    recording = read_recording(save(tmp_path, "clip.csv", text))
    np.testing.assert_allclose(recording.joints, BODY, rtol=1e-6)
    assert (recording.layout, recording.unit) == (NTU25, "m")


def test_numbered_columns_need_a_layout(tmp_path):
    for spelling in ("joint{0}_{1}", "{1}{0}"):
        header = ",".join(spelling.format(v, axis) for v in range(20) for axis in "xyz")
        rows = [",".join(map(str, row)) for row in BODY[:, 0, :20].reshape(6, 60).tolist()]
        path = save(tmp_path, "clip.csv", "\n".join([header, *rows]))
        assert read_recording(path).layout is None
        recording = read_recording(path, layout="ucla20")
        np.testing.assert_allclose(recording.joints, BODY[:, :, :20], rtol=1e-6)
        with pytest.raises(UserError, match="20 joints"):
            read_recording(path, layout="ntu25")


def test_persons_frames_confidence_and_empty_cells(tmp_path):
    text = """frame,person,hand_x,hand_y,hand_c,foot_x,foot_y,foot_c
        4,a,10,11,0.5,12,13,0.5
        4,b,20,21,0.5,22,23,0.5
        6,b,30,31,0.25,,,0
        """
    recording = read_recording(save(tmp_path, "clip.csv", text))
    assert recording.joints.shape == (3, 2, 2, 2) and recording.tracks == ("a", "b")
    assert recording.names == ("hand", "foot") and recording.layout is None
    assert recording.joints[2, 1, 0].tolist() == [30, 31]
    assert recording.confidence[2, 1].tolist() == [0.25, 0]
    assert np.isnan(recording.joints[2, 1, 1]).all() and np.isnan(recording.joints[1:, 0]).all()
    graph = {"joints": ["foot", "hand"], "edges": [["hand", "foot"]], "root": "foot"}
    declared = read_recording(save(tmp_path, "clip.csv", text), layout=resolve_graph(graph))
    assert declared.joints[0, 0].tolist() == [[12, 13], [10, 11]]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a,b\n1,2", "its header is 'a', 'b'"),
        ("", "empty file"),
        ("\n", "its header is nothing"),
        ("hand_x,hand_y,foot_x\n1,2,3", "'foot' has no column for y"),
        ("hand_x,hand_y\n1,left", "'left' is not a number"),
        ("hand_x,hand_y\n1,2,3", "line 2 has 3 cells"),
        ("hand_x,hand_x,hand_y\n1,2,3", "twice"),
        ("hand_x,hand_y", "nobody"),
        ("hand_x,hand_y\n,", "nobody"),
        ("frame,hand_x,hand_y\n1,1,2\n1,1,2", "frame 1 twice"),
        ("frame,hand_x,hand_y\n1.5,1,2", "not a frame number"),
        ("hand_x,hand_y\n1,1e30", "beyond"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, text, word):
    with pytest.raises(UserError, match=word):
        read_recording(save(tmp_path, "clip.csv", text))


def test_bvh(tmp_path):
    recording = read_recording(save(tmp_path, "walk.bvh", BVH))
    assert recording.layout.joints == ("Hips", "LeftUpLeg", "LeftLeg")
    assert recording.layout.parents == (0, 0, 1)
    assert (recording.fps, recording.up, recording.unit) == (25.0, "y", "m")
    rest = np.array([[0, 1, 0], [0.5, 1, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(recording.joints[0, 0], rest, atol=1e-6)
    np.testing.assert_allclose(recording.joints[1, 0], rest + np.array([1, 2, 3]), atol=1e-6)
    # The hips turn a quarter about z: the leg's x axis becomes y. The thigh then turns a quarter
    # about its own x, so that its -y, which would be x, becomes -z of the hips.
    np.testing.assert_allclose(
        recording.joints[2, 0], [[0, 1, 0], [0, 1.5, 0], [0, 1.5, -0.5]], atol=1e-6
    )
    converted, missing = as_layout(recording, NTU25)
    knee = NTU25.joints.index("left knee")
    np.testing.assert_array_equal(converted.joints[:, :, knee], recording.joints[:, :, 2])
    assert missing.sum() == 22


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("MOTION", "", "HIERARCHY and MOTION"),
        ("Frames: 3", "Frames: 4", "36 values for 4 frames"),
        ("Frames: 3", "Frames: 999999999", "too many"),
        ("90 0 0", "x 0 0", "not numbers"),
        ("90 0 0", "nan 0 0", "not finite"),
        ("OFFSET 0.5 0 0", "OFFSET a 0 0", "not a number"),
        ("Zrotation Xrotation", "Wrotation Xrotation", "unknown channel"),
        ("JOINT LeftLeg", "BONE LeftLeg", "'BONE' is not expected"),
        ("JOINT LeftLeg", "ROOT LeftLeg", "not expected"),
        ("}\n}\nMOTION", "}\nMOTION", "cut off"),
    ],
)
def test_damaged_bvh(tmp_path, old, new, word):
    with pytest.raises(UserError, match=word):
        read_recording(save(tmp_path, "walk.bvh", BVH.replace(old, new, 1)))
