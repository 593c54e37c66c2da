"""The loop that trains, evaluates, saves and reports; order: eval, save, next batch, step, log.

In: a `Run`. Out: the files of its workdir, and an exit status. A run killed at any moment goes on
from its latest complete checkpoint with the same batches, augmentations and dropout, bit for bit.
"""

import contextlib
import functools
import json
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.eval.classification import Scores, collect_scores, write_report
from hocslm_jax.train import checkpoint
from hocslm_jax.train.metrics import MetricWriter, Stopwatch, Totals, means, progress_bar, say
from hocslm_jax.train.program import compile_step, describe_model
from hocslm_jax.train.result import make_result, share, summary, write_json
from hocslm_jax.train.setup import Run
from hocslm_jax.train.state import eval_variables

# Steps the host runs ahead of the numbers it has checked; two keep the device busy.
AHEAD = 2


class Interrupted(Exception):
    """A signal arrived during evaluation."""


def train(
    run: Run, warm: Callable[[], dict] = dict, tell: Callable[[dict], dict] | None = None
) -> int:
    """Trains to the end, or until SIGTERM or Ctrl-C; returns the exit status (130 for Ctrl-C).

    Args:
        warm: called when the run starts anew; gives {"params", "batch_stats"} of the groups that do
            not start at random.
        tell: called with the last weights; gives more entries of `result.json`.

    Raises:
        UserError: the workdir holds another experiment, or a loss or gradient is not finite.
    """
    try:
        run.workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir {run.workdir}: {error.strerror}; choose another") from error
    with (
        catch_signals() as received,
        checkpoint.open_manager(run.workdir, run.config.train.keep) as manager,
        contextlib.closing(run.train_iterator()) as iterator,
    ):
        state, totals = start_or_resume(run, manager, iterator, warm)
        if int(state.step) >= run.total_steps and finished(run):
            return 0
        write_json(run.workdir / "config.json", checkpoint.plain(run.config))
        step, flops = compile_step(run)
        describe_model(run, flops)
        with contextlib.closing(MetricWriter(run.workdir, int(state.step))) as writer:
            trainer = Trainer(run, manager, iterator, writer, totals, received)
            return trainer.go(state, step, tell)


def evaluate(run: Run, tell: Callable[[dict], dict] | None = None) -> int:
    """Scores the test split with the latest checkpoint and writes the report (`--mode=eval`).

    Args:
        tell: as for `train`; what it returns is printed by itself and not kept.

    Raises:
        UserError: no complete checkpoint, or one of another model or other data.
    """
    meta = checkpoint.read_run(run.workdir)
    config = checkpoint.plain(run.config)
    checkpoint.check_config(meta["config"], config, run.workdir, checkpoint.EVALUATED)
    wanted = eval_variables(run.abstract_state)
    variables = checkpoint.restore_variables(run.workdir, wanted)
    if tell:
        tell(variables)
    scores = _scores(run, variables, run.test_batches())
    write_report(run.workdir, scores, run.store.classes)
    where = f"{run.workdir}/scores.npz"
    say(f"step {meta['step']}: test {share(scores.correct, scores.total)}; {where}")
    return 0


def start_or_resume(run: Run, manager, iterator, warm: Callable[[], dict]):
    """A new state, or the latest saved one with the data iterator set to where it was."""
    meta = checkpoint.read_meta(manager)
    if meta is None:
        return run.init(jax.random.key(run.config.seed), warm()), Totals()
    checkpoint.check_config(meta["config"], checkpoint.plain(run.config), run.workdir)
    if meta["step"] > run.total_steps:
        raise UserError(
            f"{run.workdir} is at step {meta['step']}, past the {run.total_steps} steps of "
            f"train.epochs={run.config.train.epochs}: raise it or use another --workdir"
        )
    state = checkpoint.restore(manager, run.abstract_state)
    iterator.set_state(meta["data"])
    say(f"resuming {run.workdir} at step {meta['step']}")
    return state, Totals(**meta["totals"])


def finished(run: Run) -> bool:
    """Whether the run's result is already there; says so."""
    path = run.workdir / "result.json"
    if not path.exists():
        return False
    result = json.loads(path.read_text())
    if result["steps"] != run.total_steps:
        return False
    say(f"{run.workdir} is finished: " + summary(result))
    return True


class Trainer:
    """One process's part of a run: from the state it starts with until it ends or must stop."""

    def __init__(self, run: Run, manager, iterator, writer, totals: Totals, received: list):
        self.run, self.manager, self.iterator = run, manager, iterator
        self.writer, self.totals, self.received = writer, totals, received
        self.pending: deque = deque()  # (step, host batch, metrics, finite) not read yet
        self.clock, self.lap = Stopwatch(), Stopwatch()
        self.timed = 0

    def go(self, state, train_step, tell=None) -> int:
        """The loop. `state.step` updates are done before the first pass."""
        run, cadence = self.run, self.run.config.train
        start = int(state.step)
        with contextlib.closing(progress_bar(run.total_steps, start)) as bar:
            for step in range(start, run.total_steps + 1):
                last = step == run.total_steps
                scores = self.maybe_evaluate(state, step)
                stop = self.told_to_stop(step)
                if last or stop or (step > start and step % cadence.checkpoint_every == 0):
                    self.save(state, step)
                if last and scores is not None:
                    return self.finish(scores, tell(eval_variables(state)) if tell else {})
                if stop:
                    return self.leave(step)
                batch = next(self.iterator)
                state, metrics, finite = train_step(state, run.frozen, run.put(batch))
                self.pending.append((step + 1, batch, metrics, finite))
                self.settle(AHEAD)
                if (step + 1) % cadence.log_every == 0:
                    self.log(step + 1)
                bar.update()
        raise AssertionError("the last step evaluates and returns")

    def settle(self, ahead: int = 0) -> None:
        """Reads the numbers of all but the last `ahead` steps; raises at one that is not finite."""
        while len(self.pending) > ahead:
            step, batch, metrics, finite = self.pending.popleft()
            if not finite:
                raise UserError(self.not_finite(step, batch))
            self.totals.add(jax.device_get(metrics))
            self.timed += 1
        if ahead == 0:
            self.totals.add_time(self.lap.lap(), self.timed)
            self.timed = 0

    def log(self, step: int) -> None:
        self.settle()
        run, values = self.run, means(self.totals.window)
        seconds = values.pop("step_time_s", 0.0)
        lr = float(f"{run.schedule(step - 1):.6g}")
        line = {"epoch": step / run.steps_per_epoch, "lr": lr}
        line |= {f"train/{name}": value for name, value in values.items()}
        if seconds:
            line["step_time_s"] = seconds
            line["samples_per_s"] = run.config.train.batch_size / seconds
        self.writer.write(step, line)
        self.totals.window.clear()

    def maybe_evaluate(self, state, step: int) -> Scores | None:
        """Scores at the end of an epoch that is due and at the last step; None otherwise."""
        run, totals = self.run, self.totals
        every = run.config.train.eval_every * run.steps_per_epoch
        last = step == run.total_steps
        due = last or (every and step and step % every == 0 and step != totals.evaluated_step)
        if not due or (self.received and not last):
            return None
        self.settle()
        try:
            scores = _scores(run, eval_variables(state), self.until_signal(run.test_batches()))
        except Interrupted:
            return None
        finally:
            self.lap.lap()
        if step != totals.evaluated_step:
            self.report(step, scores)
        return scores

    def report(self, step: int, scores: Scores) -> None:
        totals, epoch = self.totals, step // self.run.steps_per_epoch
        if scores.correct > totals.best_correct:
            totals.best_correct, totals.best_epoch = scores.correct, epoch
        values = {"eval/top1": scores.top1, "eval/correct": scores.correct}
        self.writer.write(step, {"epoch": epoch, **values, "eval/total": scores.total})
        seen = means(totals.epoch)
        trained = ""
        if "step_time_s" in seen:
            rate = self.run.config.train.batch_size / seen["step_time_s"]
            said = {
                "loss": "  loss {:.4f}",
                "top1": "  train {:.2%}",
                "caption_loss": "  text {:.4f}",
            }
            trained = "".join(text.format(seen[key]) for key, text in said.items() if key in seen)
            trained += f"  {rate:.1f} clips/s"
        epochs, tested = self.run.config.train.epochs, ""
        if "classifier" in self.run.stage.train:
            tested = f"  test {share(scores.correct, scores.total)}"
        say(f"epoch {epoch}/{epochs}{trained}{tested}")
        totals.epoch.clear()
        totals.evaluated_step = step

    def save(self, state, step: int) -> None:
        self.settle()  # a state that is not finite never becomes a checkpoint
        self.totals.wall_clock_s += self.clock.lap()
        meta = {
            "step": step,
            "config": checkpoint.plain(self.run.config),
            "data": self.iterator.get_state(),
            "totals": vars(self.totals),
        }
        checkpoint.save(self.manager, step, state, checkpoint.plain(meta))
        self.lap.lap()

    def told_to_stop(self, step: int) -> bool:
        return bool(self.received) or self.manager.reached_preemption(step)

    def until_signal(self, batches: Iterable) -> Iterator:
        for batch in batches:
            if self.received:
                raise Interrupted
            yield batch

    def leave(self, step: int) -> int:
        self.manager.wait_until_finished()
        where = f"step {step} is saved in {self.run.workdir}"
        say(f"stopped: {where}; the same command goes on from it")
        return 130 if signal.SIGINT in self.received else 0

    def finish(self, scores: Scores, told: dict) -> int:
        """Writes the reports and `result.json`, and says the result in one line."""
        run = self.run
        self.manager.wait_until_finished()
        write_report(run.workdir, scores, run.store.classes)
        self.totals.wall_clock_s += self.clock.lap()
        result = make_result(run, self.totals, scores) | told
        write_json(run.workdir / "result.json", result)
        say(f"{summary(result)}; {run.workdir}/result.json")
        return 0

    def not_finite(self, step: int, batch: dict[str, np.ndarray]) -> str:
        rows = batch["row"]
        bad = ~np.isfinite(batch["x"]).all(axis=tuple(range(1, batch["x"].ndim)))
        which = "clips with non-finite input" if bad.any() else "clips"
        ids = ", ".join(self.run.store.ids[row] for row in (rows[bad] if bad.any() else rows))
        saved = self.manager.latest_step()
        good = "none yet" if saved is None else f"step {saved} in {self.run.workdir}/checkpoints"
        return (
            f"loss or gradient is not finite at step {step} ({which}: {ids}); last good "
            f"checkpoint: {good}; lower optim.lr or set optim.clip_norm, in a new --workdir"
        )


@contextlib.contextmanager
def catch_signals() -> Iterator[list]:
    """Collects SIGTERM and SIGINT instead of dying; a second Ctrl-C interrupts at once.

    With several hosts nothing is caught: JAX's preemption service tells all of them the same step.
    """
    received: list = []
    if jax.process_count() > 1:
        yield received
        return

    def note(signum, frame):
        del frame
        received.append(signum)
        signal.signal(signum, old[signum])

    old = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def _scores(run: Run, variables: dict, batches: Iterable) -> Scores:
    rows = run.store.rows(run.config.data.protocol, "test")
    return collect_scores(functools.partial(run.predict, variables), batches, run.store, rows)
