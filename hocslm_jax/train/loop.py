"""The loop that trains, evaluates, saves and reports; order: eval, save, next batch, step, log.

In: a `Run`. Out: the files of its workdir, and an exit status. A run killed at any moment goes on
from its latest complete checkpoint with the same batches, augmentations and dropout, bit for bit.
"""

import contextlib
import functools
from collections import deque
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from hocslm_jax import hosts
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.results import read_result
from hocslm_jax.evaluate.scores import Scores, write_report
from hocslm_jax.files import atomic
from hocslm_jax.hosts import say
from hocslm_jax.train import checkpoint, multi_stream
from hocslm_jax.train.bound import check_data, identity
from hocslm_jax.train.fingerprint import checksum, fingerprint
from hocslm_jax.train.metrics import MetricWriter, Stopwatch, Totals, means, progress_bar
from hocslm_jax.train.program import compile_step, describe_input, describe_model
from hocslm_jax.train.result import make_result, share, summary, withdraw_result
from hocslm_jax.train.setup import Run
from hocslm_jax.train.signals import Ending, Interrupted, Stop, catch_signals, until_told
from hocslm_jax.train.stacked import named_metrics
from hocslm_jax.train.state import eval_variables

# Steps the host runs ahead of the numbers it has checked; two keep the device busy.
AHEAD = 2


def train(
    run: Run, warm: Callable[[], dict] = dict, tell: Callable[[dict], dict] | None = None
) -> Ending:
    """Trains to the end, or until SIGTERM or Ctrl-C.

    Args:
        warm: called when the run starts anew; gives {"params", "batch_stats"} of the groups that do
            not start at random.
        tell: called with the last weights; gives more entries of `result.json`.

    Raises:
        UserError: the workdir holds another experiment, a loss or gradient is not finite, or the
            processes of the run were given different things.
    """
    hosts.check_same("settings or data", lambda: fingerprint(run))
    make_folder(run.workdir)
    with (
        catch_signals() as stop,
        checkpoint.open_manager(run.workdir, run.config.train.keep) as manager,
        contextlib.closing(run.train_iterator()) as iterator,
    ):
        state, totals = start_or_resume(run, manager, iterator, warm)
        if int(state.step) >= run.total_steps and finished(run):
            return Ending(finished=True)
        hosts.on_first(lambda: withdraw_result(run))
        step, flops = compile_step(run)
        config = checkpoint.plain(run.config)
        hosts.on_first(lambda: atomic.write_json(run.workdir / "config.json", config))
        describe_model(run, flops)
        for line in describe_input(run):
            say(line)
        with contextlib.closing(MetricWriter(run.workdir, int(state.step))) as writer:
            hosts.wait_for_all()  # gloo gives up on a process that starts 30 s after another
            trainer = Trainer(run, manager, iterator, writer, totals, stop)
            return trainer.go(state, step, tell)


def evaluate(run: Run, tell: Callable[[dict], dict] | None = None) -> int:
    """Scores the test split with the latest checkpoint and writes the report (`--mode=eval`).

    Args:
        tell: as for `train`; what it returns is printed by itself and not kept.

    Raises:
        UserError: no complete checkpoint, or one of another model or other data.
    """
    hosts.check_same("settings or data", lambda: fingerprint(run))
    config, protocol = checkpoint.plain(run.config), run.config.data.protocol

    def check(meta: dict) -> None:
        checkpoint.check_config(meta["config"], config, run.workdir, checkpoint.EVALUATED)
        check_data(meta, run.store, protocol, run.workdir)

    wanted = eval_variables(run.abstract_state)
    meta, variables = checkpoint.resume_variables(run.workdir, wanted, check)
    if tell:
        tell(variables)
    scores = multi_stream.score(run, variables, run.test_batches())
    for one, found in multi_stream.single_runs(run, scores):
        hosts.on_first(functools.partial(write_report, one.workdir, found, run.store.classes))
        where = f"{one.workdir}/scores.npz"
        say(f"step {meta['step']}: test {share(found.correct, found.total)}; {where}")
    if scores.parts:
        say(f"together: {share(scores.correct, scores.total)}")
    return 0


def start_or_resume(run: Run, manager, iterator, warm: Callable[[], dict]):
    """A new state, or the latest saved one with the data iterator set to where it was."""
    found = checkpoint.resume(manager, run.abstract_state, lambda meta: check_same(run, meta))
    if found is None:
        return run.init(jax.random.key(run.config.seed), warm()), Totals()
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
    text = hosts.on_first(lambda: _told_result(run))
    if text:
        say(f"{run.workdir} is finished: {text}")
    return bool(text)


def _told_result(run: Run) -> str:
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


class Trainer:
    """One process's part of a run: from the state it starts with until it ends or must stop."""

    def __init__(self, run: Run, manager, iterator, writer, totals: Totals, stop: Stop):
        self.run, self.manager, self.iterator = run, manager, iterator
        self.writer, self.totals, self.stop = writer, totals, stop
        self.pending: deque = deque()  # (step, host batch, metrics, finite) not read yet
        self.clock, self.lap = Stopwatch(), Stopwatch()
        self.timed = 0
        self.dataset = identity(run.store, run.config.data.protocol)

    def go(self, state, train_step, tell=None) -> Ending:
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
                    told = tell(eval_variables(state)) if tell else {}
                    return self.finish(state, scores, told)
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
            if not np.all(finite):
                raise UserError(self.not_finite(step, batch, np.asarray(finite)))
            self.totals.add(named_metrics(jax.device_get(metrics), self.run.streams))
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
        if not due or (self.stop.told and not last):
            return None
        self.settle()
        try:
            scores, *val = [
                multi_stream.score(run, eval_variables(state), batches, split)
                for split in ("test", "val")[: 1 + run.has_val]
                for batches in [until_told(run.test_batches(split=split), self.stop)]
            ]
        except Interrupted:
            return None
        finally:
            self.lap.lap()
        if step != totals.evaluated_step:
            self.report(step, scores, *val)
        return scores

    def report(self, step: int, scores: Scores, val: Scores | None = None) -> None:
        totals, epoch = self.totals, step // self.run.steps_per_epoch
        parts = scores.parts
        seen, by_val = [
            found and (found.correct, {n: part.correct for n, part in found.parts.items()})
            for found in (scores, val)
        ]
        totals.note_best(epoch, *seen, by_val)
        values = {"eval/top1": scores.top1, "eval/correct": scores.correct}
        if val:
            values |= {"val/top1": val.top1, "val/correct": val.correct, "val/total": val.total}
        for name, part in parts.items():
            values |= {f"eval/top1/{name}": part.top1, f"eval/correct/{name}": part.correct}
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
            tested += f"  val {share(val.correct, val.total)}" if val else ""
            if parts:
                tested += f" ({', '.join(f'{n} {part.top1:.2%}' for n, part in parts.items())})"
        say(f"epoch {epoch}/{epochs}{trained}{tested}")
        totals.epoch.clear()
        totals.evaluated_step = step

    def save(self, state, step: int) -> None:
        self.settle()  # a state that is not finite never becomes a checkpoint
        hosts.check_same(
            f"the weights of step {step}",
            lambda: {"checksum": checksum(state)},
            "neither is saved; use hosts of one kind, and look for a faulty one",
        )
        self.totals.wall_clock_s += self.clock.lap()
        checkpoint.save(self.manager, step, state, self.meta(step))
        self.lap.lap()

    def meta(self, step: int) -> dict:
        """What a checkpoint holds besides the state."""
        meta = {
            "step": step,
            "config": checkpoint.plain(self.run.config),
            "dataset": self.dataset,
            "data": self.iterator.get_state(),
            "totals": vars(self.totals),
            "origin": self.run.origin,
        }
        return checkpoint.plain(meta)

    def told_to_stop(self, step: int) -> bool:
        del step
        return self.stop.ask()

    def leave(self, step: int) -> Ending:
        self.manager.wait_until_finished()
        where = f"step {step} is saved in {self.run.workdir}"
        say(f"stopped: {where}; the same command goes on from it")
        return Ending(finished=False, stopped=True, status=self.stop.status)

    def finish(self, state, scores: Scores, told: dict) -> Ending:
        """Writes the reports and `result.json`, and says the result in one line."""
        run, totals = self.run, self.totals
        self.manager.wait_until_finished()
        if not scores.parts:
            hosts.on_first(lambda: write_report(run.workdir, scores, run.store.classes))
        totals.wall_clock_s += self.clock.lap()
        multi_stream.write_single_runs(run, state, scores, totals, self.meta(run.total_steps))
        result = make_result(run, totals, scores) | told
        hosts.on_first(lambda: atomic.write_json(run.workdir / "result.json", result))
        say(f"{summary(result)}; {run.workdir}/result.json")
        stopped = hosts.any_process(bool(self.stop.received))
        return Ending(finished=True, stopped=stopped, status=self.stop.status)

    def not_finite(self, step: int, batch: dict[str, np.ndarray], finite: np.ndarray) -> str:
        rows = batch["row"]
        bad = ~np.isfinite(batch["x"]).all(axis=tuple(range(1, batch["x"].ndim)))
        which = "clips with non-finite input" if bad.any() else "clips"
        ids = ", ".join(self.run.store.ids[row] for row in (rows[bad] if bad.any() else rows))
        saved = self.manager.latest_step()
        good = "none yet" if saved is None else f"step {saved} in {self.run.workdir}/checkpoints"
        return (
            f"loss or gradient{multi_stream.named(self.run, ~finite)} is not finite at step {step} "
            f"({which}: {ids}); last good checkpoint: {good}; lower optim.lr or set "
            "optim.clip_norm, in a new --workdir"
        )
