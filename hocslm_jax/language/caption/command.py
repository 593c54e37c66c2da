"""`python -m hocslm_jax caption`: describes the motion in RGB videos with a vision-language model.

Frames of each video go to OpenAI-compatible servers (vLLM, `transformers serve`, …). An answer
that passes the check is appended to a JSONL file of {"id", "caption", "model", "prompt", "time"},
which datasets read; others go to `*.rejected.jsonl` beside it. Every line is written immediately,
so that a stopped run can resume. `--audit` compares such a file
with the classes of its clips.
"""

import argparse
import asyncio
import collections
import importlib.util
import json
import math
import os
from pathlib import Path

from hocslm_jax.errors import UserError
from hocslm_jax.files.text import parse_json
from hocslm_jax.files.videos import find_videos
from hocslm_jax.language.caption import audit, client
from hocslm_jax.language.caption.ask_clips import Run, caption_all
from hocslm_jax.language.caption.caption_files import appending, rejected_file
from hocslm_jax.language.caption.crops import find_skeletons

PROMPT = (
    "These are frames of one short video, in order of time. Say in one sentence what the person "
    "does, or what the two people do to each other. Name the action, the body parts that move, how "
    "they move, and any object in use. Do not mention the room, the clothes, the looks of anybody, "
    'the frames or the camera. Begin with "A person" or "Two people".'
)
OUTCOMES = ("written", "skipped", "rejected", "failed")
# Fields of a request that the captioner sets, and the option that changes each.
RESERVED = {
    "model": "--model",
    "messages": "--prompt",
    "temperature": "--temperature",
    "max_tokens": "--max-tokens",
    "seed": "--seed",
    "media_io_kwargs": "--frames",
    "n": "--captions",
    "stream": "",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `python -m hocslm_jax caption`."""
    add = parser.add_argument
    add("--videos", help="folder of videos, at any depth; ids are their names")
    add("--out", help="JSONL file to append to; clips already in it are skipped")
    add("--skeletons", help="folder or zip of NTU .skeleton files, to crop frames to the joints")
    add("--captions", type=_positive, default=1, help="different sentences per clip (default 1)")
    add(
        "--base-url",
        action="append",
        help=f"address of a server; repeatable (default {client.URL})",
    )
    add("--model", help="name on the server; may be omitted if it has only one model")
    add("--prompt", default=PROMPT, help="question about the frames")
    add("--frames", type=_positive, default=8, help="frames per clip, evenly spaced (default 8)")
    add("--size", type=_positive, default=512, help="their longer side, pixels (default 512)")
    add("--as-video", action="store_true", help="send the frames as one video (vLLM only)")
    add("--max-tokens", type=_positive, default=128, help="limit of an answer (default 128)")
    add(
        "--temperature",
        type=_amount,
        default=0.0,
        help="temperature of the first answer (default 0)",
    )
    add("--seed", type=int, default=0, help="seed of the first answer")
    add(
        "--request",
        action="extend",
        nargs="+",
        default=[],
        metavar="KEY=JSON",
        help="further fields of each request, such as top_p=0.9",
    )
    add("--attempts", type=_positive, default=3, help="rejected answers before a clip is skipped")
    add("--no-check", dest="check", action="store_false", help="drop only empty answers")
    add("--retry-refused", action="store_true", help="retry clips whose answers were all rejected")
    add("--concurrency", type=_positive, default=16, help="requests in flight (default 16)")
    add("--decoders", type=_positive, default=os.cpu_count(), help="threads that decode videos")
    add("--timeout", type=_amount, default=300.0, help="seconds for a complete answer")
    add(
        "--retries", type=_natural, default=8, help="if servers are busy or unreachable (default 8)"
    )
    add("--backoff", type=_amount, default=1.0, help="seconds before the first retry; then doubled")
    add("--ids", help="file with the ids to caption, one a line")
    add("--limit", type=_positive, help="most clips to caption now")
    add(
        "--prices",
        type=_amount,
        nargs=2,
        metavar=("IN", "OUT"),
        help="prices of a million prompt and completion tokens, to print the cost",
    )
    add("--estimate", action="store_true", help="print the estimated cost, and send no request")
    add("--audit", metavar="FILE", help="only compare the captions of FILE with the classes")
    add("--labels", help="with --audit: table of id,label; default the dataset beside FILE")


def run(args: argparse.Namespace) -> int:
    """Captions the videos that have no caption yet; returns 1 if all of them failed.

    Raises:
      UserError: nothing to caption, no server, a refused request, or a damaged output file.
    """
    if args.audit:
        return audit.run(args.audit, args.labels, args.out)
    if not args.videos or not args.out:
        raise UserError("name the folder of videos with --videos, and the file with --out")
    missing = [name for name in ("av", "httpx2") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"captioning needs {' and '.join(missing)}; pip install av httpx2")
    extra, out = read_fields(args.request), Path(args.out)
    videos = find_videos(args.videos, args.ids)
    skeletons = find_skeletons(args.skeletons) if args.skeletons else {}
    if args.skeletons and not skeletons.keys() & videos.keys():
        raise UserError(
            f"--skeletons {args.skeletons}: none of its files belongs to a video of {args.videos}; "
            "they need the videos' ids as names"
        )
    with (
        appending(out, "caption") as (write, captions),
        appending(rejected_file(out), "way") as (reject, rejected),
    ):
        existing: dict[str, list[str]] = {}
        for clip, caption in captions:
            if caption not in existing.setdefault(clip, []):
                existing[clip].append(caption)
        shared = Run(args, extra, write, reject, existing, collections.Counter(rejected), skeletons)
        todo = [
            (clip, path)
            for clip, path in videos.items()
            if len(existing.get(clip, ())) < args.captions
        ]
        if args.estimate:
            print(shared.guess(todo[: args.limit]))
            return 0
        shared.tally["skipped"] = len(videos) - len(todo)
        return _ask(todo, shared, out)


def _ask(todo: list, shared: Run, out: Path) -> int:
    """Runs the workers and prints the outcomes; returns the exit status."""
    tally, note = shared.tally, " (stopped; rerun the same command to resume)"
    already = tally["skipped"]
    try:
        if todo:
            asyncio.run(caption_all(todo, shared))
        note = ""
    finally:
        tally["skipped"] += tally["refused"]
        if not note or sum(tally[key] for key in OUTCOMES) > already:
            print(f"{out}: {', '.join(f'{tally[key]:,} {key}' for key in OUTCOMES)}{note}")
            _say_more(shared, out)
    asked = len(todo) - tally["refused"]
    return int(bool(asked) and not tally["captions"])


def _say_more(shared: Run, out: Path) -> None:
    """Prints further lines: captions, clips rejected before, crops and tokens."""
    args, tally = shared.args, shared.tally
    if args.captions > 1:
        print(f"captions: {tally['captions']:,} new ones, up to {args.captions} of a clip")
    if tally["refused"]:
        print(
            f"of {tally['skipped']:,} skipped clips, {tally['refused']:,} had all answers rejected "
            f"with the same settings ({rejected_file(out)}); --retry-refused tries them again"
        )
    for line in filter(None, (shared.crops(), shared.tokens.total(args.prices))):
        print(line)


def read_fields(given: list[str]) -> dict[str, object]:
    """Parses fields of a request, each KEY=JSON.

    Raises:
      UserError: another form, or a field that the captioner sets.
    """
    fields = {}
    for text in given:
        key, equals, value = text.partition("=")
        if key in RESERVED:
            advice = f"; use {RESERVED[key]}" if RESERVED[key] else ""
            raise UserError(f"--request {key}: the captioner sets this field{advice}")
        try:
            if not key or not equals:
                raise ValueError("no KEY=")
            fields[key] = parse_json(value)
            json.dumps(fields[key], allow_nan=False, ensure_ascii=False).encode()
        except ValueError:
            raise UserError(
                f"--request {text}: expected KEY=JSON, such as top_p=0.9 or 'stop=[\"\\n\"]'; "
                "strings need double quotes"
            ) from None
    return fields


def _amount(text: str) -> float:
    if not 0 <= (number := float(text)) < math.inf:  # NaN is neither
        raise argparse.ArgumentTypeError(f"{text} is negative or not finite")
    return number


def _natural(text: str) -> int:
    if (number := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def _positive(text: str) -> int:
    if not (number := _natural(text)):
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return number
