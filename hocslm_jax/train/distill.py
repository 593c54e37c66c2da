"""Distillation: a run learns from finished runs, its teachers, on its training clips.

In: a `Run` and `config.distill`. Out: for a teacher, `scores_train.npz` with its logits on its
training clips in test mode; for a student, the `Run` with the teachers' probabilities of each
training clip, matched by id. A batch holds those of its clips (`losses.Teacher`), independent of
augmentation.
"""

import dataclasses
import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from scipy.special import softmax

from hocslm_jax import hosts
from hocslm_jax.data.store import Store
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble import fuse, preset_weights
from hocslm_jax.evaluate.results import accuracy_text
from hocslm_jax.evaluate.score_files import TRAIN_SCORES, Member, read_members
from hocslm_jax.evaluate.scores import Scores
from hocslm_jax.hosts import say
from hocslm_jax.train import checkpoint, multi_stream
from hocslm_jax.train.identity import check_data
from hocslm_jax.train.setup import Run
from hocslm_jax.train.stages import read_stages


@dataclasses.dataclass(frozen=True)
class Distillation:
    """`config.distill`: training with the class probabilities of finished runs as targets.

    Attributes:
      share: share of the loss that follows the teacher; 0 = off.
      teacher: runs with `scores_train.npz`: a folder, or a pattern such as "runs/*".
      temperature: divides the teacher's logits.
    """

    share: float = 0.0
    teacher: str = ""
    temperature: float = 4.0


def score_training_clips(run: Run, variables: dict) -> dict:
    """Writes scores of the training clips to `scores_train.npz`, one per stream; returns counts."""
    scores = multi_stream.score(run, variables, run.test_batches(split="train"), "train")
    multi_stream.save(run, scores, TRAIN_SCORES)
    say(f"training clips in test mode: {accuracy_text(scores.correct, scores.total)}")
    return {"train_clips": {"correct": scores.correct, "total": scores.total}}


def check(config) -> None:
    """Raises UserError for impossible settings of `config.distill`."""
    distill = config.distill
    if not 0 <= distill.share <= 1:
        raise UserError(f"distill.share={distill.share} must be in [0, 1]")
    if distill.temperature <= 0:
        raise UserError(f"distill.temperature={distill.temperature} must be greater than 0")
    if bool(distill.share) != bool(distill.teacher):
        raise UserError(
            f"distill.share={distill.share} and distill.teacher={distill.teacher!r} go together: "
            "set both, e.g. distill.share=0.5"
        )
    if distill.share and config.data.unseen:
        raise UserError(
            f"data.unseen={config.data.unseen} leaves classes out, which a teacher may know: "
            "train it without distill.share"
        )
    if distill.share and any(stage.language for stage in read_stages(config)):
        raise UserError(
            f"strategy={config.strategy} cannot use distillation: train the student "
            "with strategy=T0, then the other with t0=STUDENT"
        )


def add_teacher(run: Run) -> Run:
    """The run with its teacher, whose digest goes into the config; unchanged without a teacher.

    Raises:
        UserError: no such runs, or they have other clips or classes, or trained on the test clips.
    """
    distill = run.config.distill
    if not distill.share:
        return run
    sources = hosts.on_first(lambda: teachers(distill.teacher))
    if not sources:
        raise UserError(
            f"distill.teacher={distill.teacher}: no run found; give a folder or pattern"
        )
    for source in map(Path, sources):
        if (source / "checkpoints").is_dir():
            meta = checkpoint.read_run(source)
            check_data(meta, run.store, run.config.data.protocol, source, splits=False)
    members = read_members(sources, name=TRAIN_SCORES)
    config = ConfigDict(run.config.copy_and_resolve_references())
    with config.unlocked():
        config.distill.targets = digest(members, distill.temperature)
    weights = preset_weights("equal", members) / len(members)
    found = probabilities(fuse(members, weights), run.store, config)
    say(f"taught by {len(members)} members: {', '.join(member.name for member in members)}")
    return dataclasses.replace(run, config=config, teacher=found)


def teachers(pattern: str) -> list[str]:
    """The runs that `distill.teacher` names; an existing path is not treated as a pattern."""
    return [pattern] if Path(pattern).exists() else sorted(glob.glob(pattern))


def digest(members: Sequence[Member], temperature: float) -> str:
    """A hash of all members' logits and the temperature, independent of the members' order."""
    said = sorted(hashlib.sha256(member.scores.logits.tobytes()).digest() for member in members)
    return hashlib.sha256(b"".join([f"{float(temperature)!r}".encode(), *said])).hexdigest()[:16]


def probabilities(teacher: Scores, store: Store, config) -> np.ndarray:
    """Softened probabilities of the training clips, float32 [clips of the store, C]; else NaN.

    Raises:
        UserError: the teacher lacks scores of a training clip, has other labels or classes, or was
            trained on a test clip.
    """
    protocol, where = config.data.protocol, f"distill.teacher={config.distill.teacher}"
    if teacher.logits.shape[1] != len(store.classes) or teacher.classes not in ((), store.classes):
        raise UserError(f"{where} has other classes than {store.name}: give runs of this dataset")
    place = {clip: row for row, clip in enumerate(teacher.ids)}
    rows, tested = (store.rows(protocol, split) for split in ("train", "test"))
    if missing := [store.ids[row] for row in rows if store.ids[row] not in place]:
        raise UserError(
            f"{where} lacks {len(missing)} training clips of {protocol}, the first {missing[0]}: "
            "give runs of the same data.protocol"
        )
    if seen := [store.ids[row] for row in tested if store.ids[row] in place]:
        raise UserError(
            f"{where} was trained on {len(seen)} test clips of {protocol}, the first {seen[0]}: "
            "give runs of the same data.protocol"
        )
    order = np.array([place[store.ids[row]] for row in rows])
    if (wrong := np.flatnonzero(teacher.labels[order] != store.labels[rows])).size:
        raise UserError(f"{where} has another label of {store.ids[rows[wrong[0]]]} than the store")
    found = np.full((len(store), len(store.classes)), np.nan, np.float32)
    found[rows] = softmax(teacher.logits[order] / config.distill.temperature, axis=1)
    return found
