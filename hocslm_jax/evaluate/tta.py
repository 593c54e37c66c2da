"""Test-time augmentation: a clip is looked at several times, and the looks' probabilities averaged.

In: `config.test` and scores of the same clips, one for each way to look at them. Out: the ways, and
one `Scores`. Nothing is drawn at random, so the same weights always give the same counts.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax, logsumexp

from hocslm_jax.data.augment import ClipView, views_of
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.classification import Scores


def read_views(test) -> tuple[ClipView, ...]:
    """The ways that `config.test` names; the first and only one is the plain test by default.

    Raises:
        UserError: a number out of range.
    """
    for name in ("views", "crops"):
        if test[name] < 1:
            raise UserError(f"test.{name}={test[name]} must be at least 1")
    if not 0 <= test.angle <= 180:
        raise UserError(f"test.angle={test.angle} must be in [0, 180] degrees")
    return views_of(test.views, test.angle, test.crops, test.mirror)


def average(looks: Sequence[Scores]) -> Scores:
    """Scores whose logits are the logarithm of the mean probability over `looks`.

    All must be of the same clips in the same order, as `collect_scores` leaves them.
    """
    first = looks[0]
    if any(look.ids != first.ids for look in looks):
        raise ValueError("looks at other clips, or in another order")
    logs = log_softmax(np.stack([look.logits for look in looks]).astype(np.float64), axis=-1)
    mean = logsumexp(logs, axis=0) - np.log(len(looks))
    return dataclasses.replace(first, logits=mean.astype(np.float32), parts={})
