"""Test-time augmentation: scores the test split with several views of each clip.

In: a `Run`, its last weights and `config.test`. Out: `scores_tta.npz` with the mean probabilities,
and the counts for `result.json`. Nothing is random. The plain test is a separate pass, so its files
and counts do not change.
"""

import dataclasses
from collections.abc import Sequence

from hocslm_jax.data.augment import ClipView, views_of
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble import average_views, fuse, preset_weights
from hocslm_jax.evaluate.results import accuracy_text
from hocslm_jax.evaluate.score_files import Member
from hocslm_jax.evaluate.scores import Scores
from hocslm_jax.hosts import say
from hocslm_jax.train import multi_stream
from hocslm_jax.train.setup import Run

SCORES = "scores_tta.npz"


@dataclasses.dataclass(frozen=True)
class ViewSettings:
    """`config.test`: test-time augmentation, in addition to the plain test.

    Each clip has views x crops variants, and twice as many with `mirror`.

    Attributes:
      views: turns about the vertical axis, evenly from -angle to angle.
      angle: degrees.
      crops: number of overlapping temporal crops; 1 = the whole clip.
      mirror: True also adds each view with left and right exchanged.
      train_clips: True also writes `scores_train.npz`, the plain test of the training clips.
    """

    views: int = 1
    angle: float = 30.0
    crops: int = 1
    mirror: bool = False
    train_clips: bool = False


def read_views(test) -> tuple[ClipView, ...]:
    """The views that `config.test` selects; by default only the plain one.

    Raises:
        UserError: a number out of range.
    """
    for name in ("views", "crops"):
        if test[name] < 1:
            raise UserError(f"test.{name}={test[name]} must be at least 1")
    if not 0 <= test.angle <= 180:
        raise UserError(f"test.angle={test.angle} must be in [0, 180] degrees")
    return views_of(test.views, test.angle, test.crops, test.mirror)


def wanted(config) -> bool:
    """Whether `config.test` selects more than the plain test."""
    return len(read_views(config.test)) > 1


def join(run: Run, views: Sequence[Scores]) -> Scores:
    """Combines views; with several streams, each is averaged over views, then they are summed."""
    if not run.streams:
        return average_views(views)
    parts = {name: average_views([view.parts[name] for view in views]) for name in run.streams}
    members = [Member(name, part, name) for name, part in parts.items()]
    return dataclasses.replace(fuse(members, preset_weights("equal", members)), parts=parts)


def score(run: Run, variables: dict) -> dict:
    """Scores the test split with all options of `config.test`; returns the counts."""
    views, test = read_views(run.config.test), run.config.test
    scores = join(
        run, [multi_stream.score(run, variables, run.test_batches(view=view)) for view in views]
    )
    multi_stream.save(run, scores, SCORES)
    say(f"with {len(views)} views of each clip: test {accuracy_text(scores.correct, scores.total)}")
    asked = {name: test[name] for name in ("views", "angle", "crops", "mirror")}
    counted = {"correct": scores.correct, "total": scores.total}
    return {"tta": {"views_per_clip": len(views), **asked, **counted}}
