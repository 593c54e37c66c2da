"""Random changes of a clip: what they may touch, how often, and that they never write in place."""

import math

import numpy as np
import pytest

from hocslm_jax.data.augment import (
    drop_axis,
    drop_joints,
    random_rotation,
    random_view,
    rotation,
)

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


def test_drop_joints_takes_all_of_a_clip_smaller_than_the_draw():
    tiny = np.ones((1, 3, 2, 3), np.float32)
    assert not drop_joints(tiny, np.random.default_rng(0), 1.0).any()
