"""Results of several streams in one program: their scores, and a separate run of each.

In: a `Run` whose `streams` train side by side. Out: scores of each stream and of their ensemble; in
`workdir/<stream>/` all files of a separate run of that stream, so that it can be used like any
other workdir. A run of one stream is not changed.
"""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from hocslm_jax import hosts
from hocslm_jax.evaluate.ensemble import fuse, preset_weights
from hocslm_jax.evaluate.score_files import Member
from hocslm_jax.evaluate.scores import (
    Scores,
    collect_logits,
    make_scores,
    save_scores,
    write_report,
)
from hocslm_jax.files.atomic import write_json, write_text
from hocslm_jax.hosts import say
from hocslm_jax.progress import Progress
from hocslm_jax.train import checkpoint, stream_axis
from hocslm_jax.train.metrics import Totals, of_stream
from hocslm_jax.train.result import make_result, summary
from hocslm_jax.train.setup import Run


def score(run: Run, variables: dict, batches: Iterable, split: str = "test") -> Scores:
    """Scores of a split; for several streams, of their equal-weight ensemble, with its parts."""
    wanted = run.store.rows(run.config.data.protocol, split)
    batches = _watched(batches, len(wanted))
    predict = functools.partial(run.predict, variables)
    rows, logits = collect_logits(predict, batches, run.store, wanted)  # [N, C], or [N, S, C]
    if not run.streams:
        return make_scores(run.store, rows, logits)
    parts = {
        name: make_scores(run.store, rows, logits[:, place], name)
        for place, name in enumerate(run.streams)
    }
    members = [Member(name, part, name) for name, part in parts.items()]
    return dataclasses.replace(fuse(members, preset_weights("equal", members)), parts=parts)


def _watched(batches: Iterable, total: int) -> Iterator:
    """The batches of one evaluation, with a progress report."""
    with Progress(total, unit="clip", leave=False) as progress:
        done = 0
        for batch in batches:
            yield batch
            done += int((batch["row"] >= 0).sum()) * jax.process_count()
            progress.update(min(done, total))


def named(run: Run, chosen: np.ndarray) -> str:
    """` of joint, bone` for the chosen ones of several streams; "" for a single stream."""
    names = [stream for stream, yes in zip(run.streams, np.ravel(chosen), strict=False) if yes]
    return f" of {', '.join(names)}" if names else ""


def single_runs(run: Run, scores: Scores) -> list[tuple[Run, Scores]]:
    """The run itself, or a run of each of its streams, with their scores."""
    return [(single_run(run, name), part) for name, part in scores.parts.items()] or [(run, scores)]


def save(run: Run, scores: Scores, name: str) -> None:
    """Writes scores to a file of that name in the folder of the run, or of each of its streams."""

    def write() -> None:
        for one, found in single_runs(run, scores):
            one.workdir.mkdir(parents=True, exist_ok=True)
            save_scores(one.workdir / name, found)

    hosts.on_first(write)


def single_run(run: Run, stream: str) -> Run:
    """The run of one stream, without its programs."""
    config = ConfigDict(run.config.copy_and_resolve_references())
    config.data.update(stream=stream, streams=())
    config.mesh.stream = 1
    return dataclasses.replace(
        run,
        config=config,
        workdir=run.workdir / stream,
        feed=dataclasses.replace(run.feed, stream=stream, streams=()),
        abstract_state=run.one_state,
        init=None,
        train_step=None,
        predict=None,
    )


def write_single_runs(run: Run, state, scores: Scores, totals: Totals, meta: dict) -> None:
    """Makes a finished run of every stream: checkpoint, config, metrics, reports and result.

    Args:
        state: the stacked state, to which `meta` belongs.
    """
    pick = stream_axis.make_pick(run.one_state) if scores.parts else None
    for place, stream in enumerate(scores.parts):
        one, own = single_run(run, stream), totals.of_stream(stream, run.streams)
        hosts.on_first(functools.partial(one.workdir.mkdir, parents=True, exist_ok=True))
        config = checkpoint.plain(one.config)
        with checkpoint.open_manager(one.workdir, keep=1) as manager:
            its = checkpoint.plain(meta | {"config": config, "totals": vars(own)})
            checkpoint.save(manager, meta["step"], pick(state, place), its)
        part = scores.parts[stream]
        beside = {"trained_beside": [name for name in run.streams if name != stream]}
        result = make_result(one, own, part) | beside
        hosts.on_first(functools.partial(write_single_run, run, one, part, config, result))
        say(f"{stream}: {summary(result)}; {one.workdir}/result.json")


def write_single_run(run: Run, one: Run, scores: Scores, config: dict, result: dict) -> None:
    """Writes everything except the checkpoint; the result comes last."""
    write_text(one.workdir / "model.json", (run.workdir / "model.json").read_text())
    copy_metrics(run, one)
    write_json(one.workdir / "config.json", config)
    write_report(one.workdir, scores, run.store.classes)
    write_json(one.workdir / "result.json", result)


def copy_metrics(run: Run, one: Run) -> None:
    """Writes the metrics.jsonl of the stream."""
    lines = (run.workdir / "metrics.jsonl").read_text().splitlines()
    own = (of_stream(json.loads(line), one.feed.stream, run.streams) for line in lines)
    text = "".join(json.dumps(line) + "\n" for line in own)
    write_text(one.workdir / "metrics.jsonl", text)
