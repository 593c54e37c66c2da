"""The two feeders: the reference's test-mode tensors, and the distributions of training mode."""

import json
import tarfile

import numpy as np
import pytest

from hocslm_jax.data.feeder import Feed
from hocslm_jax.data.sampling import FEEDERS, fit_persons, ntu, nw_ucla
from hocslm_jax.data.streams import make_stream
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, UCLA20

GOLDEN_STREAMS = ("joint", "bone", "joint_motion", "bone_motion")


def noise(frames, persons, joints):
    return np.random.default_rng(0).normal(size=(frames, persons, joints, 3)).astype(np.float32)


def ramp(frames, persons=1, joints=25):
    """Every coordinate of frame t is t + 1."""
    times = np.arange(1, frames + 1, dtype=np.float32)
    return np.broadcast_to(times[:, None, None, None], (frames, persons, joints, 3)).copy()


def fitted(x, persons=2, second_person="zeros"):
    """As the pipeline hands it on, with all persons."""
    out = np.zeros((persons, *x.shape[1:]), np.float32)
    fit_persons(x, out, second_person)
    return out


@pytest.fixture(scope="module")
def ucla_golden(shared):
    """The golden arrays and the raw joints of their clips."""
    golden = np.load(shared / "golden/nw_ucla_test_streams.npz", allow_pickle=False)
    wanted, clips = {str(clip_id) for clip_id in golden["ids"]}, {}
    with tarfile.open(shared / "data/nw_ucla/all_sqe.tar.xz") as tar:
        for member in tar:
            name = member.name.rsplit("/", 1)[-1].removesuffix(".json")
            if name in wanted:
                skeletons = json.load(tar.extractfile(member))["skeletons"]
                clips[name] = np.array(skeletons, np.float32)[:, None]
    return golden, clips


@pytest.mark.parametrize("stream", GOLDEN_STREAMS)
def test_nw_ucla_test_mode_is_the_references(ucla_golden, stream):
    golden, clips = ucla_golden
    for clip_id, wanted in zip(golden["ids"], golden[stream], strict=True):  # wanted: [C, T, V, M]
        x = make_stream(nw_ucla(clips[str(clip_id)]), stream, UCLA20)
        np.testing.assert_allclose(x.transpose(3, 1, 2, 0), wanted, atol=1e-5, err_msg=str(clip_id))


@pytest.mark.parametrize("stream", GOLDEN_STREAMS)
def test_ntu_test_mode_is_the_references(shared, stream):
    golden = np.load(shared / "golden/ntu_test_streams.npz", allow_pickle=False)
    clips = np.load(shared / "golden/ntu_preprocessed.npz", allow_pickle=False)
    for clip_id, wanted in zip(golden["ids"], golden[stream], strict=True):
        rows = clips[str(clip_id)]
        x = fitted(make_stream(ntu(rows.reshape(len(rows), -1, 25, 3)), stream, NTU25))
        np.testing.assert_allclose(x.transpose(3, 1, 2, 0), wanted, atol=1e-5, err_msg=str(clip_id))


@pytest.mark.parametrize("name", FEEDERS)
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 37, 300])
def test_any_length_gives_the_window(name, train, frames):
    clip = noise(frames, 1, 20)
    before = clip.copy()
    rng = np.random.default_rng(0) if train else None
    x = FEEDERS[name](clip, rng, frames=52, num_persons=2)
    assert x.shape == (1, 52, 20, 3)
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(clip, before)


@pytest.mark.parametrize("name", FEEDERS)
def test_absent_second_person(name):
    clip = noise(80, 1, 25)
    x = FEEDERS[name](clip, frames=64, num_persons=2)
    zeros, copy = fitted(x), fitted(x, second_person="copy")
    assert zeros[0].any()
    assert not zeros[1].any()
    np.testing.assert_array_equal(copy, np.stack([zeros[0], zeros[0]]))


@pytest.mark.parametrize("name", FEEDERS)
def test_surplus_persons_are_left_out(name):
    clip = noise(80, 3, 25)
    np.testing.assert_array_equal(
        FEEDERS[name](clip, frames=64, num_persons=2),
        FEEDERS[name](clip[:, :2], frames=64, num_persons=2),
    )


def test_ntu_test_crop_leaves_out_a_fortieth_at_each_end():
    x = ntu(ramp(200), num_persons=1)[0, :, 0, 0]  # margin 5: frames 5..194, values 6..195
    step = 190 / 64
    np.testing.assert_allclose(x, 6 + (np.arange(64) + 0.5) * step - 0.5, atol=1e-4)


def test_ntu_joint_at_the_origin_is_no_empty_frame():
    clip = ramp(100)
    moved = clip.copy()
    moved[60:, :, 0] = 0
    np.testing.assert_array_equal(ntu(moved)[:, :, 1:], ntu(clip)[:, :, 1:])


def test_ntu_ignores_empty_frames_at_the_end():
    clip = ramp(100)
    padded = np.concatenate([clip, np.zeros((50, 1, 25, 3), np.float32)])
    np.testing.assert_array_equal(ntu(padded), ntu(clip))


def ntu_crops(frames, draws=2000):
    """First and last source frame of each training crop, from the norms: rotation keeps them."""
    clip = ramp(frames, joints=1)
    rng = np.random.default_rng(0)
    for _ in range(draws):
        x = ntu(clip, rng, num_persons=1, frames=frames)[0, :, 0]
        value = np.linalg.norm(x, axis=-1) / np.sqrt(3)
        yield value[0] - 1, value[-1] - 1


def test_ntu_training_crop_has_uniform_length_and_start():
    crops = np.array(list(ntu_crops(400)))
    lengths = crops[:, 1] - crops[:, 0] + 1
    assert lengths.min() >= 200 - 1
    assert lengths.max() <= 400
    quarters = np.histogram(lengths, 4, (200, 400))[0] / len(lengths)
    np.testing.assert_allclose(quarters, 0.25, atol=0.05)
    room = 400 - lengths
    places = (crops[:, 0] / np.maximum(room, 1))[room > 20]
    assert places.min() < 0.02
    assert places.max() > 0.98
    np.testing.assert_allclose(np.histogram(places, 4, (0, 1))[0] / len(places), 0.25, atol=0.05)


def test_ntu_never_crops_below_the_window_of_64():
    lengths = [last - first + 1 for first, last in ntu_crops(90, draws=400)]
    assert min(lengths) == pytest.approx(64, abs=0.5)
    whole = np.array(list(ntu_crops(50, draws=50)))
    np.testing.assert_allclose(whole, [[0, 49]] * 50, atol=1e-3)


def test_ntu_crop_starts_at_every_possible_frame():
    starts = np.bincount([round(first) for first, _ in ntu_crops(66, draws=3000)]) / 3000
    # 97 of 100 draws keep 64 frames, with three equally likely starts; the rest 65, with two.
    np.testing.assert_allclose(starts, [0.338, 0.338, 0.323], atol=0.03)


def test_ntu_rotates_the_whole_clip_by_bounded_angles():
    clip, rng = noise(20, 2, 25), np.random.default_rng(0)
    still = ntu(clip, frames=20, test_interval=1.0)
    found = []
    for _ in range(300):
        turned = ntu(clip, rng, frames=20)
        matrix = np.linalg.lstsq(still.reshape(-1, 3), turned.reshape(-1, 3), rcond=None)[0].T
        np.testing.assert_allclose(still @ matrix.T, turned, atol=1e-4)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-4)
        # The angles of Rz Ry Rx acting on columns; in another order they would leave the bound.
        x, z = np.arctan2(-matrix[2, 1], matrix[2, 2]), np.arctan2(-matrix[1, 0], matrix[0, 0])
        found.append((x, np.arcsin(matrix[2, 0]), z))
    assert np.abs(found).max() <= 0.3 + 1e-4
    np.testing.assert_allclose(np.abs(found).max(axis=0), 0.3, atol=0.01)


@pytest.mark.parametrize("train", [False, True])
def test_nw_ucla_fills_the_box_on_every_axis(train):
    rng = np.random.default_rng(0) if train else None
    clip = noise(30, 1, 20)
    x = nw_ucla(clip, rng, frames=2000)  # enough draws to meet every frame
    np.testing.assert_allclose(x.min(axis=(0, 1, 2)), -1, atol=1e-5)
    np.testing.assert_allclose(x.max(axis=(0, 1, 2)), 1, atol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_nw_ucla_ignores_place_and_size(train):
    clip = noise(30, 1, 20)
    moved = clip * 1.7 + np.array([3, -2, 5], np.float32)
    seeds = [np.random.default_rng(5) if train else None for _ in range(2)]
    np.testing.assert_allclose(nw_ucla(clip, seeds[0]), nw_ucla(moved, seeds[1]), atol=1e-4)


def test_nw_ucla_flat_axis_becomes_zero_not_nan():
    clip = noise(30, 1, 20)
    clip[..., 2] = 2.5
    x = nw_ucla(clip)
    assert np.isfinite(x).all()
    assert not x[..., 2].any()
    assert x[..., :2].max() == pytest.approx(1)


def picked_frames(length, frames, rng):
    """The source frames of one draw: the joints walk along z, which no view turns around."""
    clip = np.zeros((length, 1, 20, 3), np.float32)
    clip[..., 2] = np.arange(length)[:, None, None]
    z = nw_ucla(clip, rng, frames=frames)[0, :, 0, 2]
    exact = (z + 1) / 2 * (length - 1)
    np.testing.assert_allclose(exact, np.round(exact), atol=1e-3)
    return np.round(exact).astype(int)


@pytest.mark.parametrize("length", [1, 20, 52, 201])
def test_nw_ucla_test_frames_are_evenly_spaced(length):
    wanted = np.floor(np.linspace(0, length - 1, 52)).astype(int)
    np.testing.assert_array_equal(picked_frames(length, 52, None), wanted)


def test_nw_ucla_training_frames_are_sorted_uniform_draws():
    rng = np.random.default_rng(0)
    draws = np.array([picked_frames(20, 52, rng) for _ in range(400)])
    assert (np.diff(draws, axis=1) >= 0).all()
    share = np.bincount(draws.ravel(), minlength=20) / draws.size
    np.testing.assert_allclose(share, 1 / 20, atol=0.006)
    repeats = np.array([np.bincount(draw, minlength=20).max() for draw in draws])
    assert repeats.max() > 4  # drawn, not dealt out evenly


def test_nw_ucla_draws_a_frame_at_most_a_hundred_times():
    rng = np.random.default_rng(0)
    assert np.bincount(picked_frames(2, 200, rng)).tolist() == [100, 100]


def box(points):
    """[..., N, 3] with each axis stretched to [-1, 1]."""
    low, high = points.min(axis=-2, keepdims=True), points.max(axis=-2, keepdims=True)
    return (points - low) / (high - low) * 2 - 1


def test_nw_ucla_view_is_a_whole_degree_turn_of_the_rows():
    clip = noise(1, 1, 20)
    c, s = np.cos(np.radians(np.arange(-60, 61))), np.sin(np.radians(np.arange(-60, 61)))
    one, zero = np.ones_like(c), np.zeros_like(c)
    about_x = np.array([[one, zero, zero], [zero, c, s], [zero, -s, c]]).transpose(2, 0, 1)
    about_y = np.array([[c, zero, -s], [zero, one, zero], [s, zero, c]]).transpose(2, 0, 1)
    views = box(clip[0, 0] @ (about_y[:, None] @ about_x).reshape(-1, 3, 3))  # [121 * 121, V, 3]
    for seed in range(5):
        x = nw_ucla(clip, np.random.default_rng(seed))[0, 0]
        assert np.abs(views - x).max(axis=(1, 2)).min() < 1e-4


def test_nw_ucla_views_change_the_clip_beyond_the_frames_drawn():
    clip = noise(1, 1, 20)  # one frame: only the rotation can differ
    first, second = (nw_ucla(clip, np.random.default_rng(seed)) for seed in (0, 1))
    assert np.abs(first - second).max() > 0.1
    np.testing.assert_array_equal(first[:, 0], first[:, -1])


def test_nw_ucla_rotation_sets_the_bound_of_the_views():
    clip = noise(30, 1, 20)
    still = nw_ucla(clip, np.random.default_rng(0), frames=30, rotation=0)
    plain = {frame.tobytes() for frame in nw_ucla(clip, frames=30)[0]}
    assert {frame.tobytes() for frame in still[0]} <= plain
    bounds = [nw_ucla(clip, np.random.default_rng(0), rotation=r).tobytes() for r in (60, 90)]
    assert nw_ucla(clip, np.random.default_rng(0)).tobytes() == bounds[0] != bounds[1]


def test_ntu_rotation_is_in_degrees():
    clip = noise(64, 1, 25)
    still = ntu(clip, np.random.default_rng(0), rotation=0)
    np.testing.assert_allclose(still[0], clip[:, 0], atol=1e-6)
    default = ntu(clip, np.random.default_rng(0))
    np.testing.assert_array_equal(
        default, ntu(clip, np.random.default_rng(0), rotation=np.degrees(0.3))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feeder": "nwucla"}, r"'nwucla'; did you mean 'nw_ucla'"),
        ({"stream": "bones"}, r"'bones'; did you mean 'bone'"),
        ({"second_person": "zero"}, r"did you mean 'zeros'"),
        ({"frames": 0}, r"data.frames must be at least 1, got 0"),
        ({"repeat": 0}, r"data.repeat"),
        ({"num_persons": 0}, r"data.num_persons"),
        ({"drop_axis": 1.5}, r"data.drop_axis must be between 0 and 1, got 1.5"),
        ({"drop_joints": -0.1}, r"data.drop_joints"),
        ({"p_interval": (0.9, 0.5)}, r"data.p_interval"),
        ({"test_interval": 0.0}, r"data.test_interval"),
    ],
)
def test_feed_refuses_what_makes_no_sense(change, message):
    with pytest.raises(UserError, match=message):
        Feed(**change)


def test_feed_reads_a_config():
    config = {"dataset": "nw_ucla", "stream": "k2", "repeat": 5, "threads": 2, "graph": ""}
    assert Feed.from_config(config) == Feed(stream="k2", repeat=5)
