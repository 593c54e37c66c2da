"""The loop that trains, evaluates, saves and reports. Order: eval, save, next batch, step, log.

In: a `Run`. Out: the files of its workdir, and an exit status. A run killed at any time resumes
from its latest complete checkpoint, with bitwise equal batches, augmentations and dropout.
"""

import contextlib
import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable

import jax
import numpy as np

from hocslm_jax import hosts
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.results import accuracy_text
from hocslm_jax.evaluate.scores import Scores, write_report
from hocslm_jax.files import atomic
from hocslm_jax.hosts import say
from hocslm_jax.progress import Progress
from hocslm_jax.train import checkpoint, environment, lineage, multi_stream, same_config
from hocslm_jax.train.identity import check_data, checksum, fingerprint, identity
from hocslm_jax.train.jitted import compile_step
from hocslm_jax.train.metrics import MetricWriter, Stopwatch, Totals, means
from hocslm_jax.train.model_summary import describe_input, describe_model
from hocslm_jax.train.result import epoch_line, make_result, summary, withdraw_result
from hocslm_jax.train.resume import finished, make_folder, start_or_resume
from hocslm_jax.train.setup import Run
from hocslm_jax.train.signals import Ending, Interrupted, Stop, catch_signals, until_stopped
from hocslm_jax.train.state import eval_variables
from hocslm_jax.train.stream_axis import named_metrics

AHEAD = 2  # steps that the host runs ahead of checked numbers; two keep the device busy


@dataclasses.dataclass(frozen=True)
class Schedule:
    """`config.train`: how long a run trains and how often it reports and saves.

    Attributes:
      epochs: epochs of stages that train from scratch; others use `finetune.epochs`.
      batch_size, eval_batch_size: clips over all devices.
      eval_every: epochs between evaluations; 0 = only at the end.
      checkpoint_every, log_every: in steps.
      keep: number of checkpoints to keep.
    """

    epochs: int = 65
    batch_size: int = 16
    eval_batch_size: int = 64
    eval_every: int = 1
    checkpoint_every: int = 200
    log_every: int = 20
    keep: int = 2


def train(
    run: Run, initial: Callable[[], dict] = dict, finish: Callable[[dict], dict] | None = None
) -> Ending:
    """Trains to the end, or until SIGTERM or Ctrl-C.

    Args:
        initial: called if the run does not resume; returns {"params", "batch_stats"} of the groups
            that do not start at random.
        finish: called with the final weights; returns more entries of `result.json`.

    Raises:
        UserError: the workdir holds another experiment, a loss or gradient is not finite, or the
            processes of the run have different settings or data.
    """
    hosts.check_same("settings or data", lambda: fingerprint(run))
    make_folder(run.workdir)
    with (
        catch_signals() as stop,
        checkpoint.open_manager(run.workdir, run.config.train.keep) as manager,
        contextlib.closing(run.train_iterator()) as iterator,
    ):
        state, totals = start_or_resume(run, manager, iterator, initial)
        if int(state.step) >= run.total_steps and finished(run):
            return Ending(finished=True)
        hosts.on_first(lambda: withdraw_result(run))
        say(f"{environment.describe_devices()}: compiling the train step")
        clock = Stopwatch()
        step, flops = compile_step(run)
        say(f"compiled in {clock.lap():.0f} s")
        config = checkpoint.plain(run.config)
        hosts.on_first(lambda: atomic.write_json(run.workdir / "config.json", config))
        describe_model(run, flops)
        for line in describe_input(run):
            say(line)
        evaluated = int(state.step) == totals.evaluated_step
        with contextlib.closing(MetricWriter(run.workdir, int(state.step), evaluated)) as writer:
            hosts.wait_for_all()  # gloo fails if processes start more than 30 s apart
            trainer = Trainer(run, manager, iterator, writer, totals, stop)
            return trainer.go(state, step, finish)


def evaluate(run: Run, finish: Callable[[dict], dict] | None = None) -> int:
    """Scores the test split with the latest checkpoint and writes the report (`--mode=eval`).

    Args:
        finish: as in `train`; its result is not kept.

    Raises:
        UserError: no complete checkpoint, or it has another model or other data.
    """
    hosts.check_same("settings or data", lambda: fingerprint(run))
    config, protocol = checkpoint.plain(run.config), run.config.data.protocol

    def check(meta: dict) -> None:
        same_config.check_config(meta["config"], config, run.workdir, same_config.EVALUATED)
        check_data(meta, run.store, protocol, run.workdir)

    wanted = eval_variables(run.abstract_state)
    meta, variables = checkpoint.resume_variables(run.workdir, wanted, check)
    if finish:
        finish(variables)
    scores = multi_stream.score(run, variables, run.test_batches())
    for one, found in multi_stream.single_runs(run, scores):
        hosts.on_first(functools.partial(write_report, one.workdir, found, run.store.classes))
        where = f"{one.workdir}/scores.npz"
        say(f"step {meta['step']}: test {accuracy_text(found.correct, found.total)}; {where}")
    if scores.parts:
        say(f"together: {accuracy_text(scores.correct, scores.total)}")
    return 0


class Trainer:
    """One process's part of a run, from its initial state until it ends or must stop."""

    def __init__(self, run: Run, manager, iterator, writer, totals: Totals, stop: Stop):
        self.run, self.manager, self.iterator = run, manager, iterator
        self.writer, self.totals, self.stop = writer, totals, stop
        self.pending: deque = deque()  # (step, host batch, metrics, finite) not read yet
        self.clock, self.lap = Stopwatch(), Stopwatch()
        self.recent: deque = deque(maxlen=20)  # (step, start time)
        self.timed = 0
        self.dataset = identity(run.store, run.config.data.protocol) | lineage.trained(run)

    def go(self, state, train_step, finish=None) -> Ending:
        """The loop; `state.step` updates have been done before."""
        run, cadence = self.run, self.run.config.train
        start = int(state.step)
        with Progress(run.total_steps, start) as progress:
            for step in range(start, run.total_steps + 1):
                last = step == run.total_steps
                scores = self.maybe_evaluate(state, step)
                stop = self.must_stop(step)
                if last or stop or (step > start and step % cadence.checkpoint_every == 0):
                    self.save(state, step)
                if last and scores is not None:
                    more = finish(eval_variables(state)) if finish else {}
                    return self.finish(state, scores, more)
                if stop:
                    return self.leave(step)
                batch = next(self.iterator)
                state, metrics, finite = train_step(state, run.frozen, run.put(batch))
                self.pending.append((step + 1, batch, metrics, finite))
                self.settle(AHEAD)
                if (step + 1) % cadence.log_every == 0:
                    self.log(step + 1)
                progress.update(step + 1, **self.shown(step + 1))

    def shown(self, step: int) -> dict[str, float]:
        """The numbers of the progress report: mean loss, and speed of the last steps."""
        self.recent.append((step, time.monotonic()))
        (first, since), (last, now) = self.recent[0], self.recent[-1]
        loss = means(self.totals.epoch).get("loss")
        numbers = {} if loss is None else {"loss": loss}
        if now > since:
            size = self.run.config.train.batch_size
            numbers["clips_per_s"] = size * (last - first) / (now - since)
        return numbers

    def settle(self, ahead: int = 0) -> None:
        """Reads the metrics of all but the last `ahead` steps; raises UserError if not finite."""
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
        line = {"epoch": step / run.steps_per_epoch, "lr": float(f"{run.schedule(step - 1):.6g}")}
        line |= {f"train/{name}": value for name, value in values.items()}
        if seconds:
            rate = run.config.train.batch_size / seconds
            line |= {"step_time_s": seconds, "samples_per_s": rate}
        self.writer.write(step, line)
        self.totals.window.clear()

    def maybe_evaluate(self, state, step: int) -> Scores | None:
        """Scores if an evaluation is due after an epoch, and after the last step; else None."""
        run, totals = self.run, self.totals
        every = run.config.train.eval_every * run.steps_per_epoch
        last = step == run.total_steps
        due = last or (every and step and step % every == 0 and step != totals.evaluated_step)
        if not due or (self.stop.agreed and not last):
            return None
        self.settle()
        try:
            scores, *val = [
                multi_stream.score(run, eval_variables(state), batches, split)
                for split in ("test", "val")[: 1 + run.has_val]
                for batches in [until_stopped(run.test_batches(split=split), self.stop)]
            ]
        except Interrupted:
            return None
        finally:
            self.lap.lap()
        if step != totals.evaluated_step:
            self.report(step, scores, *val)
        return scores

    def report(self, step: int, scores: Scores, val: Scores | None = None) -> None:
        run, totals = self.run, self.totals
        epoch, parts = step // run.steps_per_epoch, scores.parts
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
        say(epoch_line(run, epoch, means(totals.epoch), scores, val))
        totals.epoch.clear()
        totals.evaluated_step = step

    def save(self, state, step: int) -> None:
        self.settle()  # so that a state that is not finite is never saved
        hosts.check_same(
            f"the weights of step {step}",
            lambda: {"checksum": checksum(state)},
            "neither is saved; use equal hosts, and check for a faulty one",
        )
        self.totals.wall_clock_s += self.clock.lap()
        checkpoint.save(self.manager, step, state, self.meta(step))
        self.lap.lap()

    def meta(self, step: int) -> dict:
        """The content of a checkpoint besides the state."""
        meta = {
            "step": step,
            "config": checkpoint.plain(self.run.config),
            "dataset": self.dataset,
            "data": self.iterator.get_state(),
            "totals": vars(self.totals),
            "origin": self.run.origin,
        }
        return checkpoint.plain(meta)

    def must_stop(self, step: int) -> bool:
        return self.stop.ask()

    def leave(self, step: int) -> Ending:
        checkpoint.wait(self.manager)
        where = f"step {step} is saved in {self.run.workdir}"
        say(f"stopped: {where}; rerun the same command to resume")
        return Ending(finished=False, stopped=True, status=self.stop.status)

    def finish(self, state, scores: Scores, more: dict) -> Ending:
        """Writes the reports and `result.json`, and prints the result in one line."""
        run, totals = self.run, self.totals
        checkpoint.wait(self.manager)
        if not scores.parts:
            hosts.on_first(lambda: write_report(run.workdir, scores, run.store.classes))
        totals.wall_clock_s += self.clock.lap()
        multi_stream.write_single_runs(run, state, scores, totals, self.meta(run.total_steps))
        result = make_result(run, totals, scores) | more
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
