"""`python -m hocslm_jax predict`: what a trained run makes of skeleton files.

In: the workdir of a run, or a release of one, and files as `predict/inputs.py` reads them. Out: for
each the class, its probability and, with --describe, a sentence of the run's language model, as
text or JSON lines.
From a notebook: `hocslm_jax.load_pretrained(path).predict(clips)`.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from absl import logging

from hocslm_jax.errors import UserError, brief
from hocslm_jax.language.describe import Decoding
from hocslm_jax.predict.inputs import find_files, read_joints, true_class
from hocslm_jax.predict.model import BATCH_SIZE, LoadedRun, Prediction, reseeded
from hocslm_jax.predict.pretrained import load_pretrained
from hocslm_jax.train.environment import use_compilation_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `python -m hocslm_jax predict`."""
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="RUN", help="workdir, release or hub id")
    add("files", nargs="+", metavar="FILE", help=".skeleton, .json, .npy; a folder or a pattern")
    add("--top", type=int, default=5, help="classes to show (default 5)")
    add("--json", action="store_true", help="one JSON object a line on the standard output")
    add("--batch-size", type=int, default=BATCH_SIZE, help="clips at a time (default 64)")
    add("--describe", action="store_true", help="also say in a sentence what happens")
    add("--lm", metavar="NAME", help="folder or hub id of the language model, if it moved")
    add("--temperature", type=float, default=0.0, help="0, the default, is greedy; above: sampled")
    add("--top-k", type=int, default=0, help="sample among the k likeliest tokens; 0 is all")
    add("--top-p", type=float, default=1.0, help="sample among the likeliest that reach p")
    add("--seed", type=int, default=0, help="of the sampling")
    add("--max-tokens", type=int, help="of a sentence (default: as in training)")


def run(args: argparse.Namespace) -> int:
    """Predicts every file that can be read; returns 1 if some could not.

    Raises:
        UserError: as `load_run` and `LoadedRun.language`, or not a single file could be read.
    """
    logging.set_verbosity(logging.ERROR)  # checkpoints are read aloud otherwise
    _check(args)
    loaded = load_pretrained(args.checkpoint, args.lm)
    if not loaded.metadata["metrics"]:
        print(f"{loaded.workdir} is not finished; this is its latest checkpoint", file=sys.stderr)
    use_compilation_cache()  # the user's own, whatever the run says
    decoding = None
    if args.describe:  # what is wrong with its language model shows before the files are read
        print(f"describing with {loaded.language.name}", file=sys.stderr)
        decoding = _decoding(args, loaded.config.lm.max_tokens)
    files, bad = find_files(args.files), []

    def report(path: Path, reason: str) -> None:
        bad.append(path)
        print(brief(f"{path}: {reason}"), file=sys.stderr)

    for path, prediction in predict_files(loaded, files, decoding, args.batch_size, report):
        for note in prediction.notes:
            print(f"{path}: {note}", file=sys.stderr)
        truth = true_class(path, loaded.classes)
        shown = as_json if args.json else as_text
        print(shown(path, prediction, args.top, truth), flush=True)
    if len(bad) == len(files):
        raise UserError("not one file could be used; the reasons are above")
    return int(bool(bad))


def predict_files(
    loaded: LoadedRun,
    files: Sequence[Path],
    decoding: Decoding | None,
    batch_size: int,
    on_bad: Callable[[Path, str], None],
) -> Iterator[tuple[Path, Prediction]]:
    """The predictions of the good files, in order; holds one batch of clips at a time."""
    size, group, turn = loaded.batch_size(len(files), batch_size), {}, 0
    for left, path in zip(reversed(range(len(files))), files, strict=True):
        try:
            dataset = loaded.config.data.dataset
            group[path] = read_joints(path, loaded.graph, dataset, loaded.compat)
        except ValueError as error:
            on_bad(path, str(error))
        if group and (len(group) == size or not left):
            how = decoding and reseeded(decoding, turn)
            yield from zip(group, loaded.predict(list(group.values()), how, size), strict=True)
            group, turn = {}, turn + 1


def as_json(path: Path, prediction: Prediction, top: int, truth: str | None) -> str:
    """One line; probabilities are those of the `top` classes."""
    shown = dataclasses.asdict(prediction)
    shown["probabilities"] = dict(list(shown["probabilities"].items())[:top])
    line = {"file": str(path), "class": shown.pop("name"), **shown, "truth": truth}
    return json.dumps(line, ensure_ascii=False)


def as_text(path: Path, prediction: Prediction, top: int, truth: str | None) -> str:
    """A few lines for people."""
    people = "1 person" if prediction.persons == 1 else f"{prediction.persons} persons"
    if prediction.persons_used < prediction.persons:
        people += f" ({prediction.persons_used} used)"
    low, high = prediction.coordinates
    measured = f"skeleton size {prediction.size:.3g}, coordinates {low:.3g} to {high:.3g}"
    head = f"{path}: {measured}; {prediction.frames} frames, {people}"
    lines = [head + (f", true class: {truth}" if truth else "")]
    for name, share in list(prediction.probabilities.items())[:top]:
        lines.append(f"  {100 * share:5.1f} %  {name}")
    if prediction.description is not None:
        lines.append(f"  {prediction.description}")
    return "\n".join(lines)


def _check(args: argparse.Namespace) -> None:
    for option in ("top", "batch_size"):
        if (value := getattr(args, option)) < 1:
            raise UserError(f"--{option.replace('_', '-')} {value}: at least 1 is needed")
    if not args.describe and args.lm:
        raise UserError("--lm is for describing: add --describe")
    if not args.temperature and (args.top_k or args.top_p != 1):
        raise UserError("--top-k and --top-p are for sampling: add --temperature 0.7")


def _decoding(args: argparse.Namespace, usual: int) -> Decoding:
    limit = usual if args.max_tokens is None else args.max_tokens
    return Decoding(limit, args.temperature, args.top_k, args.top_p, args.seed)
