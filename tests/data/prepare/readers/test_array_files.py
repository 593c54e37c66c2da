"""Arrays of joints in .npy, .npz and .mat files."""

import numpy as np
import pytest
import scipy.io
from reader_files import BODY, PIXELS, RNG, save

from hocslm_jax.data.prepare.readers.arrays import from_array
from hocslm_jax.data.prepare.readers.formats import read_recording
from hocslm_jax.data.prepare.readers.recording import (
    as_layout,
    turned_up,
)
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, NTU25, UCLA20, resolve_graph


@pytest.mark.parametrize(
    ("axes", "order"),
    [
        ("TMVC", (0, 1, 2, 3)),
        ("MTVC", (1, 0, 2, 3)),
        ("CTVM", (3, 0, 2, 1)),
        ("TVMC", (0, 2, 1, 3)),
    ],
)
def test_declared_axes(tmp_path, axes, order):
    path = tmp_path / "clip.npy"
    np.save(path, BODY.transpose(order))
    recording = read_recording(path, axes=axes, layout="ntu25")
    np.testing.assert_array_equal(recording.joints, BODY)
    assert (recording.layout, recording.unit, recording.up) == (NTU25, "m", "y")


@pytest.mark.parametrize(
    ("shape", "layout", "read_as"),
    [
        ((60, 25, 3), "ntu25", (60, 1, 25, 3)),
        ((20, 3, 60), "utd20", (60, 1, 20, 3)),
        ((3, 60, 25, 1), "ntu25", (60, 1, 25, 3)),
        ((1, 60, 25, 3), "ntu25", (60, 1, 25, 3)),
        ((60, 2, 25, 3), "ntu25", (60, 2, 25, 3)),
        ((60, 2, 17, 2), None, (60, 2, 17, 2)),
    ],
)
def test_unambiguous_shape_needs_no_axes(shape, layout, read_as):
    array = RNG.normal(size=shape)
    recording = from_array(array, layout=resolve_graph(layout) if layout else None)
    assert recording.joints.shape == read_as


def test_the_targets_joints_tell_axes_apart():
    array = RNG.normal(size=(60, 25, 3))
    np.testing.assert_array_equal(from_array(array, likely=25).joints[:, 0], np.float32(array))
    assert from_array(array.swapaxes(0, 1), likely=25).joints.shape == (60, 1, 25, 3)
    with pytest.raises(ValueError, match="TVC or VTC"):  # the square fits both
        from_array(RNG.normal(size=(25, 25, 3)), likely=25)
    with pytest.raises(ValueError, match="TVC or VTC"):  # of another layout
        from_array(array, likely=17)


def test_pixels_of_a_sensors_layout_are_not_turned_upside_down():
    pixels = RNG.uniform(50, 400, (6, 1, 25, 2))
    found = from_array(pixels, "TMVC", NTU25)
    assert found.up is None and turned_up(found, "-y") is found
    assert from_array(pixels, "TMVC", GRAPHS["openpose25"]).up == "-y"
    assert from_array(pixels / 400, "TMVC", NTU25).up == "y"
    assert from_array(pixels, "TMVC").up is None


@pytest.mark.parametrize(
    ("shape", "axes", "layout", "word"),
    [
        ((60, 25, 3), None, None, "TVC or VTC; name its axes, e.g. --axes TVC"),
        ((25, 25, 3), None, "ntu25", "TVC or VTC"),
        ((5, 4, 25, 3), None, "ntu25", "TMVC or MTVC"),
        ((3, 60, 25, 2), None, "ntu25", "MTVC or CTVM"),
        ((60, 75), None, "ntu25", "expected three axes"),
        ((60, 24, 3), None, "ntu25", "no axis of the 25 ntu25 joints"),
        ((9, 8, 3), None, None, "none of frames.* --axes TMVC, and its layout"),
        ((60, 24, 3), "TVC", "ntu25", "24 joints"),
        ((60, 25, 5), "TVC", None, "5 coordinates"),
        ((60, 25, 3), "TMVC", None, "3 axes"),
        ((60, 25, 3), "TVX", None, "write T, V, C"),
        ((60, 25, 3), "TVV", None, "write T, V, C"),
        ((0, 25, 3), "TVC", None, "with frames"),
    ],
)
def test_ambiguous_or_wrong_axes_are_refused(tmp_path, shape, axes, layout, word):
    path = tmp_path / "clip.npy"
    np.save(path, RNG.normal(size=shape))
    with pytest.raises(UserError, match=word) as caught:
        read_recording(path, axes, layout)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_npz_with_confidence_and_fps(tmp_path):
    path, scores = tmp_path / "clip.npz", RNG.uniform(size=(2, 6, 17))
    points = PIXELS.transpose(1, 0, 2, 3)
    np.savez(path, keypoint=points, keypoint_score=scores, fps=25, label=3)
    recording = read_recording(path, "MTVC", "coco17")
    np.testing.assert_array_equal(recording.joints, PIXELS)
    np.testing.assert_allclose(recording.confidence, scores.transpose(1, 0, 2), rtol=1e-6)
    assert (recording.unit, recording.up, recording.fps) == ("px", "-y", 25)
    np.savez(path, a=BODY, b=BODY)
    with pytest.raises(UserError, match="several arrays"):
        read_recording(path, "TMVC")
    np.savez(path, a=BODY, b=np.array("text"))
    assert read_recording(path, "TMVC").joints.shape == BODY.shape


def test_confidence_as_last_coordinate():
    scores = RNG.uniform(size=(6, 2, 17, 1))
    for points in (PIXELS, np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1)):
        recording = from_array(np.concatenate([points, scores], axis=-1), "TMVC")
        np.testing.assert_array_equal(recording.joints, points)
        np.testing.assert_allclose(recording.confidence, scores[..., 0], rtol=1e-6)
    with pytest.raises(ValueError, match="not a confidence"):
        from_array(np.full((6, 17, 4), 3.0), "TVC")
    assert from_array(np.abs(BODY), "TMVC").confidence is None  # metres, not a confidence


def test_missing_joints_become_nan():
    body = BODY.copy()
    body[2, 0, 3, 1] = np.nan
    assert np.isnan(from_array(body, "TMVC").joints[2, 0, 3]).all()
    with pytest.raises(ValueError, match="nobody"):
        from_array(np.full_like(body, np.nan), "TMVC")
    body[0, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="beyond"):
        from_array(body, "TMVC")


@pytest.mark.parametrize("packed", [False, True])
def test_utd_mhad(tmp_path, packed):
    path, skeleton = tmp_path / "a1_s1_t1_skeleton.mat", RNG.uniform(-1, 1, (20, 3, 30))
    scipy.io.savemat(path, {"d_skel": skeleton}, do_compression=packed)
    recording = read_recording(path)
    np.testing.assert_allclose(recording.joints[:, 0], skeleton.transpose(2, 0, 1), rtol=1e-6)
    assert (recording.layout, recording.unit) == (GRAPHS["utd20"], "m")
    converted, missing = as_layout(recording, UCLA20)
    np.testing.assert_array_equal(converted.joints[:, :, 3], recording.joints[:, :, 0])  # head
    assert not missing.any()


def test_mat_file_with_one_array_of_three_axes(tmp_path):
    path = tmp_path / "clip.mat"
    scipy.io.savemat(path, {"label": 3, "name": "wave", "S": {"x": 1}, "pos": BODY[:, 0]})
    np.testing.assert_array_equal(read_recording(path, layout="ntu25").joints, BODY)
    scipy.io.savemat(path, {"pos": BODY[:, 0], "rot": BODY[:, 0]})
    with pytest.raises(UserError, match="several arrays"):
        read_recording(path)


def test_mat_files_of_other_versions_and_bombs(tmp_path):
    with pytest.raises(UserError, match="save it with -v7"):
        read_recording(save(tmp_path, "a.mat", b"MATLAB 7.3 MAT-file" + bytes(600)))
    with pytest.raises(UserError, match=r"not a .mat file"):
        read_recording(save(tmp_path, "b.mat", b"0" * 600))
    path = tmp_path / "bomb.mat"
    scipy.io.savemat(path, {"d_skel": np.zeros((20, 3, 150_000))}, do_compression=True)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="unpacks to over"):
        read_recording(path)
