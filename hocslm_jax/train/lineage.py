"""What a stage began from: a mark of these weights, kept in its checkpoints and its result.

In: a `Run` and the folder of the run before it. Out: the `Run` with its mark, or one line where it
began from other weights than that folder holds now. Such a stage is neither finished nor resumed.
"""

import contextlib
import dataclasses
import hashlib
import itertools
from pathlib import Path

import jax
import numpy as np

from hocslm_jax import hosts, sharding
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.results import read_result
from hocslm_jax.train import checkpoint
from hocslm_jax.train.beginning import is_here
from hocslm_jax.train.setup import Run
from hocslm_jax.train.stages import Stage, read_stages, stage_config


def stage_folder(workdir: Path, position: int, count: int) -> Path:
    """Where a stage's run is: the last one's in the workdir itself."""
    return workdir if position == count - 1 else workdir / "stages" / str(position + 1)


def has_checkpoint(folder: Path) -> bool:
    places = (folder / "checkpoints").glob("*")
    return any(place.name.isdigit() for place in places)


def comparable(stage: Stage, folder: Path) -> bool:
    """Whether a stage, whose run is in `folder`, takes weights that are still there.

    A run that resumes from its own checkpoints does not need what it began from.
    """
    if not stage.take or stage.start == "previous":
        return bool(stage.take)
    return hosts.on_first(lambda: is_here(stage.start) or not has_checkpoint(folder))


def marked(run: Run, initial: dict, source: str | Path) -> Run:
    """The run with the mark of what it takes.

    Args:
        initial: {"params", "batch_stats"} that it starts with.

    Raises:
        UserError: its checkpoints are of a run that began from other weights.
    """
    taken = {n: initial["params"][n] for n in run.stage.take if n in initial["params"]}
    mark = fingerprint({"params": taken, "batch_stats": initial["batch_stats"]}, run.mesh)
    saved = {}
    with contextlib.suppress(UserError):  # it has no checkpoint yet
        saved = checkpoint.read_run(run.workdir)
    if saved.get("origin", mark) != mark:
        raise UserError(
            f"{run.workdir} began from other weights than {source} holds now: use another "
            f"--workdir, or remove {run.workdir}/checkpoints to train this stage again"
        )
    return dataclasses.replace(run, origin=mark)


def fingerprint(tree, mesh: jax.sharding.Mesh) -> str:
    """Changes with any name, shape or bit of a tree of arrays, not with where they lie."""
    if not all(leaf.is_fully_addressable for leaf in jax.tree.leaves(tree)):
        tree = jax.jit(lambda whole: whole, out_shardings=sharding.replicated(mesh))(tree)
    found = hashlib.sha256()
    for path, leaf in jax.tree.leaves_with_path(tree):
        found.update(f"{sharding.path_name(path)} {leaf.dtype} {leaf.shape}".encode())
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()[:16]


def check_lengths(config, workdir: Path) -> None:
    """Raises UserError where a stage that another began from would train, or train on.

    Said before anything starts; what it began from is looked at when its turn comes.
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
                f"stage {number + 1} in {later} began from another stage {number}, and {folder} "
                "holds none that is finished: give its t0=…, or use another --workdir"
            )
        name = "finetune.epochs" if stage.optim == "finetune" else "train.epochs"
        if done and done != (wanted := stage_config(config, position).train.epochs):
            raise UserError(
                f"stage {number + 1} in {later} began from stage {number} after {done} epochs, "
                f"not {wanted}: set {name}={done}, or use another --workdir"
            )


def finished_epochs(folder: Path) -> int | None:
    """How long the finished run in a folder trained; None where there is none, 0 if unreadable."""
    path = folder / "result.json"
    if not (path.is_file() and has_checkpoint(folder)):
        return None
    try:
        return read_result(path)["epochs"]
    except UserError:  # the stage itself mends it
        return 0
