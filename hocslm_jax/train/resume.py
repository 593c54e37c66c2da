"""Where a run begins: anew, at its latest checkpoint, or not at all because it is finished.

In: a `Run`, the manager of its checkpoints and its data iterator. Out: a state, and the totals of
the steps before it. A run at another config, or at other data, is refused.
"""

from collections.abc import Callable
from pathlib import Path

import jax

from hocslm_jax import hosts
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.results import read_result
from hocslm_jax.files import atomic
from hocslm_jax.hosts import say
from hocslm_jax.train import checkpoint
from hocslm_jax.train.identity import check_data
from hocslm_jax.train.metrics import Totals
from hocslm_jax.train.result import summary
from hocslm_jax.train.setup import Run


def start_or_resume(run: Run, manager, iterator, initial: Callable[[], dict]):
    """A new state, or the latest saved one with the data iterator set to where it was."""
    found = checkpoint.resume(manager, run.abstract_state, lambda meta: check_same(run, meta))
    if found is None:
        return run.init(jax.random.key(run.config.seed), initial()), Totals()
    meta, state = found
    iterator.set_state(meta["data"])
    say(f"resuming {run.workdir} at step {meta['step']}")
    return state, Totals(**meta["totals"])


def check_same(run: Run, meta: dict) -> None:
    """Raises UserError where a checkpoint is of another run than this one, or ahead of it."""
    checkpoint.check_config(meta["config"], checkpoint.plain(run.config), run.workdir)
    check_data(meta, run.store, run.config.data.protocol, run.workdir)
    if meta["step"] > run.total_steps:
        raise UserError(
            f"{run.workdir} is at step {meta['step']}, past the {run.total_steps} steps of "
            f"train.epochs={run.config.train.epochs}: raise it or use another --workdir"
        )


def finished(run: Run) -> bool:
    """Whether the run's result is already there; says so."""
    text = hosts.on_first(lambda: _known_result(run))
    if text:
        say(f"{run.workdir} is finished: {text}")
    return bool(text)


def _known_result(run: Run) -> str:
    """The result of a run with all its steps in words; "" where there is none, or a damaged one."""
    path = run.workdir / "result.json"
    if not path.exists():
        return ""
    try:
        result = read_result(path)
        return summary(result) if result["steps"] == run.total_steps else ""
    except (UserError, KeyError, TypeError, ValueError):
        say(f"{path} is damaged: evaluating once more")
        return ""


def make_folder(workdir: Path) -> None:
    """Process 0 makes the workdir. Raises UserError if it cannot, or if a process sees none."""
    hosts.on_first(lambda: atomic.make_folder("--workdir", workdir))
    hosts.wait_to_see(workdir)
