"""Augmentation: what it changes, how often, and never in place."""

import math

import numpy as np
import pytest

from hocslm_jax.data.augment import (
    ClipView,
    augment,
    change_view,
    drop_axis,
    drop_joints,
    mirror,
    random_crop,
    random_rotation,
    random_view,
    rotation,
    views_of,
)
from hocslm_jax.data.pipeline import Feed
from hocslm_jax.graph import UCLA20, other_side

ONES = np.ones((2, 52, 20, 3), np.float32)
ONES.flags.writeable = False  # an in-place change would raise


def test_rotation_is_rz_ry_rx_with_ctr_gcn_signs():
    c, s = math.cos(0.3), math.sin(0.3)
    np.testing.assert_allclose(rotation(0.3, 0, 0), [[1, 0, 0], [0, c, s], [0, -s, c]], atol=1e-7)
    np.testing.assert_allclose(rotation(0, 0.3, 0), [[c, 0, -s], [0, 1, 0], [s, 0, c]], atol=1e-7)
    np.testing.assert_allclose(rotation(0, 0, 0.3), [[c, s, 0], [-s, c, 0], [0, 0, 1]], atol=1e-7)
    product = rotation(0, 0, 0.5) @ rotation(0, 0.4, 0) @ rotation(0.3, 0, 0)
    np.testing.assert_allclose(rotation(0.3, 0.4, 0.5), product, atol=1e-6)


def angles(matrix):
    """(x, y, z) of Rz Ry Rx: the last column of Ry Rx and the first of Rz Ry give them back."""
    y = math.asin(matrix[2, 0])
    return math.atan2(-matrix[2, 1], matrix[2, 2]), y, math.atan2(-matrix[1, 0], matrix[0, 0])


def test_angles_reads_back_what_rotation_was_given():
    np.testing.assert_allclose(angles(rotation(0.1, -0.2, 0.3)), (0.1, -0.2, 0.3), atol=1e-6)


def test_random_rotation_angles_are_independent_uniform_within_the_bound():
    rng = np.random.default_rng(0)
    drawn = np.array([angles(random_rotation(rng)) for _ in range(3000)])
    assert np.abs(drawn).max() <= 0.3 + 1e-6
    quarters = np.stack([np.histogram(a, 4, (-0.3, 0.3))[0] for a in drawn.T]) / 3000
    np.testing.assert_allclose(quarters, 0.25, atol=0.04)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(3), atol=0.08)


def test_random_view_turns_by_whole_degrees_up_to_sixty_about_x_and_y():
    rng = np.random.default_rng(0)
    degrees = np.degrees([angles(random_view(rng)) for _ in range(3000)])
    np.testing.assert_allclose(degrees, np.round(degrees), atol=1e-3)
    assert np.round(degrees[:, :2].min(0)).tolist() == [-60, -60]
    assert np.round(degrees[:, :2].max(0)).tolist() == [60, 60]
    np.testing.assert_allclose(degrees[:, 2], 0, atol=1e-3)


def test_drop_axis_zeroes_one_whole_axis_uniformly():
    rng = np.random.default_rng(0)
    gone = np.zeros(3)
    for _ in range(600):
        lost = (drop_axis(ONES, rng, 1.0) == 0).all(axis=(0, 1, 2))
        assert lost.sum() == 1
        gone += lost
    np.testing.assert_allclose(gone / 600, 1 / 3, atol=0.07)


def test_drop_joints_zeroes_a_joint_by_frame_block_for_every_person():
    rng = np.random.default_rng(0)
    joints, frames = set(), set()
    for _ in range(600):
        lost = drop_joints(ONES, rng, 1.0) == 0
        block = lost[0, :, :, 0]
        assert (lost == block[None, :, :, None]).all()
        rows, columns = block.any(axis=1), block.any(axis=0)
        assert (block == np.outer(rows, columns)).all()
        frames.add(int(rows.sum()))
        joints.add(int(columns.sum()))
    assert joints == set(range(4, 13))
    assert frames == set(range(16, 33))


@pytest.mark.parametrize("augmentation", [drop_axis, drop_joints])
def test_probability_is_met(augmentation):
    rng = np.random.default_rng(0)
    changed = np.mean([(augmentation(ONES, rng, 0.3) == 0).any() for _ in range(1500)])
    assert changed == pytest.approx(0.3, abs=0.04)
    assert augmentation(ONES, rng, 0.0) is ONES


def test_drop_joints_on_a_small_clip_drops_everything():
    tiny = np.ones((1, 3, 2, 3), np.float32)
    assert not drop_joints(tiny, np.random.default_rng(0), 1.0).any()


SWAP = other_side(UCLA20)


def test_mirror_negates_x_and_exchanges_the_sides():
    x = np.random.default_rng(0).normal(size=(1, 4, 20, 3)).astype(np.float32)
    seen = mirror(x, SWAP)
    left, right = UCLA20.joints.index("left hand"), UCLA20.joints.index("right hand")
    np.testing.assert_array_equal(seen[..., left, :], x[..., right, :] * [-1, 1, 1])
    np.testing.assert_array_equal(mirror(seen, SWAP), x)


def test_random_crop_loses_up_to_its_share_at_the_ends():
    clip = np.arange(100, dtype=np.float32)[:, None, None, None]
    rng = np.random.default_rng(0)
    crops = [random_crop(clip, rng, 0.4)[:, 0, 0, 0] for _ in range(2000)]
    assert all((np.diff(crop) == 1).all() for crop in crops)
    lengths = np.array([len(crop) for crop in crops])
    assert (lengths.min(), lengths.max()) == (61, 100) and abs(lengths.mean() - 80.5) < 1
    assert min(crop[0] for crop in crops) == 0 and max(crop[-1] for crop in crops) == 99
    assert random_crop(clip, rng, 0.0) is clip
    assert len(random_crop(clip[:5], rng, 0.9)) == 5


def test_scale_stretches_each_axis_and_jitter_moves_each_joint():
    rng = np.random.default_rng(0)
    scaled = [augment(ONES, rng, Feed(scale=0.2), None) for _ in range(500)]
    assert all((x == x[0, 0, 0]).all() for x in scaled)
    factors = np.array([x[0, 0, 0] for x in scaled])
    assert 0.8 <= factors.min() < 0.81 and 1.19 < factors.max() <= 1.2
    assert (np.abs(np.corrcoef(factors.T) - np.eye(3)) < 0.15).all()
    clip = ONES.copy()
    clip[1, :10] = 0  # the second person comes late
    moved = augment(clip, rng, Feed(jitter=0.05), None)
    assert moved.dtype == np.float32 and (moved[1, :10] == 0).all()
    np.testing.assert_allclose((moved[0] - 1).std(), 0.05, rtol=0.05)


def test_disabled_options_do_not_change_other_draws():
    feed = Feed(drop_axis=0.5, drop_joints=0.5)
    for seed in range(20):
        x = drop_axis(ONES, rng := np.random.default_rng(seed), 0.5)
        wanted = drop_joints(x, rng, 0.5)
        found = augment(ONES, np.random.default_rng(seed), feed, None)
        np.testing.assert_array_equal(found, wanted)


def test_views_are_all_combinations_with_the_plain_clip():
    assert views_of(1, 30.0, 1, False) == (ClipView(),)
    views = views_of(3, 30.0, 2, True)
    assert len(set(views)) == 12
    assert {view.degrees for view in views} == {-30, 0, 30}
    assert {round(view.start, 6) for view in views} == {0, 0.2}
    clip = np.random.default_rng(0).normal(size=(50, 2, 20, 3)).astype(np.float32)
    np.testing.assert_array_equal(change_view(clip, ClipView(), None), clip)


def test_look_turns_about_the_vertical_and_crops():
    clip = np.random.default_rng(0).normal(size=(50, 2, 20, 3)).astype(np.float32)
    clip[:, 1] = 0
    turned = change_view(clip, ClipView(degrees=90), None)
    np.testing.assert_allclose(turned[..., 1], clip[..., 1], atol=1e-6)
    np.testing.assert_allclose(np.abs(turned[..., 0]), np.abs(clip[..., 2]), atol=1e-6)
    assert not turned[:, 1].any()
    np.testing.assert_array_equal(
        change_view(clip, ClipView(start=0.2, length=0.8), None), clip[10:]
    )
    np.testing.assert_array_equal(
        change_view(clip, ClipView(mirrored=True), SWAP), mirror(clip, SWAP)
    )
    assert len(change_view(clip[:3], ClipView(start=0.2, length=0.8), None)) == 3
