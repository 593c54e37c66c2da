"""InfoGCN's orientation step: what it changes, and what it keeps."""

import numpy as np
import pytest

from hocslm_jax.data.augment import random_rotation
from hocslm_jax.data.prepare.ntu.bodies import BASE_OF_SPINE, LEFT_HIP, MID_SPINE, RIGHT_HIP, align


@pytest.fixture
def joints():
    """[T, M, 25, 3] in general position."""
    return np.random.default_rng(0).normal(size=(6, 2, 25, 3)).astype(np.float32)


def spine(pose):
    return pose[..., MID_SPINE, :] - pose[..., BASE_OF_SPINE, :]


def hips(pose):
    return pose[..., LEFT_HIP, :] - pose[..., RIGHT_HIP, :]


def distances(joints):
    return np.linalg.norm(joints[..., :, None, :] - joints[..., None, :, :], axis=-1)


def handedness(pose):
    """Sign of the volume that three fixed bones span."""
    return np.sign(np.linalg.det(pose[..., [3, 7, 11], :] - pose[..., [20], :]))


@pytest.mark.parametrize("mirror", [True, False])
def test_spine_is_up_and_hips_are_across_in_frame_0(joints, mirror):
    first = align(joints, mirror=mirror)[0]  # [M, V, 3]
    np.testing.assert_allclose(spine(first)[:, :2], 0, atol=1e-5)
    np.testing.assert_allclose(hips(first)[:, 1], 0, atol=1e-5)
    assert (spine(first)[:, 2] > 0).all() and (hips(first)[:, 0] > 0).all()


@pytest.mark.parametrize("mirror", [True, False])
def test_lengths_angles_and_the_origin_stay(joints, mirror):
    aligned = align(joints, mirror=mirror)
    assert aligned.dtype == np.float32 and aligned.shape == joints.shape
    np.testing.assert_allclose(distances(aligned), distances(joints), atol=1e-5)
    norms = np.linalg.norm(joints, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(aligned, axis=-1), norms, atol=1e-5)
    sign = -1 if mirror else 1
    np.testing.assert_array_equal(handedness(aligned), sign * handedness(joints))


@pytest.mark.parametrize("mirror", [True, False])
def test_initial_orientation_does_not_matter(joints, mirror):
    turned = joints @ random_rotation(np.random.default_rng(1)).T
    expected = align(joints, mirror=mirror)
    np.testing.assert_allclose(align(turned, mirror=mirror), expected, atol=1e-5)
    np.testing.assert_allclose(align(expected, mirror=False), expected, atol=1e-5)


def test_persons_are_turned_apart_from_each_other(joints):
    expected = align(joints)
    for person in (0, 1):
        np.testing.assert_array_equal(align(joints[:, [person]])[:, 0], expected[:, person])


def test_one_turn_for_all_frames(joints):
    steps = np.einsum("tmvc,tmvd->tmcd", joints, align(joints))  # X^T X R: gives R back
    grams = np.einsum("tmvc,tmvd->tmcd", joints, joints)
    turns = np.linalg.solve(grams, steps)
    np.testing.assert_allclose(turns, np.broadcast_to(turns[:1], turns.shape), atol=1e-4)


def test_absent_persons(joints):
    joints[3:, 0] = 0  # leaves
    joints[:2, 1] = 0  # comes late
    aligned = align(joints)
    assert not aligned[3:, 0].any() and aligned[:3, 0].all()
    assert not aligned[:, 1].any()
    kept = align(joints, drop_late=False)
    np.testing.assert_array_equal(kept[:, 0], aligned[:, 0])
    np.testing.assert_array_equal(kept[2:, 1], align(joints[2:])[:, 1])
    assert not kept[:2, 1].any()
    assert not align(np.zeros_like(joints), drop_late=False).any()


@pytest.mark.parametrize("case", ["spine", "hips"])
def test_no_direction(joints, case):
    if case == "spine":
        joints[0, 0, MID_SPINE] = joints[0, 0, BASE_OF_SPINE]
    else:
        joints[0, 0, LEFT_HIP] = joints[0, 0, RIGHT_HIP] + 2 * spine(joints[0, 0])
    with pytest.raises(ValueError, match="no orientation"):
        align(joints)


def test_real_clips_stand_upright(shared):
    golden = np.load(shared / "golden/ntu_preprocessed.npz")
    rows = golden["S001C001P001R001A050"]
    joints = rows.reshape(len(rows), -1, 25, 3)
    aligned = align(joints)
    head = aligned[0, :, 3] - aligned[0, :, BASE_OF_SPINE]
    assert (head[:, 2] > 0.3).all()  # metres above the base of the spine
    np.testing.assert_allclose(distances(aligned), distances(joints), atol=1e-5)
