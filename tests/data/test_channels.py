"""Clips in 2D and clips with a confidence, from file to network."""

import dataclasses

import numpy as np
import pytest
from toy_dataset import Memory

from hocslm_jax.data.augment import ClipView, augment, change_view
from hocslm_jax.data.channels import CHANNELS, coordinates_of
from hocslm_jax.data.feeder import Feed, build_batch
from hocslm_jax.data.prepare.measure import skeleton_size
from hocslm_jax.data.sampling import FEEDERS, nw_ucla
from hocslm_jax.data.streams import STREAMS, make_stream
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, other_side

COCO = GRAPHS["coco17"]
FRAMES = 12


def clip(channels="xyc", frames=40, seed=1):
    """A body of some 300 pixels somewhere in an image, that is always sure."""
    rng = np.random.default_rng(seed)
    pose = rng.uniform(-150, 150, (1, 1, COCO.num_joints, coordinates_of(channels)))
    way = np.cumsum(rng.normal(size=(frames, 1, 1, pose.shape[-1])), axis=0) * 5
    joints = pose + way + rng.normal(size=(frames, 1, *pose.shape[2:])) + 700
    if channels.endswith("c"):
        sure = rng.uniform(0.2, 1, (*joints.shape[:3], 1))
        joints = np.concatenate([joints, sure], axis=-1)
    return joints.astype(np.float32)


def fed(joints, channels, seed=None, wanted="", **settings):
    store = Memory([joints], COCO, channels, num_persons=1)
    settings = {"frames": FRAMES, "feeder": "ntu", "channels": wanted, **settings}
    feed = Feed.from_config(settings, store)
    x = build_batch(store, feed, COCO, seed, [(0, 0)])["x"][0]  # [1, T, V, C]
    assert x.shape == feed.clip_shape(COCO)
    return x


@pytest.mark.parametrize("seed", [None, 3], ids=["test", "train"])
@pytest.mark.parametrize("feeder", FEEDERS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_the_network_gets_the_channels_of_the_clips(channels, feeder, seed):
    x = fed(clip(channels), channels, seed, feeder=feeder, num_persons=0)
    assert x.shape == (1, FRAMES, 17, len(channels)) and np.isfinite(x).all()


@pytest.mark.parametrize("feeder", FEEDERS)
@pytest.mark.parametrize("seed", [None, 3], ids=["test", "train"])
def test_confidence_and_coordinates_are_independent(feeder, seed):
    joints = clip("xyc")
    settings = {"feeder": feeder, "scale": 0.3, "jitter": 0.1, "drop_axis": 1.0}
    x = fed(joints, "xyc", seed, **settings)
    np.testing.assert_array_equal(x[..., :2], fed(joints[..., :2], "xy", seed, **settings))
    steady = joints.copy()
    steady[..., 2] = joints[..., :, 2].mean(axis=(0, 1))  # of each joint at all times
    sure = fed(steady, "xyc", seed, **settings)[0, :, :, 2]
    np.testing.assert_allclose(sure, np.tile(steady[0, 0, :, 2], (FRAMES, 1)), rtol=1e-5)


@pytest.mark.parametrize("stream", STREAMS)
def test_bones_and_motions_are_of_coordinates_alone(stream):
    joints = clip("xyc")
    joint = fed(joints, "xyc")
    x = fed(joints, "xyc", stream=stream)
    np.testing.assert_array_equal(x[..., 2], joint[..., 2])
    np.testing.assert_array_equal(x[..., :2], make_stream(joint[..., :2], stream, COCO))


def test_the_confidence_is_dropped_by_a_setting():
    joints = clip("xyc")
    dropped = fed(joints, "xyc", wanted="xy")
    np.testing.assert_array_equal(dropped, fed(joints[..., :2], "xy"))
    with pytest.raises(UserError, match=r"data.channels=xyzc, but the clips of mine have xyc"):
        fed(joints, "xyc", wanted="xyzc")
    with pytest.raises(UserError, match=r"unknown data.channels 'xyy'"):
        fed(joints, "xyc", wanted="xyy")


@pytest.mark.parametrize("feeder", FEEDERS)
def test_position_and_size_in_the_image_do_not_matter(feeder):
    joints = clip("xy")
    far = (joints / 3 + [100, -40]).astype(np.float32)
    np.testing.assert_allclose(
        fed(far, "xy", feeder=feeder), fed(joints, "xy", feeder=feeder), atol=1e-4
    )


def test_a_flat_body_is_one_long_and_about_its_centre():
    joints = clip("xy", frames=FRAMES)
    x = fed(joints, "xy", test_interval=1.0)
    assert not x[0, 0, COCO.centre].any()
    assert skeleton_size(x.swapaxes(0, 1)) == pytest.approx(1, abs=1e-5)
    kept = fed(joints, "xy", test_interval=1.0, origin="kept")
    np.testing.assert_array_equal(kept[0], joints[:, 0])


@pytest.mark.parametrize("feeder", FEEDERS)
def test_flat_clips_turn_about_the_view_axis_alone(feeder):
    """Turning keeps all distances in the plane, of the box of `nw_ucla` up to its two scales."""
    joints = clip("xy", frames=FRAMES)
    settings = {"feeder": feeder, "rotation": 40.0, "p_interval": (1.0, 1.0), "origin": "kept"}
    angles = []
    for seed in range(20):
        x = fed(joints, "xy", seed, **settings)[0]
        if feeder == "nw_ucla":
            frame = x[0]
            assert np.abs(frame).max() <= 1 + 1e-5
            continue
        before, after = (points[0, 1] - points[0, 0] for points in (joints[:, 0], x))
        assert np.linalg.norm(before) == pytest.approx(np.linalg.norm(after), rel=1e-4)
        turn = np.degrees(np.arctan2(*after[::-1]) - np.arctan2(*before[::-1]))
        angles.append((turn + 180) % 360 - 180)
    if angles:
        assert np.abs(angles).max() <= 40 and np.ptp(angles) > 20


def test_views_of_flat_test_clips_turn_in_the_plane():
    joints = clip("xyc")
    x = change_view(joints, ClipView(degrees=90), None, 2)
    np.testing.assert_allclose(x[..., 0], joints[..., 1], atol=1e-3)
    np.testing.assert_allclose(x[..., 1], -joints[..., 0], atol=1e-3)
    np.testing.assert_array_equal(x[..., 2], joints[..., 2])


def test_a_mirror_exchanges_the_confidence_of_left_and_right_too():
    joints, swap = clip("xyc").swapaxes(0, 1), other_side(COCO)
    feed = Feed(feeder="ntu", channels="xyc")
    x = augment(joints, np.random.default_rng(0), feed, swap)
    np.testing.assert_array_equal(x, joints[:, :, swap] * np.array([-1, 1, 1], np.float32))
    lost = augment(
        joints, np.random.default_rng(0), dataclasses.replace(feed, drop_joints=1.0), swap
    )
    gone = ~lost[..., :2].any(axis=-1)
    assert gone.any() and not lost[..., 2][gone].any()


def test_missing_joints_do_not_stretch_the_box():
    joints = clip("xyc")
    whole = nw_ucla(joints[:, :, 1:], frames=40, coordinates=2)
    joints[:, :, 0] = 0
    x = nw_ucla(joints, frames=40, coordinates=2, masked=True)
    np.testing.assert_array_equal(x[:, :, 1:], whole)
    assert not x[:, :, 0].any()


def test_unknown_shapes_are_told_by_clip():
    with pytest.raises(UserError, match=r"clip0: .* \[frames, persons, 17, 2\]"):
        fed(clip("xyc"), "xy")
