"""`python -m hocslm_jax caption`: RGB videos in, one sentence about the motion of each clip out.

Frames of each video go to a vision-language model behind OpenAI-compatible servers (vLLM,
`transformers serve`, …). An answer that passes the check is appended to a JSONL file of {"id",
"caption", "model", "prompt", "time"}, which datasets read; others go to `*.rejected.jsonl` beside
it. Every line is written at once, so that a stopped run resumes. `--concurrency` workers of one
event loop ask; each holds one clip, decoded in a thread, so memory is bounded.
"""

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import datetime
import fcntl
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from hocslm_jax.errors import UserError, brief
from hocslm_jax.files.text import parse_json
from hocslm_jax.files.videos import find_videos
from hocslm_jax.language.caption import client
from hocslm_jax.language.caption.answers import problem, read_answer
from hocslm_jax.language.caption.video import read_frames
from hocslm_jax.progress import Progress

PROMPT = (
    "These are frames of one short video, in order of time. Say in one sentence what the person "
    "does, or what the two people do to each other. Name the action, the body parts that move, how "
    "they move, and any object in use. Do not mention the room, the clothes, the looks of anybody, "
    'the frames or the camera. Begin with "A person" or "Two people".'
)
TEMPERATURE_STEP = 0.4  # added for each further attempt at a clip, up to a temperature of 1
GIVE_UP = 8  # clips in a row, at least, that no server answered; then the run stops
OUTCOMES = ("written", "skipped", "rejected", "failed")

Write = Callable[[dict], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `python -m hocslm_jax caption`."""
    add = parser.add_argument
    add("--videos", required=True, help="folder of videos, at any depth; ids are their names")
    add("--out", required=True, help="JSONL file to append to; ids that are in it are skipped")
    add("--base-url", action="append", help=f"of a server; repeatable (default {client.URL})")
    add("--model", help="as the server names it; may be left out if it has only one")
    add("--prompt", default=PROMPT, help="what to ask about the frames")
    add("--frames", type=_positive, default=8, help="frames of a clip, evenly spread (default 8)")
    add("--size", type=_positive, default=512, help="their longer side, pixels (default 512)")
    add("--as-video", action="store_true", help="send the frames as one video (vLLM only)")
    add("--max-tokens", type=_positive, default=128, help="limit of an answer (default 128)")
    add("--temperature", type=float, default=0.0, help="of the first attempt (default 0)")
    add("--seed", type=int, default=0, help="of the first attempt")
    add("--attempts", type=_positive, default=3, help="answers to ask for until one passes")
    add("--no-check", dest="check", action="store_false", help="drop only empty answers")
    add("--concurrency", type=_positive, default=16, help="requests in flight (default 16)")
    add("--decoders", type=_positive, default=os.cpu_count(), help="threads that decode videos")
    add("--timeout", type=float, default=300.0, help="seconds for a whole answer")
    add("--retries", type=_natural, default=8, help="when a server is busy or away (default 8)")
    add("--backoff", type=float, default=1.0, help="seconds before the first; then doubled")
    add("--ids", help="file with the ids to caption, one a line")
    add("--limit", type=_positive, help="caption at most so many clips now")


def run(args: argparse.Namespace) -> int:
    """Captions the videos that have no caption yet; returns 1 if all of them failed.

    Raises:
      UserError: nothing to caption, no server, a refused request, a damaged output file.
    """
    missing = [name for name in ("av", "httpx2") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"captioning needs {' and '.join(missing)}; pip install av httpx2")
    videos, out = find_videos(args.videos, args.ids), Path(args.out)
    with (
        _appending(out) as (write, done),
        _appending(out.with_suffix(".rejected.jsonl")) as (reject, _),
    ):
        todo = [(clip, path) for clip, path in videos.items() if clip not in done]
        tally = collections.Counter(skipped=len(videos) - len(todo))
        todo, note = todo[: args.limit], " (stopped; rerun the same command to resume)"
        try:
            with Progress(len(todo), unit="clip") as progress:
                if todo:
                    asyncio.run(_caption_all(todo, _Run(args, write, reject, tally, progress)))
            note = ""
        finally:
            if not note or tally.total() > tally["skipped"]:
                print(f"{out}: {', '.join(f'{tally[key]:,} {key}' for key in OUTCOMES)}{note}")
    return int(bool(todo) and not tally["written"])


@dataclasses.dataclass(frozen=True)
class _Run:
    """What all workers share."""

    args: argparse.Namespace
    write: Write
    reject: Write
    tally: collections.Counter
    progress: Progress

    def count(self, outcome: str) -> None:
        """Adds a finished clip."""
        self.tally[outcome] += 1
        done = {name: self.tally[name] for name in ("written", "rejected", "failed")}
        self.progress.update(sum(done.values()), rejected=done["rejected"], failed=done["failed"])


async def _caption_all(todo: list[tuple[str, Path]], run: _Run) -> None:
    """Runs the workers over `todo`; the first error, or Ctrl-C, stops them all."""
    args, key = run.args, os.environ.get(client.KEY)
    async with contextlib.AsyncExitStack() as stack:
        servers = [client.connect(u, key, args.timeout) for u in args.base_url or [client.URL]]
        for server in servers:
            await stack.enter_async_context(server.client)
        model = await client.greet(servers, args.model)
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


async def _work(run: _Run, queue: Iterator, replicas: list, model: str, pool: Executor) -> None:
    """Captions clips of the common queue, one after the other, until it is empty.

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


async def _caption(run: _Run, clip: str, path: Path, replicas: list, model: str, pool) -> str:
    """One clip; returns "written", "rejected" or "failed". Raises as `client.ask` does."""
    args, loop = run.args, asyncio.get_running_loop()
    try:
        frames = await loop.run_in_executor(pool, read_frames, path, args.frames, args.size)
    except (ValueError, OSError) as error:
        tqdm.write(brief(f"{path}: {error}"), file=sys.stderr)
        return "failed"
    show = client.as_video if args.as_video else client.as_images
    shown = show(frames, args.prompt)
    for attempt in range(args.attempts):
        higher = min(1.0, args.temperature + TEMPERATURE_STEP * attempt)
        request = {
            "model": model,
            "temperature": max(args.temperature, higher),
            "max_tokens": args.max_tokens,
            "seed": args.seed + attempt,
            **shown,
        }
        reply = await client.ask(replicas, request, args.retries, args.backoff)
        text, cut = read_answer(reply)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        record = {"id": clip, "caption": text, "model": model, "prompt": args.prompt, "time": now}
        reason = problem(text) or cut if args.check or not text else None
        if reason is None:
            run.write(record)
            return "written"
        run.reject(record | {"reason": reason})
    return "rejected"


@contextlib.contextmanager
def _appending(path: Path) -> Iterator[tuple[Write, set[str]]]:
    """A JSONL file to add to: a function that writes a record at once, and the ids in it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another run is writing it; wait, or name another") from None
        except OSError:
            pass  # some network file systems cannot lock
        try:
            yield lambda record: file.write(json.dumps(record).encode() + b"\n"), _ids(path, file)
        finally:
            if not path.stat().st_size:
                path.unlink()


def _ids(path: Path, file) -> set[str]:
    """The ids in a JSONL file; a last line that a killed run left unfinished is removed."""
    data, ids = path.read_bytes(), set()
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        try:
            if line.strip():
                ids.add(parse_json(line)["id"])
        except (ValueError, TypeError, KeyError):
            if line.endswith(b"\n"):
                raise UserError(f"{path}:{number}: not a caption; fix or delete the line") from None
            file.truncate(len(data) - len(line))
            return ids
    if data and not data.endswith(b"\n"):
        file.write(b"\n")
    return ids


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _positive(text: str) -> int:
    if not (number := _natural(text)):
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return number
