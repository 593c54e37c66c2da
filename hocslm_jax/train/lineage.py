"""Records which weights a stage started from, by a fingerprint in its checkpoints and result.

In: a `Run` and the folder of the previous run. Out: the `Run` with its fingerprint, or a UserError
if it started from other weights than that folder has now. Such a stage does not count as finished
and is not resumed.
The checkpoints also record the classes that these weights and the run were trained on, so that no
class counts as unseen (`data.unseen`) that an earlier run was trained on.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
from pathlib import Path

import jax
import numpy as np

from hocslm_jax import hosts, sharding
from hocslm_jax.data.class_splits import seen_classes, unseen_classes
from hocslm_jax.errors import UserError, few
from hocslm_jax.evaluate.results import read_result
from hocslm_jax.files.atomic import read_json
from hocslm_jax.train import checkpoint, release_files
from hocslm_jax.train.beginning import is_here
from hocslm_jax.train.hub import find_folder
from hocslm_jax.train.setup import Run
from hocslm_jax.train.stages import Stage, read_stages, stage_config
from hocslm_jax.train.state_dicts import SUFFIXES


def stage_folder(workdir: Path, position: int, count: int) -> Path:
    """The folder of a stage's run; the last stage uses the workdir itself."""
    return workdir if position == count - 1 else workdir / "stages" / str(position + 1)


def has_checkpoint(folder: Path) -> bool:
    places = (folder / "checkpoints").glob("*")
    return any(place.name.isdigit() for place in places)


def comparable(stage: Stage, folder: Path) -> bool:
    """Whether the weights that a stage started from still exist; its run is in `folder`.

    A run that resumes from its own checkpoints does not need its initial weights.
    """
    if not stage.take or stage.start == "previous":
        return bool(stage.take)
    return hosts.on_first(lambda: is_here(stage.start) or not has_checkpoint(folder))


def marked(run: Run, initial: dict, source: str | Path) -> Run:
    """The run with the fingerprint of its initial weights.

    Args:
        initial: its initial {"params", "batch_stats"}.

    Raises:
        UserError: its checkpoints belong to a run that started from other weights.
    """
    taken = {n: initial["params"][n] for n in run.stage.take if n in initial["params"]}
    mark = fingerprint({"params": taken, "batch_stats": initial["batch_stats"]}, run.mesh)
    saved = {}
    with contextlib.suppress(UserError):  # it has no checkpoint yet
        saved = checkpoint.read_run(run.workdir)
    if saved.get("origin", mark) != mark:
        raise UserError(
            f"{run.workdir} started from other weights than {source} holds now: use another "
            f"--workdir, or remove {run.workdir}/checkpoints to train this stage again"
        )
    return dataclasses.replace(run, origin=mark)


def check_sources(config, store) -> None:
    """Raises UserError as `classes_before` for each run or file that the stages begin from.

    Said before anything starts, of those that are here; the others are looked at in their turn.
    """
    stages = read_stages(config)
    named = [stage.start for stage in stages if stage.start not in ("random", "previous")]
    named += [config.t0] if config.t0 and len(stages) > 1 else []
    for source in named:
        if hosts.on_first(functools.partial(is_here, source)):
            classes_before(config, store, source)


def informed(run: Run, source: str | Path | None) -> Run:
    """The run with the classes that the weights which it takes were trained on.

    Raises:
        UserError: as `classes_before`.
    """
    if not run.stage.take:
        return run
    here = hosts.on_first(lambda: is_here(source) or not has_checkpoint(run.workdir))
    before = classes_before(run.config, run.store, source if here else run.workdir)
    return dataclasses.replace(run, before=before)


def classes_before(config, store, source: str | Path) -> tuple[str, ...] | None:
    """`trained_on` of what a run begins from.

    Raises:
        UserError: the run leaves some of these classes out (`data.unseen`), or they are not known.
    """
    before = hosts.on_first(lambda: trained_on(source))
    left, text = unseen_classes(store), config.data.unseen
    if left and before is None:
        raise UserError(
            f"{source} does not say which classes it was trained on, and data.unseen={text} leaves "
            "some out: begin with a run of the same data.unseen"
        )
    if known := [name for name in left if name in (before or ())]:
        raise UserError(
            f"{source} was trained on {few(known, most=3)}, which data.unseen={text} leaves out: "
            "begin with a run of the same data.unseen"
        )
    return None if before is None else tuple(before)


def trained_on(place: str | Path) -> list[str] | None:
    """The classes that weights were trained on, with all that they began from.

    Args:
        place: a workdir, a release, a hub id or a file of weights.

    Returns:
        Names, or None where that is not known.
    """
    path = Path(place).expanduser()
    if path.suffix in SUFFIXES and not path.is_dir():
        return None
    folder = find_folder(place)
    if release_files.is_release(folder):
        model = read_json(folder / release_files.CARD, "fetch it again", ("model",))["model"]
        return list(model["classes"]) if isinstance(model, dict) and "classes" in model else None
    meta = checkpoint.read_run(folder)
    data = meta.get("dataset", {})
    if "trained" in data:
        return data["trained"]
    # A run of an older version, which trained on all classes of its data and of what it began from.
    own = [stage.start in ("random", "previous") for stage in read_stages(meta["config"])]
    return data.get("classes") if all(own) else None


def trained(run: Run) -> dict:
    """{"trained": names of all classes that the run's weights were trained on, or None}."""
    if run.before is None:
        return {"trained": None}
    return {"trained": [*dict.fromkeys([*seen_classes(run.store), *run.before])]}


def fingerprint(tree, mesh: jax.sharding.Mesh) -> str:
    """A hash of all names, shapes and bits of a tree of arrays, independent of their placement."""
    if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        tree = jax.jit(lambda whole: whole, out_shardings=sharding.replicated(mesh))(tree)
    found = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        found.update(f"{sharding.path_name(path)} {leaf.dtype} {leaf.shape}".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:16]


def check_lengths(config, workdir: Path) -> None:
    """Raises UserError if a stage that a later stage started from would train, or train longer.

    This is checked before anything starts; initial weights are checked when the stage starts.
    """
    stages = read_stages(config)
    for position, (stage, after) in enumerate(itertools.pairwise(stages)):
        folder, later = (stage_folder(workdir, p, len(stages)) for p in (position, position + 1))
        taken = position == 0 and config.t0
        if taken or after.start != "previous" or not has_checkpoint(later):
            continue
        number, done = position + 1, finished_epochs(folder)
        if done is None:
            raise UserError(
                f"stage {number + 1} in {later} started from another stage {number}, and {folder} "
                "holds no finished one: give its t0=…, or use another --workdir"
            )
        name = "finetune.epochs" if stage.optim == "finetune" else "train.epochs"
        if done and done != (wanted := stage_config(config, position).train.epochs):
            raise UserError(
                f"stage {number + 1} in {later} started from stage {number} after {done} epochs, "
                f"not {wanted}: set {name}={done}, or use another --workdir"
            )


def finished_epochs(folder: Path) -> int | None:
    """Epochs of the finished run in a folder; None if there is none, 0 if unreadable."""
    path = folder / "result.json"
    if not (path.is_file() and has_checkpoint(folder)):
        return None
    try:
        return read_result(path)["epochs"]
    except UserError:  # the stage itself repairs it
        return 0
