"""Tests whether one classifier is significantly better than another on the same clips.

In: `Scores` or counts. Out: counts, intervals and p-values. Both tests are paired: they compare the
classifiers clip by clip.
"""

import numpy as np
import scipy  # loads scipy.stats on first use, which takes a second

from hocslm_jax.evaluate.scores import Scores

LEVEL = 0.95
CHANCE = 0.01
DRAWS = 10_000


def accuracy_interval(correct: int, total: int) -> list[float]:
    """Wilson's 95 % interval of an accuracy, [low, high] in [0, 1]."""
    interval = scipy.stats.binomtest(correct, total).proportion_ci(LEVEL, method="wilson")
    return [float(interval.low), float(interval.high)]


def beats_chance(correct: int, total: int, classes: int) -> bool:
    """Whether a count is significantly better than guessing among the classes (p < 1 %)."""
    return bool(
        scipy.stats.binomtest(correct, total, 1 / classes, alternative="greater").pvalue < CHANCE
    )


def compare(first: Scores, second: Scores, draws: int = DRAWS, seed: int = 0) -> dict:
    """McNemar's exact test and a paired bootstrap interval; the clips must be matched.

    Returns:
        correct, other_correct, total; only_this, only_other: clips that only one classifier gets
        right; p_value of McNemar's test (two-sided, binomial); difference of the accuracies and its
        95 % percentile interval, as fractions.
    """
    right, other = (scores.ranks < 1 for scores in (first, second))
    gained, lost = int((right & ~other).sum()), int((other & ~right).sum())
    total = first.total
    # A resample's difference depends only on how many gained and lost clips it contains.
    shares = np.array([gained, lost, total - gained - lost]) / total
    counts = np.random.default_rng(seed).multinomial(total, shares, size=draws)
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    low, high = np.quantile((counts[:, 0] - counts[:, 1]) / total, tails)
    return {
        "correct": first.correct,
        "other_correct": second.correct,
        "total": total,
        "only_this": gained,
        "only_other": lost,
        "p_value": float(scipy.stats.binomtest(gained, gained + lost).pvalue)
        if gained + lost
        else 1.0,
        "difference": (gained - lost) / total,
        "interval": [float(low), float(high)],
    }
