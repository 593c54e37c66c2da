"""Whether a saved run has the settings of the one that resumes it, evaluates it or starts from it.

In: two configs as plain dicts. Out: nothing, or a UserError with the settings that differ.
"""

from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from hocslm_jax.errors import UserError

# Settings that may differ between the run that wrote a checkpoint and the one that resumes it.
FREE_TO_CHANGE = (
    "compilation_cache",
    "test.",
    "strategy",  # a name; `stages` has its meaning
    "t0",
    "distill.teacher",  # a path; `distill.targets` identifies the runs and the temperature
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
# Settings added after the first version, with the behaviour of older runs.
ADDED = {
    "data.channels": "xyz",
    "data.crop": 0.0,
    "data.jitter": 0.0,
    "data.mirror": 0.0,
    "data.origin": "",
    "data.rotation": 0.0,
    "data.scale": 0.0,
    "data.streams": [],
    "data.unseen": "",
    "distill.share": 0.0,
    "distill.targets": "",
    "lm.bos": False,
    "lm.pretrain.unseen": False,
    "lm.projector_init": "random",
    "lm.projector_reads": "feature",
    "lm.weights": "",
    "loss.mixup": 0.0,
    "loss.smoothing": 0.0,
    "model.remat": False,
}
ABSENT = "absent"  # stands for a setting that only one side has; equals no value of a setting
# Settings that evaluation depends on; all others only affect training.
EVALUATED = ("data.", "model.")


def check_config(
    saved: dict,
    config: dict,
    workdir: Path,
    only: tuple[str, ...] = ("",),
    advice: str = "use another --workdir or the same config",
) -> None:
    """Raises UserError with the differing keys if `workdir` holds another experiment.

    Args:
        only: prefixes of the keys that matter; all of them by default.
        advice: what the user can do about it.
    """
    old, new = (flatten_dict(settings, sep=".") for settings in (saved, config))
    keys = [k for k in sorted(old.keys() | new.keys()) if k.startswith(only)]
    keys = [k for k in keys if not k.startswith(FREE_TO_CHANGE)]
    pairs = {k: [side.get(k, ADDED.get(k, ABSENT)) for side in (old, new)] for k in keys}
    said = [
        f"{k} ({str(there)[:24]} there, {str(here)[:24]} here)"
        for k, (there, here) in pairs.items()
        if not _same(there, here)
    ]
    if said:
        more = f" and {len(said) - 3} more" if len(said) > 3 else ""
        raise UserError(
            f"{workdir} holds a run with another config: {', '.join(said[:3])}{more}; {advice}"
        )


def _same(one: Any, other: Any) -> bool:
    """Equality in which False differs from 0, but 1 equals 1.0."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return isinstance(one, bool) == isinstance(other, bool) and one == other
