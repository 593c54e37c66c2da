"""Windows of a long recording, and the segments that their classes make."""

import itertools

import numpy as np
import pytest

from benchmarks.follow import merged, recording, segment_f1
from hocslm_jax.predict.timeline import LAG, Segment, Timeline, scenes, windows

BODY = np.arange(12, dtype=np.float32).reshape(1, 4, 3) / 10
NOBODY = np.zeros((0, 4, 3), np.float32)


def spans(frames, length=8, hop=4):
    return [[window[:2] for window in windows(scene, length, hop)] for scene in scenes(frames)]


def test_windows_come_every_hop_and_at_the_end():
    frames = enumerate([BODY] * 18)
    assert spans(frames) == [[(0, 4), (0, 8), (4, 12), (8, 16), (10, 18)]]


@pytest.mark.parametrize("count", [1, 3])
def test_a_short_recording_is_one_window(count):
    assert spans(enumerate([BODY] * count)) == [[(0, count)]]
    assert spans(enumerate([NOBODY] * count)) == spans([]) == []


def test_jump_and_long_absence_end_a_scene():
    frames = [BODY] * 5 + [NOBODY] * 3 + [BODY] * 5 + [BODY + 9] * 2 + [NOBODY] * 20 + [BODY] * 2
    assert spans(enumerate(frames), 16, 16) == [[(0, 13)], [(13, 15)], [(35, 37)]]
    alone = [BODY] * 3 + [NOBODY] * 30
    assert spans(enumerate(alone), 16, 16) == [[(0, 3)]]


def test_skipped_frame_numbers_are_empty_frames():
    assert spans([(3, BODY), (5, BODY), (40, BODY)], 16, 16) == [[(3, 6)], [(40, 41)]]


def test_persons_who_come_and_go_are_zeros():
    pair = np.concatenate([BODY, BODY + 1])
    (window,) = windows(enumerate([BODY, pair, BODY]), 8, 8)
    assert window.joints.shape == (3, 2, 4, 3)
    np.testing.assert_array_equal(window.joints[:, 1], [BODY[0] * 0, BODY[0] + 1, BODY[0] * 0])


def test_frames_are_taken_only_when_they_are_needed():
    taken = []
    frames = ((taken.append(n), (n, BODY))[1] for n in itertools.count())
    endless = windows(next(scenes(frames)), 8, 4)
    next(endless)
    assert len(taken) == 4
    next(endless)
    assert len(taken) == 8


def shares(label, sure=0.9, classes=3):
    p = np.full(classes, (1 - sure) / (classes - 1))
    p[label] = sure
    return p


def segments(labels, length=16, hop=4, **options):
    """Of windows at every hop, each of the class of its middle frame; memory must stay small."""
    timeline, found = Timeline(length, hop, **options), []
    for end in range(hop, len(labels) + 1, hop):
        start = max(0, end - length)
        found += timeline.add(start, end, shares(labels[(start + end) // 2]))
        assert len(timeline.steps) <= LAG and len(timeline.open) <= length // hop + 1
    return found + list(timeline.finish())


def test_segments_are_where_the_class_changes():
    found = segments([0] * 60 + [2] * 40 + [1] * 80)
    assert [segment.label for segment in found] == [0, 2, 1]
    assert found[0].start == 0 and found[-1].end == 180
    for one, other in itertools.pairwise(found):
        assert one.end == other.start
    assert abs(found[0].end - 60) <= 4 and abs(found[1].end - 100) <= 4
    assert all(0.5 < segment.score <= 1 for segment in found)


def test_one_doubtful_window_makes_no_segment():
    assert [s.label for s in segments([0] * 60 + [1] * 3 + [0] * 60)] == [0]
    assert len(segments([0, 1] * 200, switch=1e9)) == 1


def test_a_segment_is_told_soon_after_it_is_over():
    timeline = Timeline(16, 4)
    for end in range(4, 400, 4):
        label = 0 if end < 100 else 1
        if found := list(timeline.add(max(0, end - 16), end, shares(label, 0.99))):
            assert found[0].label == 0 and end < 100 + 5 * 16
            return
    raise AssertionError("never told")


def test_a_very_long_action_is_one_segment():
    (found,) = segments([1] * 4000)
    assert found[:3] == (0, 4000, 1) and found.score == pytest.approx(0.9, abs=0.01)


def test_a_recording_without_windows_has_no_segments():
    assert list(Timeline(8, 4).finish()) == []


def test_f1_counts_each_true_segment_once():
    true = [Segment(0, 10, 0, 1), Segment(10, 20, 1, 1), Segment(20, 30, 0, 1)]
    assert segment_f1(true, true) == (1.0, 3)
    twice = [Segment(0, 6, 0, 1), Segment(4, 10, 0, 1)]
    assert segment_f1(twice, true[:1]) == (pytest.approx(2 / 3), 1)
    assert segment_f1([Segment(0, 10, 1, 1)], true[:1]) == (0, 0)
    assert segment_f1([Segment(0, 21, 0, 1)], true[:1]) == (0, 0), "it overlaps by 10 / 21"
    assert segment_f1([], true) == (0, 0)


def test_neighbours_of_one_class_are_one_segment():
    parts = [Segment(0, 5, 0, 1), Segment(5, 9, 0, 1), Segment(9, 12, 1, 1), Segment(14, 15, 1, 1)]
    assert [s[:3] for s in merged(parts)] == [(0, 9, 0), (9, 12, 1), (14, 15, 1)]


def test_joined_clips_continue_at_the_last_position():
    clips = [np.full((4, 1, 2, 3), v, np.float32) for v in (0, 7)]
    frames, true = recording(clips, [0, 1], 0, joined=True)
    assert not frames.any() and [s[:3] for s in true] == [(0, 4, 0), (4, 8, 1)]
    assert recording(clips, [0, 0], 0, joined=False)[0][4:].min() == 7
