"""Selecting, denoising and translating bodies: equal to the reference, and every switch."""

import dataclasses

import numpy as np
import pytest
from skeleton_files import body, sample, write

from hocslm_jax.data.prepare.ntu.bodies import COMPAT, Compat, actors, align
from hocslm_jax.data.prepare.ntu.skeleton import parse_skeleton


def act(frames, **switches):
    return actors(parse_skeleton(write(frames)), Compat(**switches))


def test_equal_to_the_reference(shared):
    files = sample(shared)
    with np.load(shared / "golden/ntu_preprocessed.npz", allow_pickle=False) as golden:
        for name in golden.files:
            joints, expected = actors(parse_skeleton(files[name])), golden[name]
            assert joints.dtype == expected.dtype == np.float32
            np.testing.assert_array_equal(joints.reshape(len(joints), -1), expected, name)
        assert len(golden.files) == 507
        others = set(files) - set(golden.files)
    for name in others:
        with pytest.raises(ValueError):
            actors(parse_skeleton(files[name]))


def test_one_body_is_centred_and_never_denoised():
    a = np.float32(body(1, 3) * (9, 1, 1))  # wider than high
    joints = act([{1: pose} for pose in a])
    np.testing.assert_array_equal(joints[:, 0], a - a[0, 1])
    assert joints.shape == (3, 1, 25, 3)


def test_short_bodies_go():
    a, b = body(1, 30), body(2, 11)
    frames = [{1: a[t]} | ({2: b[t]} if t < 11 else {}) for t in range(30)]
    assert act(frames).shape == (30, 1, 25, 3)
    assert act(frames, min_frames=11).shape == (30, 2, 25, 3)


def test_wide_bodies_go():
    a, b = body(1), body(2)
    b[: round(0.7 * len(b))] *= (9, 1, 1)
    frames = [{1: a[t], 2: b[t]} for t in range(20)]
    assert act(frames).shape[1] == 1
    assert act(frames, max_noise=0.71).shape[1] == 2
    assert act(frames, max_spread=9).shape[1] == 2


def test_noise_does_not_count_as_motion():
    a, b = np.float32(body(1) * (1, 1.2, 1)), body(2)
    b[:5] *= (9, 1, 1)
    joints = act([{1: a[t], 2: b[t]} for t in range(20)])
    np.testing.assert_array_equal(joints[:, 0], a - a[0, 1])


def test_most_motion_first():
    a, b = body(1), np.float32(body(2) * (1, 2, 1))
    joints = act([{1: a[t], 2: b[t]} for t in range(20)])
    np.testing.assert_array_equal(joints[:, 0], b - b[0, 1])
    np.testing.assert_array_equal(joints[:, 1], a - b[0, 1])


def test_no_usable_body():
    a, b = body(1, 10), body(2, 10)
    with pytest.raises(ValueError, match="no body is seen in 12 frames"):
        act([{1: pose} for pose in a] + [{2: pose} for pose in b])


def test_bodies_in_turn_share_a_place():
    a, b = body(1) * 2, body(2)
    joints = act([{1: pose} for pose in a] + [{2: pose} for pose in b])
    assert joints.shape == (40, 2, 25, 3) and not joints[:, 1].any()
    np.testing.assert_array_equal(joints[:, 0], np.concatenate([a, b]) - a[0, 1])


def test_second_from_zero():
    """Actor 2 comes late; the third body was there before him but for two frames."""
    a, b, c = body(1, 60) * 4, body(2, 30) * 2, body(3, 28)
    frames = [{1: a[t]} | ({3: c[t]} if t < 28 else {}) | ({2: b[t - 30]} if t >= 30 else {})
              for t in range(60)]  # fmt: skip
    assert not act(frames)[:28, 1].any()
    np.testing.assert_array_equal(act(frames, second_from_zero=False)[:28, 1], c - a[0, 1])


def test_close_gaps():
    a, b = body(1, 40) * 2, body(2, 40)
    frames = [{1: a[t]} | ({} if 15 <= t < 20 else {2: b[t]}) for t in range(40)]
    closed, true = act(frames)[:, 1], act(frames, close_gaps=False)[:, 1]
    moved = b - a[0, 1]
    np.testing.assert_array_equal(closed[15:35], moved[20:])
    np.testing.assert_array_equal(true[20:], moved[20:])
    assert not closed[35:].any() and not true[15:20].any()


def test_zero_by_sum():
    """A person whose coordinates cancel is taken for absent, unless all of them are looked at."""
    a, b = body(1) * 2, body(2)
    b[5] = 0
    b[5, 0], b[5, 1] = 1, -1
    frames = [{1: a[t], 2: b[t]} for t in range(20)]
    assert not act(frames)[5, 1].any()
    np.testing.assert_array_equal(act(frames, zero_by_sum=False)[5, 1], b[5] - a[0, 1])


def test_shift_empty():
    a = body(1)
    a[5] = 0
    frames = [{1: pose} for pose in a]
    np.testing.assert_array_equal(act(frames)[5, 0], np.tile(-a[0, 1], (25, 1)))
    assert not act(frames, shift_empty=False)[5].any()


def test_align():
    frames = [{1: pose} for pose in body(1)]
    turned = act(frames, align=True)
    np.testing.assert_array_equal(turned, align(act(frames)))
    assert not np.array_equal(turned, act(frames))


def test_a_body_twice_in_a_frame():
    lines = write([{1: pose} for pose in body(1, 12)]).split(b"\n")
    lines[1:-1] = [b"2", *lines[2:29], *lines[2:29]] * 12
    with pytest.raises(ValueError, match="body 1 is there more than once"):
        actors(parse_skeleton(b"\n".join(lines)))


def test_beyond_float32():
    a = body(1)
    a[0, 1], a[3] = 3e38, -3e38
    with pytest.raises(ValueError, match="not finite once centred"):
        act([{1: pose} for pose in a])


def test_defaults_are_the_references():
    assert dataclasses.replace(COMPAT["ntu120"], second_person="zeros") == COMPAT["ntu60"]
    assert (COMPAT["ntu60"].second_person, COMPAT["ntu120"].second_person) == ("zeros", "copy")
