"""Checkpoints: everything a run needs to go on as if it had never stopped.

In and out: a `TrainState` and a JSON `meta` holding the config, the position in the data and the
running totals, in `<workdir>/checkpoints/<step>/` (Orbax, written asynchronously, visible only
when complete). The data position is the same on every host, so a run may resume on fewer or more.
"""

import json
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from hocslm_jax.errors import UserError
from hocslm_jax.sharding import path_name
from hocslm_jax.train import host
from hocslm_jax.train.stages import fixed_groups

# What may differ between the run that wrote a checkpoint and the one that continues it.
FREE_TO_CHANGE = (
    "compilation_cache",
    "test.",
    "strategy",  # a name; what it means is in `stages`
    "t0",
    "distill.teacher",  # a place; what the runs there say, and how warm, is in `distill.targets`
    "distill.temperature",
    "lm.folder",
    "lm.fsdp",
    "lm.remat",
    "lm.chunk",
    "lm.pack",
    "lm.describe",
    "data.data_dir",
    "data.threads",
    "data.cache",
    "data.auto_prepare",
    "train.epochs",
    "finetune.epochs",
    "train.eval_every",
    "train.eval_batch_size",
    "train.checkpoint_every",
    "train.log_every",
    "train.keep",
    "mesh.",
)
# What evaluation depends on; the rest of a config only trains.
EVALUATED = ("data.", "model.")
_OTHER_RUN = "give a run of this model, or this run's settings"


def open_manager(workdir: Path, keep: int = 2) -> ocp.CheckpointManager:
    """The manager of a run's checkpoints; closing it finishes the last save."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
    return ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)


def latest_step(folder: Path) -> int | None:
    """The latest complete checkpoint that process 0 finds in `folder`, on every process."""
    return host.on_first(lambda: max(ocp.utils.checkpoint_steps(folder), default=None))


def _latest_meta(folder: Path) -> dict | None:
    step = latest_step(folder)
    if step is None:
        return None
    host.wait_to_see(folder / str(step), inside=True)
    return host.on_first(lambda: json.loads((folder / str(step) / "meta/metadata").read_text()))


def save(manager: ocp.CheckpointManager, step: int, state, meta: dict) -> None:
    """Starts writing; returns once the state is copied, so it may be donated afterwards."""
    if latest_step(manager.directory) == step:
        return
    args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
    manager.save(step, args=args, force=True)


def read_meta(manager: ocp.CheckpointManager) -> dict | None:
    """`meta` of the latest complete checkpoint, or None when there is none."""
    return _latest_meta(Path(manager.directory))


def read_run(workdir: Path) -> dict:
    """`meta` of the latest complete checkpoint in `workdir`; `meta["config"]` is its config.

    Raises:
        UserError: there is none.
    """
    meta = _latest_meta(Path(workdir) / "checkpoints")
    if meta is not None:
        return meta
    raise UserError(f"{workdir} holds no complete checkpoint: train first, or check the path")


def restore(manager: ocp.CheckpointManager, abstract_state):
    """The latest complete state, in the shapes, types and shardings of `abstract_state`.

    Raises:
        UserError: the checkpoint's tree is not that of this model.
    """
    step = latest_step(manager.directory)
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
    try:
        return manager.restore(step, args=args).state
    except (ValueError, KeyError, TypeError) as error:
        raise _misfit(manager.directory, step, error) from error


def restore_variables(workdir: Path, abstract_variables: dict) -> dict:
    """Only what `model.apply` takes in evaluation: the averaged weights where the run has them.

    Args:
        abstract_variables: {"params", "batch_stats"} of `jax.ShapeDtypeStruct` with shardings; not
            all the groups of the checkpoint need be there.

    Raises:
        UserError: no complete checkpoint, or one of another model.
    """
    meta = read_run(workdir)
    step, averaged = meta["step"], bool(meta["config"]["optim"]["ema"])
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
    handlers = {"state": ocp.PyTreeCheckpointHandler()}
    folder = (Path(workdir) / "checkpoints").absolute()
    with ocp.CheckpointManager(folder, item_handlers=handlers) as manager:
        try:
            state = manager.restore(step, args=ocp.args.Composite(state=args)).state
        except (ValueError, KeyError, TypeError) as error:
            raise _misfit(folder, step, error, _OTHER_RUN) from error
    # A partial restore leaves the shape where the checkpoint has no such weight.
    leaves = jax.tree.leaves_with_path(state)
    unread = [path for path, leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)]
    if unread:
        raise _misfit(folder, step, f"it has no {path_name(unread[0])}", _OTHER_RUN)
    found = state.get("ema", {}) if averaged else state
    params = {**state.get("fixed", {}), **found.get("params", {})}
    return {"params": params, "batch_stats": found.get("batch_stats", {})}


def _filled(tree: dict) -> dict:
    """Without what is empty, which Orbax would take for a leaf."""
    return {name: part for name, part in tree.items() if part}


def check_config(
    saved: dict,
    config: dict,
    workdir: Path,
    only: tuple[str, ...] = ("",),
    advice: str = "use another --workdir or the same config",
) -> None:
    """Raises UserError, naming the keys, when `workdir` holds another experiment.

    Args:
        only: prefixes of the keys that matter; all of them by default.
        advice: what the user can do about it.
    """
    old, new = flat(saved), flat(config)
    keys = [k for k in sorted(old.keys() | new.keys()) if k.startswith(only)]
    keys = [k for k in keys if not k.startswith(FREE_TO_CHANGE)]
    # A setting that a run is older than was off.
    keys = [k for k in keys if (old.get(k) or None) != (new.get(k) or None)]
    if keys:
        changes = ", ".join(f"{k} ({old.get(k)!r} there, {new.get(k)!r} here)" for k in keys)
        raise UserError(f"{workdir} holds a run with another config: {changes}; {advice}")


def plain(config) -> dict:
    """A config as JSON would give it back: tuples become lists."""
    return json.loads(json.dumps(config.to_dict() if hasattr(config, "to_dict") else config))


def abstract(tree, shardings):
    """Shapes and types of `tree` with `shardings`, for restoring."""
    return jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, shardings
    )


def flat(config: dict, prefix: str = "") -> dict:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    found = {}
    for key, value in config.items():
        nested = isinstance(value, dict)
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def _misfit(folder, step, error, advice="use another --workdir") -> UserError:
    reason = str(error).strip().partition("\n")[0][:200]
    return UserError(f"checkpoint {step} in {folder} does not fit this model: {reason}; {advice}")
