"""The workers of a captioning run: each requests the captions of one clip at a time.

In: clips, servers and the settings of a run. Out: records in the run's two files. Clips are decoded
in threads; each of the `--concurrency` workers holds one clip, so memory is bounded.
"""

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import datetime
import os
import statistics
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from hocslm_jax.data.clip import Nobody
from hocslm_jax.data.prepare.ntu.sources import Member
from hocslm_jax.errors import UserError, brief, few
from hocslm_jax.language.caption import client
from hocslm_jax.language.caption.answers import DECLINED, problem, read_answer
from hocslm_jax.language.caption.caption_files import Write, way_of
from hocslm_jax.language.caption.crops import read_box
from hocslm_jax.language.caption.token_costs import Tokens, guess
from hocslm_jax.language.caption.video import Frames, read_frames
from hocslm_jax.progress import Progress

TEMPERATURE_STEP = 0.4  # added for each further answer about a clip; the maximum is 1
GIVE_UP = 8  # least number of consecutive clips without an answer after which the run stops

Clip = tuple[str, Path]


@dataclasses.dataclass
class Run:
    """The state that all workers share.

    Attributes:
      args: options of the command.
      extra: further fields of each request.
      write, reject: functions that record a caption or a rejected answer.
      existing: clip id -> its captions so far.
      rejected: (clip id, settings of the request) -> number of answers rejected so far.
      skeletons: clip id -> its skeleton file.
      tally: number of clips by outcome; "captions" is the number of captions written.
      tokens: tokens of the answers of this run.
      gains: gain in resolution of each cropped clip.
      uncropped: reason -> ids of the clips that could not be cropped.
      progress: progress display; None until the number of clips is known.
    """

    args: argparse.Namespace
    extra: Mapping[str, object]
    write: Write
    reject: Write
    existing: Mapping[str, list[str]]
    rejected: Mapping[tuple[str, object], int]
    skeletons: Mapping[str, Member]
    tally: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    tokens: Tokens = dataclasses.field(default_factory=Tokens)
    gains: list[float] = dataclasses.field(default_factory=list)
    uncropped: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    progress: Progress | None = None
    requests: int = 0

    def count(self, outcome: str) -> None:
        """Counts a finished clip."""
        self.tally[outcome] += 1
        done = {name: self.tally[name] for name in ("written", "rejected", "failed")}
        self.progress.update(sum(done.values()), rejected=done["rejected"], failed=done["failed"])

    def guess(self, todo: list[Clip]) -> str:
        """The estimated tokens of the clips, as one line."""
        args = self.args
        self.requests = sum(args.captions - len(self.existing.get(clip, ())) for clip, _ in todo)
        pictures = -(-args.frames // 2) if args.as_video else args.frames
        return guess(self.requests, pictures, args.size, args.prompt, args.prices)

    def way(self, clip: str, model: str) -> str:
        """A short name for the settings of the clip's requests."""
        names = ("prompt", "frames", "size", "as_video", "max_tokens", "temperature", "seed")
        settings = {name: getattr(self.args, name) for name in (*names, "check")}
        return way_of(
            settings | {"model": model, "extra": self.extra, "cropped": clip in self.skeletons}
        )

    def crops(self) -> str:
        """Summary of the crops as lines; "" without --skeletons."""
        lines = []
        if self.gains:
            gain = statistics.median(self.gains)
            lines.append(
                f"cropped to the joints: {len(self.gains):,}, at {gain:.1f} times the resolution"
            )
        for reason, clips in sorted(self.uncropped.items()):
            named = few(sorted(clips), most=3)
            lines.append(f"shown whole, {reason}: {len(clips):,} ({named})")
        return "; ".join(lines)


async def caption_all(todo: list[Clip], run: Run) -> None:
    """Runs the workers over `todo`; the first error or Ctrl-C stops all of them."""
    args, key = run.args, os.environ.get(client.KEY)
    async with contextlib.AsyncExitStack() as stack:
        servers = [client.connect(u, key, args.timeout) for u in args.base_url or [client.URL]]
        for server in servers:
            await stack.enter_async_context(server.client)
        model = await client.greet(servers, args.model)
        todo = _not_refused(todo, model, run)[: args.limit]
        if not todo:
            return
        tqdm.write(run.guess(todo), file=sys.stdout)
        run.progress = stack.enter_context(Progress(len(todo), unit="clip"))
        pool = stack.enter_context(ThreadPoolExecutor(args.decoders))
        queue, workers = iter(todo), []
        for number in range(min(args.concurrency, len(todo))):
            first = number % len(servers)
            replicas = servers[first:] + servers[:first]  # its own server first, then the others
            workers.append(asyncio.create_task(_work(run, queue, replicas, model, pool)))
        try:
            await asyncio.gather(*workers)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def _not_refused(todo: list[Clip], model: str, run: Run) -> list[Clip]:
    """Leaves out clips whose answers were all rejected with the same settings before."""
    args = run.args
    if args.retry_refused:
        return todo
    left = [
        (clip, path)
        for clip, path in todo
        if run.rejected.get((clip, run.way(clip, model)), 0) < args.attempts
    ]
    run.tally["refused"] = len(todo) - len(left)
    return left


async def _work(run: Run, queue: Iterator, replicas: list, model: str, pool: Executor) -> None:
    """Captions clips of the shared queue until it is empty.

    Raises:
      UserError: a request is refused, or no server responds any more.
    """
    for clip, path in queue:
        try:
            outcome = await _caption(run, clip, path, replicas, model, pool)
            run.tally["unanswered"] = 0
        except client.Unanswered as error:
            outcome = "failed"
            tqdm.write(brief(f"{clip}: {error}"), file=sys.stderr)
            run.tally["unanswered"] += 1
            if run.tally["unanswered"] >= max(GIVE_UP, run.args.concurrency):
                raise UserError(f"no server responds ({error}); start them again") from None
        run.count(outcome)


async def _caption(run: Run, clip: str, path: Path, replicas: list, model: str, pool) -> str:
    """Captions one clip; returns "written", "rejected" or "failed". Errors as in `client.ask`."""
    args = run.args
    try:
        frames = await asyncio.get_running_loop().run_in_executor(pool, _frames, run, clip, path)
    except (ValueError, OSError) as error:
        tqdm.write(brief(f"{path}: {error}"), file=sys.stderr)
        return "failed"
    shown = (client.as_video if args.as_video else client.as_images)(frames, args.prompt)
    way, captions = run.way(clip, model), list(run.existing.get(clip, ()))
    rejected = run.rejected.get((clip, way), 0)
    most = args.attempts + (rejected if args.retry_refused else 0)
    while len(captions) < args.captions and rejected < most:
        request = _request(run, model, len(captions) + rejected) | shown
        try:
            reply = await client.ask(replicas, request, args.retries, args.backoff)
        except client.Declined:
            text, cut = "", DECLINED
        else:
            _count(run, reply)
            text, cut = read_answer(reply)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = {"id": clip, "caption": text, "model": model, "prompt": args.prompt, "time": now}
        reason = _fault(text, cut, captions, args.check)
        if reason is None:
            run.write(record)
            captions.append(text)
            run.tally["captions"] += 1
        else:
            run.reject(record | {"reason": reason, "way": way})
            rejected += 1
    return "written" if len(captions) >= args.captions else "rejected"


def _frames(run: Run, clip: str, path: Path) -> Frames:
    """The frames of a clip, cropped if it has a skeleton. Errors as in `read_frames`."""
    box = None
    if run.args.skeletons:
        try:
            box = read_box(run.skeletons[clip])
        except KeyError:
            run.uncropped.setdefault("without a skeleton", []).append(clip)
        except Nobody:
            run.uncropped.setdefault("with a skeleton that shows nobody", []).append(clip)
        except ValueError as error:
            tqdm.write(brief(f"{run.skeletons[clip].name}: {error}"), file=sys.stderr)
            run.uncropped.setdefault("with a damaged skeleton", []).append(clip)
    frames = read_frames(path, run.args.frames, run.args.size, box)
    if box is not None:
        run.gains.append(frames.gain)
    return frames


def _request(run: Run, model: str, number: int) -> dict:
    """Fields of the request, besides the frames, for answer `number` (from 0) about a clip."""
    args = run.args
    higher = min(1.0, args.temperature + TEMPERATURE_STEP * number)
    fields = {
        "model": model,
        "temperature": max(args.temperature, higher),
        "max_tokens": args.max_tokens,
        "seed": args.seed + number,
        **run.extra,
    }
    if "max_completion_tokens" in fields:  # replaces max_tokens; servers refuse both together
        del fields["max_tokens"]
    return fields


def _count(run: Run, reply: object) -> None:
    """Counts the tokens of an answer; after the first, prints an estimate for all of them."""
    first = not run.tokens.answers
    run.tokens.add(reply)
    if first and run.tokens.answers:
        tqdm.write(run.tokens.estimate(run.requests, run.args.prices), file=sys.stdout)


def _fault(text: str, cut: str | None, captions: list[str], check: bool) -> str | None:
    """The reason why an answer is not a further caption beside `captions`, or None if it is one."""
    if text in captions:
        return "the same as another of this clip"
    if text and not check:
        return None
    return cut if cut == DECLINED else problem(text) or cut
