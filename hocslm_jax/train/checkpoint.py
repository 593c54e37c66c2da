"""Checkpoints: everything a run needs for an exact resume.

In and out: a `TrainState` and a JSON `meta` holding the config, the position in the data and the
running totals, in `<workdir>/checkpoints/<step>/` (Orbax, written asynchronously, visible only
when complete). The data position is the same on every host, so a run may resume on fewer or more.
`meta` also holds a checksum of itself and one of every array, which every load verifies; the newest
intact checkpoint is used.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from hocslm_jax import hosts
from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import literal_globs
from hocslm_jax.sharding import path_name
from hocslm_jax.train.integrity import FORMAT, Damaged, digest, latest, set_aside, steps, sums
from hocslm_jax.train.stages import fixed_groups

literal_globs()


@contextlib.contextmanager
def open_manager(workdir: Path, keep: int = 2) -> Iterator[ocp.CheckpointManager]:
    """The manager of a run's checkpoints; closing it waits for the last save.

    Raises:
        UserError: on closing, if that save failed.
    """
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
    manager = ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)
    try:
        yield manager
    finally:
        with _writing(manager):
            manager.close()


def wait(manager: ocp.CheckpointManager) -> None:
    """Waits until the last save is complete. Raises UserError if it failed."""
    with _writing(manager):
        manager.wait_until_finished()


@contextlib.contextmanager
def _writing(manager: ocp.CheckpointManager) -> Iterator[None]:
    """Makes a UserError of what Orbax and TensorStore raise if a disk is full or a folder gone."""
    try:
        yield
    except (OSError, ValueError) as error:
        code = re.search(r"os_error_code='(\d+)'", str(error))
        reason = os.strerror(int(code[1])) if code else str(error).partition("\n")[0][:120]
        raise UserError(
            f"cannot save a checkpoint in {manager.directory}: {reason}; make room or repair the "
            "folder, then rerun the same command to resume"
        ) from error


def latest_step(folder: Path) -> int | None:
    """The latest checkpoint that process 0 finds in `folder`, on every process."""
    return hosts.on_first(lambda: max(steps(folder), default=None))


def save(manager: ocp.CheckpointManager, step: int, state, meta: dict) -> None:
    """Starts writing; returns when the state is copied, so that it may be donated.

    Raises:
        UserError: this save, or the one before it, failed.
    """
    if latest_step(manager.directory) == step:
        return
    meta = {**meta, "step": step, "format": FORMAT, "sums": sums(state)}
    meta["checksum"] = digest(meta)
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
    with _writing(manager):
        manager.save(step, args=args, force=True)


def read_run(workdir: Path) -> dict:
    """`meta` of the latest intact checkpoint in `workdir`; `meta["config"]` is its config.

    Raises:
        UserError: there is none.
    """
    found = latest(Path(workdir) / "checkpoints", lambda step, meta: (meta, {}))
    if found is None:
        raise UserError(f"{workdir} holds no complete checkpoint: train first, or check the path")
    return found


def resume(
    manager: ocp.CheckpointManager,
    abstract_state,
    check: Callable[[dict], None] | None = None,
) -> tuple[dict, Any] | None:
    """`meta` and state of the latest intact checkpoint, in the shardings of `abstract_state`.

    Newer, damaged ones are moved to `damaged/` in the workdir, so that the run can rewrite these
    steps.

    Args:
        check: called with `meta` before the state is read.

    Returns:
        None if there is no checkpoint.

    Raises:
        UserError: raised by `check`, or no checkpoint is intact and fits this model.
    """
    folder = Path(manager.directory)

    def read(step: int, meta: dict):
        if check:
            check(meta)
        with ocp.StandardCheckpointer() as reader:
            state = reader.restore(folder / str(step) / "state", abstract_state)
        return (meta, state), state

    found = latest(folder, read)
    if found is not None:
        set_aside(manager, found[0]["step"])
    return found


def restore(manager: ocp.CheckpointManager, abstract_state):
    """The state alone of `resume`."""
    return resume(manager, abstract_state)[1]


def restore_variables(workdir: Path, abstract_variables: dict) -> dict:
    """The variables alone of `resume_variables`."""
    return resume_variables(workdir, abstract_variables)[1]


def resume_variables(
    workdir: Path, abstract_variables: dict, check: Callable[[dict], None] | None = None
) -> tuple[dict, dict]:
    """`meta`, and the variables for evaluation: the averaged weights if there are any.

    Args:
        abstract_variables: {"params", "batch_stats"} of `jax.ShapeDtypeStruct` with shardings; it
            need not have all groups of the checkpoint.
        check: called with `meta` before the arrays are read.

    Raises:
        UserError: raised by `check`; no intact checkpoint, or one of another model.
    """
    folder = (Path(workdir) / "checkpoints").absolute()

    def read(step: int, meta: dict):
        if check:
            check(meta)
        variables, state = _read_variables(folder, abstract_variables, step, meta)
        return (meta, variables), state

    found = latest(folder, read)
    if found is None:
        raise UserError(f"{workdir} holds no complete checkpoint: train first, or check the path")
    return found


def stored_shapes(workdir: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all variables that `restore_variables` can read, by names such as
    "params/encoder/…/kernel".

    Raises:
        UserError: as `read_run`.
    """
    meta = read_run(workdir)
    folder = (Path(workdir) / "checkpoints" / str(meta["step"]) / "state").absolute()
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        state = reader.metadata(folder).item_metadata.tree
    chosen = state["ema"] if meta["config"]["optim"]["ema"] else state
    params = {**(state.get("fixed") or {}), **chosen["params"]}
    found = {"params": params, "batch_stats": chosen.get("batch_stats") or {}}
    return {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree.leaves_with_path(found)}


def _read_variables(folder: Path, abstract_variables: dict, step: int, meta: dict) -> tuple:
    averaged = bool(meta["config"]["optim"]["ema"])
    idle = fixed_groups(meta["config"])
    params = abstract_variables["params"]
    chosen = {
        "params": {name: group for name, group in params.items() if name not in idle},
        "batch_stats": abstract_variables["batch_stats"],
    }
    fixed = {name: group for name, group in params.items() if name in idle}
    wanted = _filled({"fixed": fixed} | ({"ema": _filled(chosen)} if averaged else chosen))
    args = ocp.args.PyTreeRestore(
        wanted,
        partial_restore=True,
        restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
    )
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        state = reader.restore(folder / str(step) / "state", args=args)
    # A partial restore leaves the shape of a weight that the checkpoint lacks.
    leaves = jax.tree.leaves_with_path(state)
    unread = [path for path, leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]
    if unread:
        raise Damaged(f"it has no {path_name(unread[0])}")
    found = state.get("ema", {}) if averaged else state
    params = {**state.get("fixed", {}), **found.get("params", {})}
    return {"params": params, "batch_stats": found.get("batch_stats", {})}, state


def _filled(tree: dict) -> dict:
    """Removes empty dicts, which Orbax would treat as leaves."""
    return {name: part for name, part in tree.items() if part}


def plain(config) -> dict:
    """A config in JSON types: tuples become lists."""
    return json.loads(json.dumps(config.to_dict() if hasattr(config, "to_dict") else config))
