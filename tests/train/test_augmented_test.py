"""Test-time augmentation is repeatable and does not change the plain count."""

import json

import numpy as np
import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import load_scores
from hocslm_jax.train import experiment, strategy
from hocslm_jax.train.augmented_test import read_views

ATTEMPTS = {"test.views": 3, "test.crops": 2, "test.mirror": True}
SHORT = {"train.epochs": 1, "train.eval_every": 0}


def test_both_counts_are_reported_and_reproduced(tmp_path):
    plain, looked = tmp_path / "plain", tmp_path / "looked"
    assert tiny_run.train_strategy(plain, "T0", SHORT) == 0
    assert tiny_run.train_strategy(looked, "T0", SHORT | ATTEMPTS) == 0
    one, other = (json.loads((f / "result.json").read_text()) for f in (plain, looked))
    tta = other["tta"]
    assert "tta" not in one and tta["views_per_clip"] == 12 and tta["total"] == other["total"] == 16
    assert one["correct"] == other["correct"]
    logits = [load_scores(f / "scores.npz").logits for f in (plain, looked)]
    np.testing.assert_array_equal(*logits)
    first = load_scores(looked / "scores_tta.npz")
    assert first.correct == tta["correct"] and not np.array_equal(first.logits, logits[0])
    (looked / "scores_tta.npz").unlink()
    assert tiny_run.on_tiny_data(strategy.evaluate, looked, "T0", SHORT | ATTEMPTS) == 0
    np.testing.assert_array_equal(load_scores(looked / "scores_tta.npz").logits, first.logits)


def test_a_finished_run_can_be_evaluated_with_views(tmp_path):
    assert tiny_run.train_strategy(tmp_path, "T0", SHORT) == 0
    changes = SHORT | {"test.views": 2, "test.angle": 0.0}
    assert tiny_run.on_tiny_data(strategy.evaluate, tmp_path, "T0", changes) == 0
    twice, once = (load_scores(tmp_path / f) for f in ("scores_tta.npz", "scores.npz"))
    np.testing.assert_array_equal(twice.predictions, once.predictions)


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"views": 0}, "test.views=0"), ({"crops": -1}, "test.crops"), ({"angle": 200.0}, "angle")],
)
def test_invalid_views_are_named(changes, text):
    test = experiment.defaults().test
    assert len(read_views(test)) == 1
    test.update(changes)
    with pytest.raises(UserError, match=text):
        read_views(test)
