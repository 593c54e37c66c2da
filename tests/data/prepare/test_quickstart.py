"""The generated dataset: deterministic, anatomically sound, learnable, and free of leaks."""

import re

import numpy as np
import pytest

from hocslm_jax.data.prepare.quickstart import CLASSES, TRAIN_SUBJECTS, clip, clips
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25

TWO_PERSON = {"shake hands", "push another person", "punch another person"}
MOTION = re.compile(
    r"\b(rais|lift|lower|drop|bend|bring|brought|wave|sway|pull|throw|pick|reach|stoop|sits|stands"
    r"|clap|kick|draw|jump|crouch|swing|bow|tip|shake|stretch|mov|push|shov|punch|join|answer|hold"
    r"|keep|lean|mak|driv)\w*"
)
BODY_PART = re.compile(r"\b(hand|arm|elbow|head|knee|trunk|waist|hip|foot|feet|leg|body|fist)")


@pytest.fixture(scope="module")
def dataset():
    return list(clips(seed=0))


def clips_of(name, count, **options):
    """The first `count` clips of one class."""
    return [clip(0, CLASSES.index(name) + len(CLASSES) * k, **options) for k in range(count)]


def bone_lengths(joints):
    """[T, M, 24] metres."""
    child, parent = np.array(NTU25.edges).T
    return np.linalg.norm(joints[:, :, child] - joints[:, :, parent], axis=-1)


def test_a_clip_depends_on_seed_and_index_alone(dataset):
    for index in (300, 11, 12):
        again = clip(0, index)
        assert again.id == dataset[index].id
        assert again.caption == dataset[index].caption
        np.testing.assert_array_equal(again.joints, dataset[index].joints)
    other = clip(1, 11)
    assert other.joints.shape != dataset[11].joints.shape or not np.allclose(
        other.joints, dataset[11].joints
    )


def test_fewer_replications_are_a_prefix(dataset):
    few = [c.id for c in clips(seed=0, replications=1)]
    assert few == [c.id for c in dataset[: len(few)]]


def test_size_ids_and_fields(dataset):
    assert len(CLASSES) >= 12
    assert len(dataset) == len(CLASSES) * 12 * 5
    assert len({c.id for c in dataset}) == len(dataset)
    for c in dataset:
        ids = (c.setup, c.camera, c.subject, c.replication, c.label + 1)
        assert c.id == "S{:03d}C{:03d}P{:03d}R{:03d}A{:03d}".format(*ids)
    counts = np.bincount([c.label for c in dataset], minlength=len(CLASSES))
    assert (counts == 60).all()
    subjects = {c.subject for c in dataset}
    assert subjects == set(range(1, 13))
    assert set(TRAIN_SUBJECTS) < subjects


def test_shapes_persons_and_place(dataset):
    for c in dataset:
        frames, persons, *rest = c.joints.shape
        assert c.joints.dtype == np.float32
        assert np.isfinite(c.joints).all()
        assert rest == [25, 3]
        assert 28 <= frames <= 80
        assert persons == (2 if CLASSES[c.label] in TWO_PERSON else 1)
        assert c.joints[..., 2].min() > 1.2 and c.joints[..., 2].max() < 5.5
        head, foot = c.joints[..., 3, 1], c.joints[..., 15, 1]
        assert (head > foot + 0.2).all()  # y is up, also in the deepest bend
    assert len({c.joints.shape[0] for c in dataset}) > 30


def test_bones_keep_their_length():
    for name in CLASSES:
        for c in clips_of(name, 4, noise=0.0):
            lengths = bone_lengths(c.joints)
            assert np.ptp(lengths, axis=0).max() < 1e-4, c.id
            assert lengths.min() > 0.02
        for c in clips_of(name, 2):
            spread = bone_lengths(c.joints).std(axis=0)
            assert 1e-4 < spread.max() < 0.05, c.id


def test_subjects_differ_in_size_and_keep_it():
    def bones(index):
        return bone_lengths(clip(0, index, noise=0.0).joints)[0, 0]

    first = np.stack([bones(len(CLASSES) * s) for s in range(12)])
    later = np.stack([bones(len(CLASSES) * (s + 12) + 3) for s in range(12)])
    np.testing.assert_allclose(first, later, atol=1e-5)
    apart = np.abs(first[:, None] - first).max(axis=-1) + np.eye(12)
    assert apart.min() > 0.003  # metres, in the bone that differs most
    assert np.ptp(first.sum(axis=1)) > 0.3


def test_feet_stay_near_the_ground():
    for name in set(CLASSES) - {"jump", "kick"}:
        for c in clips_of(name, 3, noise=0.0):
            ankles = c.joints[:, :, [14, 18], 1].min(axis=-1)
            assert np.ptp(ankles) < 0.05, c.id  # at least one foot is always on it


def test_jump_leaves_the_ground():
    for c in clips_of("jump", 5, noise=0.0):
        lowest = c.joints[:, 0, [14, 18], 1].min(axis=-1)
        assert 0.1 < np.ptp(lowest) < 0.6, c.id


@pytest.mark.parametrize(("name", "sign"), [("sit down", 1), ("stand up", -1)])
def test_hips_change_height(name, sign):
    for c in clips_of(name, 12, noise=0.0):
        hips = c.joints[:, 0, 0, 1]
        assert sign * (hips[0] - hips[-1]) > 0.25, c.id


def test_hands_meet_in_a_hand_shake():
    for c in clips_of("shake hands", 24, noise=0.0):
        gap = np.linalg.norm(c.joints[:, 0, 11] - c.joints[:, 1, 11], axis=-1)
        assert gap.min() < 0.05, c.id
        assert gap[[0, -1]].min() > 0.15, c.id


def test_captions(dataset):
    for c in dataset:
        assert c.caption[0].isupper() and c.caption.endswith("."), c.caption
        assert "{" not in c.caption
        assert MOTION.search(c.caption), c.caption
        if CLASSES[c.label] not in TWO_PERSON:
            assert BODY_PART.search(c.caption), c.caption
    for label in range(len(CLASSES)):
        assert len({c.caption for c in dataset if c.label == label}) >= 10


def test_a_caption_names_the_side_that_moves():
    seen = set()
    for c in clips_of("drink", 24, noise=0.0):
        height = c.joints[:, 0, [7, 11], 1].max(axis=0)
        side = "left" if height[0] > height[1] else "right"
        assert side in c.caption, c.caption
        seen.add(side)
    assert seen == {"left", "right"}


def nearest_centroid_accuracy(features, labels, train):
    """Share of the other rows whose nearest class mean over the `train` rows is their own."""
    means = np.stack([features[train & (labels == k)].mean(axis=0) for k in np.unique(labels)])
    distance = ((features[~train][:, None] - means) ** 2).sum(axis=-1)
    return (np.unique(labels)[distance.argmin(axis=1)] == labels[~train]).mean()


def test_classes_are_separable_but_not_trivially(dataset):
    def features(c):
        frames = np.linspace(0, len(c.joints) - 1, 16).astype(int)
        return (c.joints[frames, 0] - c.joints[0, 0, 0]).ravel()

    labels = np.array([c.label for c in dataset])
    train = np.isin([c.subject for c in dataset], TRAIN_SUBJECTS)
    accuracy = nearest_centroid_accuracy(np.stack([features(c) for c in dataset]), labels, train)
    assert 0.4 < accuracy < 0.95


def test_length_and_place_are_independent_of_the_class(dataset):
    solo = [c for c in dataset if CLASSES[c.label] not in TWO_PERSON]
    labels = np.array([c.label for c in solo])
    train = np.isin([c.subject for c in solo], TRAIN_SUBJECTS)
    clue = np.array(
        [(len(c.joints), *c.joints[0, 0, 14, [0, 2]], c.camera, c.setup) for c in solo], float
    )
    clue = (clue - clue.mean(axis=0)) / clue.std(axis=0)
    assert nearest_centroid_accuracy(clue, labels, train) < 2.2 / len(set(labels))


@pytest.mark.parametrize("options", [{"seed": -1}, {"replications": 0}, {"replications": 1000}])
def test_bad_options_are_reported(options):
    with pytest.raises(UserError, match=next(iter(options))):
        clips(**options)
