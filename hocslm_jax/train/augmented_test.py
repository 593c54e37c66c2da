"""The test split once more with test-time augmentation, beside the plain count.

In: a `Run`, its last weights and `config.test`. Out: `scores_tta.npz`, and the counts for
`result.json`. The plain test is another pass of its own, and its files and counts stay as they are.
"""

import dataclasses
from collections.abc import Sequence

from hocslm_jax.evaluate.classification import Scores
from hocslm_jax.evaluate.ensemble_weights import fuse, preset_weights
from hocslm_jax.evaluate.score_files import Member
from hocslm_jax.evaluate.tta import average, read_views
from hocslm_jax.hosts import say
from hocslm_jax.train import multi_stream
from hocslm_jax.train.result import share
from hocslm_jax.train.setup import Run

SCORES = "scores_tta.npz"


def wanted(config) -> bool:
    """Whether `config.test` asks for more than the plain test."""
    return len(read_views(config.test)) > 1


def join(run: Run, looks: Sequence[Scores]) -> Scores:
    """The looks as one; several streams are averaged one by one, and then joined equally."""
    if not run.streams:
        return average(looks)
    parts = {name: average([look.parts[name] for look in looks]) for name in run.streams}
    members = [Member(name, part, name) for name, part in parts.items()]
    return dataclasses.replace(fuse(members, preset_weights("equal", members)), parts=parts)


def score(run: Run, variables: dict) -> dict:
    """Scores the test split in every way that `config.test` names; returns the counts."""
    views, test = read_views(run.config.test), run.config.test
    scores = join(
        run, [multi_stream.score(run, variables, run.test_batches(view=v)) for v in views]
    )
    multi_stream.save(run, scores, SCORES)
    say(f"with {len(views)} looks at each clip: test {share(scores.correct, scores.total)}")
    asked = {name: test[name] for name in ("views", "angle", "crops", "mirror")}
    counted = {"correct": scores.correct, "total": scores.total}
    return {"tta": {"looks": len(views), **asked, **counted}}
