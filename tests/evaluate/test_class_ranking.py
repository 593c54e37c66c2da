"""The arithmetic of zero-shot recognition, on numbers small enough to check by hand."""

import numpy as np
import pytest

from hocslm_jax.evaluate.class_ranking import (
    calibrated,
    cosines,
    draw_examples,
    embedding_scores,
    example_scores,
    harmonic_mean,
    num_right,
    ridge,
)
from hocslm_jax.language.description_scores import class_from_likelihood, class_likelihoods


def test_calibration_takes_each_sentences_own_mean_off():
    loglik = np.array([[[-1.0, -4.0], [-2.0, np.nan]], [[-3.0, -2.0], [-2.5, np.nan]]])  # [2, 2, 2]
    reference = np.array([[[-1.0, -3.0], [-3.0, np.nan]], [[-2.0, -1.0], [-5.0, np.nan]]])
    less = calibrated(loglik, reference)  # means: -1.5, -2 and -4
    np.testing.assert_allclose(less, [[[0.5, -2], [2, np.nan]], [[-1.5, 0], [1.5, np.nan]]])
    np.testing.assert_allclose(class_likelihoods(less), [[-0.75, 2], [-0.75, 1.5]])
    assert class_from_likelihood(loglik).tolist() == [1, 0]
    assert class_from_likelihood(less).tolist() == [1, 1]


def test_cosines_need_no_length():
    x, y = np.array([[2.0, 0], [0, 0]]), np.array([[5.0, 0], [0, 1], [-1, 1]])
    np.testing.assert_allclose(cosines(x, y), [[1, 0, -np.sqrt(0.5)], [0, 0, 0]])


def test_a_weak_ridge_finds_the_linear_map():
    rng = np.random.default_rng(0)
    x, matrix = rng.normal(size=(50, 4)), rng.normal(size=(4, 3))
    np.testing.assert_allclose(ridge(x, x @ matrix, 1e-9), matrix, rtol=1e-5)
    assert np.linalg.norm(ridge(x, x @ matrix)) < np.linalg.norm(matrix)
    assert np.isfinite(ridge(np.zeros((5, 4)), np.ones((5, 3)))).all()


def test_a_map_that_holds_for_unseen_classes_ranks_them():
    """Sentences are a linear image of the clips, up to noise: four of six classes teach it."""
    rng = np.random.default_rng(0)
    centres, matrix = rng.normal(size=(6, 3)), rng.normal(size=(3, 5))
    sentences = centres @ matrix
    labels = np.repeat(np.arange(4), 20)
    seen = centres[labels] + 0.1 * rng.normal(size=(80, 3))
    tested = np.repeat([4, 5], 30)
    clips = centres[tested] + 0.1 * rng.normal(size=(60, 3))
    scores = embedding_scores(seen, labels, clips, sentences)
    assert scores.shape == (60, 6) and num_right(scores, tested, [4, 5]) >= 55
    assert num_right(scores[:, [0, 1, 2, 3, 5, 4]], tested, [4, 5]) <= 5


def test_examples_and_means_of_seen_classes_are_compared_about_one_centre():
    seen, labels = np.array([[2.0, 0], [0, 2], [2, 2], [0, 0]]), np.array([0, 1, 0, 1])
    clips = np.array([[1.0, 4], [3.0, 1]])  # the centre is at 1, 1; class 0 right of it, 1 left
    scores = example_scores(seen, labels, clips, np.array([[1.0, 2]]), (3,), 4)
    np.testing.assert_allclose(scores, [[0, 0, -1, 1], [1, -1, -1, 0]], atol=1e-12)


def test_examples_are_drawn_of_each_class_and_by_seed():
    labels = np.array([5, 2, 5, 2, 7, 5])
    drawn = [draw_examples(labels, (2, 5, 7), seed) for seed in range(20)]
    assert all(labels[places].tolist() == [2, 5, 7] for places in drawn)
    assert len({tuple(places) for places in drawn}) > 3
    assert (draw_examples(labels, (2, 5), 3) == draw_examples(labels, (2, 5), 3)).all()


def test_right_answers_are_counted_among_some_classes():
    scores = np.array([[9.0, 1, 2, 0], [9, 3, 2, 0], [9, 1, 1, 0]])
    labels = np.array([2, 2, 1])
    assert num_right(scores, labels, (1, 2)) == 2  # of equals the first
    assert num_right(scores, labels, range(4)) == 0


@pytest.mark.parametrize(
    ("seen", "unseen", "mean"), [(0.8, 0.2, 0.32), (0.5, 0.5, 0.5), (1, 0, 0), (0, 0, 0)]
)
def test_the_harmonic_mean(seen, unseen, mean):
    assert harmonic_mean(seen, unseen) == pytest.approx(mean)
