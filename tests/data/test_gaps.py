"""Missing joints and frames: what is filled, and that nothing else changes."""

import numpy as np
import pytest

from hocslm_jax.data.gaps import fill_gaps, mark_missing


def way(values):
    """One joint of one person on a line, [T, 1, 1, 1]."""
    return np.array(values, np.float32)[:, None, None, None]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([0, np.nan, 2], [0, 1, 2]),
        ([1, np.nan, np.nan, 7], [1, 3, 5, 7]),
        ([np.nan, np.nan, 5, 6], [5, 5, 5, 6]),  # held at the start
        ([5, 6, np.nan], [5, 6, 6]),  # and at the end
        ([1, np.nan, np.nan, np.nan, 5], [1, np.nan, np.nan, np.nan, 5]),  # too long
        ([np.nan, np.nan, np.nan, 5], [np.nan, np.nan, np.nan, 5]),
        ([5, np.nan, np.nan, np.nan], [5, np.nan, np.nan, np.nan]),
        ([np.nan, np.nan], [np.nan, np.nan]),  # never seen
        ([1, np.nan, 3, np.nan, np.nan, np.nan, 3], [1, 2, 3, np.nan, np.nan, np.nan, 3]),
    ],
)
def test_gaps_of_up_to_two_frames(before, after):
    filled, missing = fill_gaps(way(before), longest=2)
    np.testing.assert_allclose(filled, way(after))
    np.testing.assert_array_equal(missing[:, 0, 0], np.isnan(after))


def test_zero_fills_nothing():
    filled, missing = fill_gaps(way([1, np.nan, 3]), longest=0)
    assert np.isnan(filled[1]).all() and missing[1].all()


@pytest.mark.parametrize("empty", [slice(0, 20), slice(15, 35), slice(30, 50), slice(0, 0)])
def test_frames_without_anybody_lose_nothing_else(empty):
    joints = np.random.default_rng(0).normal(size=(50, 2, 5, 3)).astype(np.float32)
    damaged = joints.copy()
    damaged[empty] = np.nan
    filled, missing = fill_gaps(damaged, longest=10)
    np.testing.assert_array_equal(np.delete(filled, empty, 0), np.delete(joints, empty, 0))
    assert missing[empty].all() and not np.delete(missing, empty, 0).any()


def test_one_lost_coordinate_is_a_lost_joint():
    joints = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
    damaged = joints.copy()
    damaged[2, 0, 0, 1] = np.nan
    np.testing.assert_allclose(fill_gaps(damaged)[0], joints)
    assert np.isnan(damaged[2, 0, 0, 1])  # the argument is left alone


def test_what_means_missing():
    joints = np.ones((3, 1, 2, 2), np.float32)
    joints[0, 0, 0] = 0
    joints[1, 0, 0] = (0, 1)
    joints[2, 0, 1] = np.inf
    lost = np.isnan(mark_missing(joints, value=0)).all(axis=-1)
    assert np.argwhere(lost).tolist() == [[0, 0, 0], [2, 0, 1]]
    confidence = np.full((3, 1, 2), 0.5)
    confidence[1, 0, 1], confidence[2, 0, 0] = 0.1, np.nan
    lost = np.isnan(mark_missing(joints, confidence=confidence, least=0.2)).all(axis=-1)
    assert np.argwhere(lost).tolist() == [[1, 0, 1], [2, 0, 0], [2, 0, 1]]
