"""The test split once more with test-time augmentation, beside the plain count.

In: a `Run`, its last weights and `config.test`. Out: `scores_tta.npz`, and the counts for
`result.json`. The plain test is another pass of its own, and its files and counts stay as they are.
"""

import dataclasses

import jax

from hocslm_jax.eval.classification import save_scores
from hocslm_jax.eval.scores import Member
from hocslm_jax.eval.tta import average, read_views
from hocslm_jax.eval.weights import fuse, preset_weights
from hocslm_jax.train import streams
from hocslm_jax.train.metrics import say
from hocslm_jax.train.result import share
from hocslm_jax.train.setup import Run

SCORES = "scores_tta.npz"


def wanted(config) -> bool:
    """Whether `config.test` asks for more than the plain test."""
    return len(read_views(config.test)) > 1


def tell(run: Run, variables: dict) -> dict:
    """Scores the test split in every way that `config.test` names; returns the counts.

    Several streams are averaged one by one and then joined with equal weights.
    """
    views, test = read_views(run.config.test), run.config.test
    looks = [streams.score(run, variables, run.test_batches(view=view)) for view in views]
    scores = average(looks)
    if run.streams:
        parts = {name: average([look.parts[name] for look in looks]) for name in run.streams}
        members = [Member(name, part, name) for name, part in parts.items()]
        scores = dataclasses.replace(fuse(members, preset_weights("equal", members)), parts=parts)
    if jax.process_index() == 0:
        for one, found in streams.single_runs(run, scores):
            one.workdir.mkdir(parents=True, exist_ok=True)
            save_scores(one.workdir / SCORES, found)
    say(f"with {len(views)} looks at each clip: test {share(scores.correct, scores.total)}")
    asked = {"looks": len(views), **test.to_dict()}
    return {"tta": {**asked, "correct": scores.correct, "total": scores.total}}
