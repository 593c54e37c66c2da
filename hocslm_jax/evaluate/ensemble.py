"""`python -m hocslm_jax ensemble`: several models' scores of the same clips, as one.

In: run folders, scores.npz files or score pickles, matched by clip id (`score_files`). Out: the
ensemble's count, members and weights; on request the rows of the paper's Table 7, a comparison with
another ensemble and the wrong clips; all of it as JSON.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.classification import Scores, save_scores
from hocslm_jax.evaluate.ensemble_weights import (
    PRESETS,
    SPACES,
    check_held_out,
    fit_weights,
    fuse,
    preset_weights,
)
from hocslm_jax.evaluate.mistakes import markdown, mistakes
from hocslm_jax.evaluate.score_files import Member, match, read_clip_list, read_members
from hocslm_jax.evaluate.significance import accuracy_interval, beats_chance, compare
from hocslm_jax.evaluate.stream_table import stream_table
from hocslm_jax.files.atomic import write_text

HELP = "[STREAM=]PATH of a run folder, a folder of runs, a scores.npz or a score pickle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `python -m hocslm_jax ensemble`."""
    add = parser.add_argument
    add("scores", nargs="+", metavar="SCORES", help=HELP)
    add("--preset", choices=[*PRESETS, "fit"], default="equal", help="weights; default equal")
    add("--weights", nargs="+", type=float, metavar="W", help="in the place of a preset")
    add("--fit-on", nargs="+", metavar="SCORES", help="held-out training clips, for --preset fit")
    add("--fuse", choices=SPACES, default="logits", help="what is summed; default raw logits")
    add("--clips", type=Path, metavar="FILE", help="lines `ID [LABEL]` for pickles without ids")
    add("--against", nargs="+", metavar="SCORES", help="compare with this ensemble, same weights")
    add("--table", action="store_true", help="rows of 1, 2, 4 and 6 streams")
    add("--json", type=Path, metavar="OUT", help="write everything here")
    add("--save", type=Path, metavar="OUT.npz", help="write the ensemble's scores, to fuse further")
    add("--wrong", type=Path, metavar="OUT.md", help="write the wrong clips as Markdown")


def run(args: argparse.Namespace) -> None:
    """Fuses, prints and writes.

    Raises:
        UserError: scores that cannot be read or do not belong together, or weights that do not fit.
    """
    clips = read_clip_list(args.clips) if args.clips else None
    members = read_members(args.scores, clips)
    for line in doubts(members):
        print(f"note: {line}", file=sys.stderr)
    weights = _weights(args, members)
    fused = fuse(members, weights, args.fuse)
    found = mistakes(fused, members)
    report = _report(args, members, weights, fused) | {"mistakes": found}
    print(_text(report))
    if args.table:
        if args.weights or args.preset == "fit":
            raise UserError("--table has ensembles of other sizes: give a --preset of streams")
        report["table"] = stream_table(members, args.preset, args.fuse)
        print("\n".join(_table_text(report["table"])))
    if args.against:
        report["against"] = _against(args, clips, members, fused)
        print(_against_text(report["against"]))
    if args.json:
        _write(args.json, json.dumps(report, indent=1) + "\n")
    if args.save:
        args.save.parent.mkdir(parents=True, exist_ok=True)
        save_scores(args.save, fused)
        print(f"wrote {args.save}")
    if args.wrong:
        _write(args.wrong, "\n".join(_wrong_document(report, found)) + "\n")


def doubts(members: Sequence[Member]) -> Iterator[str]:
    """A line for each member that is no better than chance."""
    for member in members:
        scores, classes = member.scores, member.scores.logits.shape[1]
        if classes > 1 and not beats_chance(scores.correct, scores.total, classes):
            yield (
                f"{member.name}: {_share(scores.correct, scores.total)} is no better than chance "
                f"among {classes} classes; are its classes in the order of the labels?"
            )


def _weights(args: argparse.Namespace, members: Sequence[Member]) -> np.ndarray:
    if (args.preset == "fit") != bool(args.fit_on):
        raise UserError("--preset fit and --fit-on go together: give both")
    if args.weights:
        if args.preset != "equal" or len(args.weights) != len(members):
            raise UserError(
                f"--weights has {len(args.weights)} values for {len(members)} members, or a preset "
                "beside it: give one for each member and no preset"
            )
        if not np.isfinite(args.weights).all() or not any(args.weights):
            raise UserError("--weights must be finite and not all zero")
        return np.array(args.weights)
    if args.preset == "fit":
        held_out = read_members(args.fit_on)
        check_held_out(members, held_out)
        return fit_weights(held_out, args.fuse)
    return preset_weights(args.preset, members)


def _against(args, clips, members: Sequence[Member], fused: Scores) -> dict:
    others = read_members(args.against, clips, labelled=members)
    preset = args.preset if args.preset in PRESETS else "equal"
    other = fuse(others, preset_weights(preset, others), args.fuse)
    this, other = (Member(name, scores) for name, scores in (("this", fused), ("--against", other)))
    _, other = match([this, other])
    return {
        "members": [member.name for member in others],
        "preset": preset,
        **compare(fused, other.scores),
    }


def _report(args, members: Sequence[Member], weights: np.ndarray, fused: Scores) -> dict:
    return {
        "command": shlex.join(["python", "-m", "hocslm_jax", *sys.argv[1:]]),
        "preset": "given" if args.weights else args.preset,
        "fuse": args.fuse,
        "correct": fused.correct,
        "total": fused.total,
        "top5_correct": fused.top5_correct,
        "interval": accuracy_interval(fused),
        "members": [
            {
                "name": member.name,
                "stream": member.stream,
                "seed": member.seed,
                "weight": round(float(weight), 6),
                "correct": member.scores.correct,
            }
            for member, weight in zip(members, weights, strict=True)
        ],
    }


def _text(report: dict) -> str:
    total = report["total"]
    width = max(len(member["name"]) for member in report["members"])
    lines = [
        f"  {member['name']:{width}}  {member['stream'] or '–':12}  weight {member['weight']:.3g}"
        f"  {_share(member['correct'], total)}"
        for member in report["members"]
    ]
    low, high = (f"{100 * bound:.2f}" for bound in report["interval"])
    lines.append(
        f"ensemble of {len(report['members'])}, {report['preset']} weights on {report['fuse']}: "
        f"{_share(report['correct'], total)}, 95 % interval {low} to {high} %"
    )
    return "\n".join(lines)


def _table_text(rows: Sequence[dict]) -> list[str]:
    return [
        f"  {row['row']:{max(len(r['row']) for r in rows)}}  "
        + ", ".join(_share(correct, row["total"]) for correct in row["correct"])
        for row in rows
    ]


def _against_text(found: dict) -> str:
    low, high = (f"{100 * bound:+.2f}" for bound in found["interval"])
    return (
        f"against {', '.join(found['members'])}: {_share(found['correct'], found['total'])} to "
        f"{_share(found['other_correct'], found['total'])}; right where the other is wrong "
        f"{found['only_this']}, wrong where it is right {found['only_other']}, McNemar p = "
        f"{found['p_value']:.3g}; difference {100 * found['difference']:+.2f} points, 95 % "
        f"interval {low} to {high}"
    )


def _wrong_document(report: dict, found: dict) -> list[str]:
    title = f"# Wrong clips: {report['total'] - report['correct']} of {report['total']}"
    command = f"Written by `{report['command']}`."
    return [title, "", command, "", *markdown(found, len(report["members"]))]


def _share(correct: int, total: int) -> str:
    return f"{correct}/{total} ({correct / total:.2%})"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    print(f"wrote {path}")
