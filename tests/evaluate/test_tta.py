"""Looks at the same clips become one set of scores; settings that cannot be are named."""

import numpy as np
import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.classification import Scores
from hocslm_jax.evaluate.tta import average, read_views
from hocslm_jax.train import experiment


def scores(probabilities, scale=0.0):
    logits = np.log(np.array(probabilities, np.float32)) + np.float32(scale)
    return Scores(("a", "b"), np.array([0, 1], np.int32), logits)


def test_average_is_of_probabilities_and_not_of_logits():
    first = scores([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    second = scores([[0.1, 0.1, 0.8], [0.4, 0.5, 0.1]], scale=7)
    both = average([first, second])
    wanted = [[0.35, 0.2, 0.45], [0.3, 0.5, 0.2]]
    np.testing.assert_allclose(np.exp(both.logits), wanted, rtol=1e-5)
    assert both.correct == 1 and both.ids == first.ids
    assert average([first]).correct == first.correct


def test_looks_at_other_clips_are_not_averaged():
    other = Scores(("a", "c"), np.array([0, 1], np.int32), np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="other clips"):
        average([scores([[0.5, 0.3, 0.2]] * 2), other])


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"views": 0}, "test.views=0"), ({"crops": -1}, "test.crops"), ({"angle": 200.0}, "angle")],
)
def test_impossible_looks_are_named(changes, text):
    test = experiment.defaults().test
    assert len(read_views(test)) == 1
    test.update(changes)
    with pytest.raises(UserError, match=text):
        read_views(test)
