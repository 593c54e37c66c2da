"""`python -m hocslm_jax predict`: classifies and describes skeleton files.

In: runs or releases (several form an ensemble), and files that `clip_files` reads. Out: for
each file its classes with their probabilities and, with --describe, a sentence, as text or JSON
lines; with --out a picture. In Python: `hocslm_jax.load_pretrained(path).predict(clips)`.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import logging

from hocslm_jax.data.prepare.readers.arrays import check_axes
from hocslm_jax.errors import UserError, brief
from hocslm_jax.graph import resolve_graph
from hocslm_jax.language.describe import Decoding
from hocslm_jax.predict.clip_files import find_files, to_draw, true_class
from hocslm_jax.predict.follow import follow
from hocslm_jax.predict.load_model import load_pretrained
from hocslm_jax.predict.predictor import Prediction, Predictor, usual_batch
from hocslm_jax.predict.video_clips import open_videos, reader
from hocslm_jax.train.environment import use_compilation_cache
from hocslm_jax.train.release_files import is_release


def run(args: argparse.Namespace) -> int:
    """Predicts every file that can be read; returns 1 if some could not.

    Raises:
        UserError: as `load_pretrained` and `Predictor.language`, or no file could be read.
    """
    logging.set_verbosity(logging.ERROR)  # Orbax reports every checkpoint that it reads
    files = find_files(args.files)
    _check(args, files)
    pose = open_videos(args, files)
    predictor = open_models(args.checkpoint, args.lm)
    decoding = None
    if args.describe:  # reports errors of the language model before the files are read
        print(f"describing with {predictor.language.name}", file=sys.stderr)
        usual = predictor.members[0].config.lm.max_tokens
        limit = usual if args.max_tokens is None else args.max_tokens
        decoding = Decoding(limit, args.temperature, args.top_k, args.top_p, args.seed)
    reading = dataclasses.replace(predictor.reading, layout=args.layout, axes=check_axes(args.axes))
    if args.follow:
        return follow(args, predictor, files, pose, decoding, reading)
    read = reader(predictor, reading, pose, args.save_skeleton)
    bad = []

    def report(path: Path, reason: str) -> None:
        bad.append(path)
        print(brief(f"{path}: {reason}"), file=sys.stderr)

    for path, clip, prediction in predict_files(
        predictor, files, decoding, args.batch_size, report, read
    ):
        for note in prediction.notes:
            print(f"{path}: {note}", file=sys.stderr)
        truth = true_class(path, predictor.classes)
        shown = as_json if args.json else as_text
        print(shown(path, prediction, args.top, truth), flush=True)
        if args.out:
            from hocslm_jax.draw.skeletons import render_clip  # imports matplotlib

            shares = prediction.probabilities
            joints = to_draw(clip, predictor.graph, predictor.reading.channels)
            render_clip(joints, predictor.graph, args.out, probabilities=shares, true_class=truth)
            print(f"wrote {args.out}", file=sys.stderr)
    if len(bad) == len(files):
        raise UserError("no file could be used; the reasons are above")
    return int(bool(bad))


def open_models(names: Sequence[str], lm: str | None = None) -> Predictor:
    """`load_pretrained` with the user's compilation cache; prints notes on the models."""
    use_compilation_cache()  # never a folder that a release names
    predictor = load_pretrained(names, lm)
    for member in predictor.members:
        if not member.metadata.get("metrics") and not is_release(member.folder):
            print(
                f"{member.folder} is not finished; this is its latest checkpoint", file=sys.stderr
            )
    if len(predictor.members) > 1:
        folders = ", ".join(member.folder.name for member in predictor.members)
        print(brief(f"ensemble of {len(predictor.members)}: {folders}"), file=sys.stderr)
    return predictor


def predict_files(
    predictor: Predictor,
    files: Sequence[Path],
    decoding: Decoding | None,
    batch_size: int,
    on_bad: Callable[[Path, str], None],
    read: Callable[[Path], np.ndarray] | None = None,
) -> Iterator[tuple[Path, np.ndarray, Prediction]]:
    """The clips and predictions of all usable files, in order; one batch of clips is in memory.

    Args:
        on_bad: called with each unusable file and the reason.
        read: makes a clip from a file; None reads skeleton files.
    """
    read = read or reader(predictor, predictor.reading)
    size, group = usual_batch(len(files), batch_size), {}
    for left, path in zip(reversed(range(len(files))), files, strict=True):
        try:
            group[path] = read(path)
        except ValueError as error:
            on_bad(path, str(error))
        if group and (len(group) == size or not left):
            found = predictor.predict(list(group.values()), decoding, size)
            yield from zip(group, group.values(), found, strict=True)
            group = {}


def as_json(path: Path, prediction: Prediction, top: int, truth: str | None) -> str:
    """One line of JSON, with the probabilities of the `top` classes."""
    shown = dataclasses.asdict(prediction) | {"probabilities": dict(prediction.top(top))}
    line = {"file": str(path), "class": shown.pop("name"), **shown, "truth": truth}
    return json.dumps(line, ensure_ascii=False)


def as_text(path: Path, prediction: Prediction, top: int, truth: str | None) -> str:
    """A few lines of text."""
    people = "1 person" if prediction.persons == 1 else f"{prediction.persons} persons"
    if prediction.persons_used < prediction.persons:
        people += f" ({prediction.persons_used} used)"
    low, high = prediction.coordinates
    measured = f"skeleton size {prediction.size:.3g}, coordinates {low:.3g} to {high:.3g}"
    head = f"{path}: {measured}; {prediction.frames} frames, {people}"
    lines = [head + (f", true class: {truth}" if truth else "")]
    lines += [f"  {100 * share:5.1f} %  {name}" for name, share in prediction.top(top)]
    if prediction.description is not None:
        lines.append(f"  {prediction.description}")
    return "\n".join(lines)


def _check(args: argparse.Namespace, files: Sequence[Path]) -> None:
    if not args.follow and not files:
        raise UserError("name at least one FILE; --follow alone reads frames from standard input")
    for option in ("top", "batch_size"):
        if (value := getattr(args, option)) < 1:
            raise UserError(f"--{option.replace('_', '-')} {value}: at least 1 is needed")
    check_axes(args.axes)
    if args.layout:
        resolve_graph(args.layout)
    if not args.describe and args.lm:
        raise UserError("--lm needs --describe")
    if not args.temperature and (args.top_k or args.top_p != 1):
        raise UserError("--top-k and --top-p need sampling: add e.g. --temperature 0.7")
    if args.out:
        from hocslm_jax.draw.skeletons import check_picture

        check_picture(args.out)
        if len(files) > 1:
            raise UserError(f"--out {args.out} draws one clip: give one file, not {len(files)}")
    if files and not any(path.exists() for path in files):
        raise UserError(brief(f"{files[0]} does not exist"))
