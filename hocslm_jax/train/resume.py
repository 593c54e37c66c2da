"""How a run starts: at step 0, at its latest checkpoint, or not at all if it is finished.

In: a `Run`, the manager of its checkpoints and its data iterator. Out: a state, and the totals of
the previous steps. Runs with another config or other data are refused.
"""

from collections.abc import Callable
from pathlib import Path

import jax

from hocslm_jax import hosts
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.results import read_result
from hocslm_jax.files import atomic
from hocslm_jax.hosts import say
from hocslm_jax.train import checkpoint, same_config
from hocslm_jax.train.identity import check_data
from hocslm_jax.train.metrics import Totals
from hocslm_jax.train.result import summary
from hocslm_jax.train.setup import Run


def start_or_resume(run: Run, manager, iterator, initial: Callable[[], dict]):
    """A new state, or the latest saved one with the data iterator at its saved position."""
    found = checkpoint.resume(manager, run.abstract_state, lambda meta: check_same(run, meta))
    if found is None:
        return run.init(jax.random.key(run.config.seed), initial()), Totals()
    meta, state = found
    iterator.set_state(meta["data"])
    say(f"resuming {run.workdir} at step {meta['step']}")
    return state, Totals(**meta["totals"])


def check_same(run: Run, meta: dict) -> None:
    """Raises UserError if a checkpoint belongs to another run, or has more steps than this one."""
    same_config.check_config(meta["config"], checkpoint.plain(run.config), run.workdir)
    check_data(meta, run.store, run.config.data.protocol, run.workdir)
    if meta["step"] > run.total_steps:
        raise UserError(
            f"{run.workdir} is at step {meta['step']}, past the {run.total_steps} steps of "
            f"train.epochs={run.config.train.epochs}: raise it or use another --workdir"
        )


def finished(run: Run) -> bool:
    """Whether the run's result exists already; prints it."""
    text = hosts.on_first(lambda: _known_result(run))
    if text:
        say(f"{run.workdir} is finished: {text}")
    return bool(text)


def _known_result(run: Run) -> str:
    """The result of a completed run in words; "" if there is none, or it is damaged."""
    path = run.workdir / "result.json"
    if not path.exists():
        return ""
    try:
        result = read_result(path)
        return summary(result) if result["steps"] == run.total_steps else ""
    except (UserError, KeyError, TypeError, ValueError):
        say(f"{path} is damaged: evaluating again")
        return ""


def make_folder(workdir: Path) -> None:
    """Process 0 creates the workdir. Raises UserError if that fails or a process cannot see it."""
    hosts.on_first(lambda: atomic.make_folder("--workdir", workdir))
    hosts.wait_to_see(workdir)
