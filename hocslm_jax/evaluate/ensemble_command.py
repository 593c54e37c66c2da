"""The verb `ensemble`: fuses the scores of several models on the same clips.

In: run folders, scores.npz files or score pickles, matched by clip id (`score_files`). Out: the
ensemble's count, members and weights; optionally the rows of the paper's Table 7, a comparison with
another ensemble, and the wrong clips; also as JSON.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble import (
    PRESETS,
    SPACES,
    check_held_out,
    fit_weights,
    fuse,
    preset_weights,
    stream_rows,
)
from hocslm_jax.evaluate.mistakes import clip_table, confusion_table, mistakes
from hocslm_jax.evaluate.results import accuracy_text
from hocslm_jax.evaluate.score_files import Member, match, read_clip_list, read_members
from hocslm_jax.evaluate.scores import Scores, save_scores
from hocslm_jax.evaluate.significance import accuracy_interval, beats_chance, compare
from hocslm_jax.files.atomic import write_text

HELP = "[STREAM=]PATH of a run folder, a folder of runs, a scores.npz or a score pickle"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `python -m hocslm_jax ensemble`."""
    add = parser.add_argument
    add("scores", nargs="+", metavar="SCORES", help=HELP)
    add("--preset", choices=[*PRESETS, "fit"], default="equal", help="weights; default equal")
    add("--weights", nargs="+", type=float, metavar="W", help="one per member instead of a preset")
    add("--fit-on", nargs="+", metavar="SCORES", help="held-out training clips, for --preset fit")
    add("--fuse", choices=SPACES, default="logits", help="what to sum; default raw logits")
    add("--clips", type=Path, metavar="FILE", help="lines `ID [LABEL]` for pickles without ids")
    add("--against", nargs="+", metavar="SCORES", help="compare with this ensemble, same weights")
    add("--table", action="store_true", help="rows of 1, 2, 4 and 6 streams")
    add("--json", type=Path, metavar="OUT", help="write all results as JSON")
    add("--save", type=Path, metavar="OUT.npz", help="write the ensemble's scores, to fuse further")
    add("--wrong", type=Path, metavar="OUT.md", help="write the wrong clips as Markdown")


def run(args: argparse.Namespace) -> None:
    """Fuses, prints and writes.

    Raises:
        UserError: scores are unreadable or do not belong together, or the weights do not fit.
    """
    clips = read_clip_list(args.clips) if args.clips else None
    members = read_members(args.scores, clips)
    warn_of_chance(members)
    weights = _weights(args, members)
    fused = fuse(members, weights, args.fuse)
    report = _report(args, members, weights, fused)
    _print_ensemble(report)
    if args.table:
        if args.weights or args.preset == "fit":
            raise UserError("--table has ensembles of other sizes: give a --preset of streams")
        report["table"] = stream_rows(members, args.preset, args.fuse)
        for row in report["table"]:
            counts = (accuracy_text(correct, row["total"]) for correct in row["correct"])
            print(f"  {row['row']:18} {', '.join(counts)}")
    if args.against:
        report["against"] = _against(args, clips, members, fused)
        _print_comparison(report["against"])
    if args.json:
        _write(args.json, json.dumps(report, indent=1) + "\n")
    if args.save:
        args.save.parent.mkdir(parents=True, exist_ok=True)
        save_scores(args.save, fused)
        print(f"wrote {args.save}")
    if args.wrong:
        found, wrong = report["mistakes"], fused.total - fused.correct
        lines = [f"# Wrong clips: {wrong} of {fused.total}", "", f"`{report['command']}`", ""]
        lines += [*confusion_table(found), "", *clip_table(found, len(members))]
        _write(args.wrong, "\n".join(lines) + "\n")


def warn_of_chance(members: Sequence[Member]) -> None:
    """Prints a note for each member that is no better than chance."""
    for member in members:
        scores, classes = member.scores, member.scores.logits.shape[1]
        if classes > 1 and not beats_chance(scores.correct, scores.total, classes):
            print(
                f"note: {member.name}: {accuracy_text(scores.correct, scores.total)} is no better "
                f"than chance among {classes} classes; are its classes in the order of the labels?",
                file=sys.stderr,
            )


def _weights(args: argparse.Namespace, members: Sequence[Member]) -> np.ndarray:
    if (args.preset == "fit") != bool(args.fit_on):
        raise UserError("--preset fit needs --fit-on, and --fit-on needs --preset fit")
    if args.weights:
        if args.preset != "equal" or len(args.weights) != len(members):
            raise UserError(
                f"--weights has {len(args.weights)} values for {len(members)} members, or comes "
                "with a preset: give one value per member and no preset"
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
    _, other = match([Member("the ensemble", fused), Member("--against", other)])
    names = {"members": [member.name for member in others], "preset": preset}
    return names | compare(fused, other.scores)


def _report(args, members: Sequence[Member], weights: np.ndarray, fused: Scores) -> dict:
    return {
        "command": shlex.join(["python", "-m", "hocslm_jax", *sys.argv[1:]]),
        "preset": "given" if args.weights else args.preset,
        "fuse": args.fuse,
        "correct": fused.correct,
        "total": fused.total,
        "top5_correct": fused.top5_correct,
        "interval": accuracy_interval(fused.correct, fused.total),
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
        "mistakes": mistakes(fused, members),
    }


def _print_ensemble(report: dict) -> None:
    width = max(len(member["name"]) for member in report["members"])
    for member in report["members"]:
        about = f"{member['name']:{width}}  {member['stream'] or '–':12}"
        count = accuracy_text(member["correct"], report["total"])
        print(f"  {about}  weight {member['weight']:.3g}  {count}")
    low, high = (100 * bound for bound in report["interval"])
    print(
        f"ensemble of {len(report['members'])}, {report['preset']} weights on {report['fuse']}: "
        f"{accuracy_text(report['correct'], report['total'])}, "
        f"95 % interval {low:.2f} to {high:.2f} %"
    )


def _print_comparison(found: dict) -> None:
    low, high = (100 * bound for bound in found["interval"])
    print(
        f"against {', '.join(found['members'])}: "
        f"{accuracy_text(found['correct'], found['total'])} vs. "
        f"{accuracy_text(found['other_correct'], found['total'])}; only this one is right on "
        f"{found['only_this']} clips, only the other on {found['only_other']}; McNemar p = "
        f"{found['p_value']:.3g}; difference {100 * found['difference']:+.2f} points, 95 % "
        f"interval {low:+.2f} to {high:+.2f}"
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    print(f"wrote {path}")
