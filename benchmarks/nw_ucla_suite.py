"""All experiments on NW-UCLA in one command, for a machine with an accelerator.

    python -m benchmarks.nw_ucla_suite --out runs/suite [--minutes 600] [--dry-run]

In: the prepared dataset. Out, below `--out`: runs of HGLNet and CTR-GCN, six streams and three
seeds, without language (T0, six streams in one program) and with (T3); runs on held-out training
subjects for fitted weights; ensembles, a joint stream taught by the first six streams, pictures of
wrong clips, released weights; with `--results`, copies of the reports and docs/results.md.

Finished steps are not repeated: rerun the same command to resume. Steps that do not depend on a
failed step still run; failed steps are listed at the end.
"""

import argparse
import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.train.ablate import keep

ENCODERS = ("hglnet", "ctrgcn")
CONFIG = "configs/nw_ucla.py"
PICTURES = 12  # number of pictures of wrong clips
SHARE = 0.5  # weight of the teacher in the student's loss
GRACE = 120  # seconds for saving a checkpoint


@dataclasses.dataclass(frozen=True)
class Step:
    """A command; it is done when `done` exists, and can run when all of `needs` exist."""

    done: Path
    command: tuple[str, ...]
    needs: tuple[Path, ...] = ()


def plan(args: argparse.Namespace) -> Iterator[Step]:
    """All steps, the most informative first."""
    out = args.out
    for seed in args.seeds:
        for encoder in args.encoders:
            yield train(args, out / f"{encoder}_T0_seed{seed}", f"encoder={encoder}", seed)
    seed = args.seeds[0]
    for encoder in args.encoders:
        settings, held_out = f"encoder={encoder},protocol=xview_val", out / "held_out"
        yield train(args, held_out / f"{encoder}_T0_seed{seed}", settings, seed)
        yield from ensembles(args, encoder, "T0")
    yield from student(args, out / "held_out", f"encoder={args.encoders[0]},protocol=xview_val")
    yield from student(args, out, f"encoder={args.encoders[0]}")
    first = out / f"{args.encoders[0]}_T0_seed{seed}"
    weights = ("release", str(first), "--out", str(out / "weights"), *data_dir(args))
    yield verb(out / "weights" / PAPER_STREAMS[-1] / "README.md", weights, (first,))
    for seed in args.seeds:
        for encoder in args.encoders:
            for stream in PAPER_STREAMS:
                yield train_t3(args, encoder, stream, seed)
    for encoder in args.encoders:
        yield from ensembles(args, encoder, "T3")
    yield both_encoders(args)


def train(args: argparse.Namespace, workdir: Path, settings: str, seed: int) -> Step:
    """Six streams in one program."""
    parts = [settings, "streams=all", "strategy=T0", f"seed={seed}"]
    return launch(args, workdir, [*parts, *filter(None, [args.set])])


def train_t3(args: argparse.Namespace, encoder: str, stream: str, seed: int) -> Step:
    """One stream with language, from its T0 run."""
    t0 = args.out / f"{encoder}_T0_seed{seed}" / stream
    parts = [f"encoder={encoder}", f"stream={stream}", "strategy=T3", f"seed={seed}"]
    parts += [*filter(None, [args.set]), f"t0={t0}"]
    lm = f"--config.lm.folder={args.out / f'lm_seed{seed}'}"
    return launch(args, args.out / f"{encoder}_T3_seed{seed}" / stream, parts, lm, needs=(t0,))


def student(args: argparse.Namespace, out: Path, settings: str) -> Iterator[Step]:
    """A joint stream taught by the first encoder's six streams of the first seed, in `out`."""
    seed = args.seeds[0]
    teacher, flags = out / f"{args.encoders[0]}_T0_seed{seed}", ("--config.test.train_clips=True",)
    scored = train(args, teacher, settings, seed)
    done = teacher / PAPER_STREAMS[-1] / "scores_train.npz"
    yield Step(done, (*scored.command, "--mode=eval", *flags), (scored.done,))
    parts = [settings, "stream=joint", "strategy=T0", f"seed={seed}", *filter(None, [args.set])]
    parts += [f"distill.share={SHARE}", f"distill.teacher={teacher}"]
    taught = launch(args, out / f"{args.encoders[0]}_T0_taught_seed{seed}", parts)
    yield dataclasses.replace(taught, needs=(done,))


def launch(args, workdir: Path, parts: list[str], *flags: str, needs: tuple = ()) -> Step:
    arguments = [f"--config={CONFIG}:{','.join(parts)}", f"--workdir={workdir}", *flags]
    if args.data_dir:
        arguments.append(f"--config.data.data_dir={args.data_dir}")
    finished = tuple(need / "result.json" for need in needs)
    return Step(workdir / "result.json", (sys.executable, "launch.py", *arguments), finished)


def verb(done: Path, arguments: tuple[str, ...], needs: tuple[Path, ...]) -> Step:
    finished = tuple(need / "result.json" for need in needs)
    return Step(done, (sys.executable, "-m", "hocslm_jax", *arguments), finished)


def ensembles(args: argparse.Namespace, encoder: str, strategy: str) -> Iterator[Step]:
    """Of every seed's six streams, of all seeds, and of the first seed with fitted weights."""
    out, folder = args.out, args.out / "ensembles"
    runs = [out / f"{encoder}_{strategy}_seed{seed}" for seed in args.seeds]
    singles = tuple(run / stream for run in runs for stream in PAPER_STREAMS)
    for run in runs:
        name, own = folder / f"{run.name}.json", tuple(run / stream for stream in PAPER_STREAMS)
        yield verb(name, ("ensemble", str(run), "--table", "--json", str(name)), own)
    name, wrong = (folder / f"{encoder}_{strategy}.{kind}" for kind in ("json", "md"))
    options = ("--table", "--json", str(name), "--wrong", str(wrong))
    if strategy == "T3":
        options += ("--against", *(str(out / f"{encoder}_T0_seed{seed}") for seed in args.seeds))
    yield verb(name, ("ensemble", *map(str, runs), *options), singles)
    if strategy == "T0":
        held, name = out / "held_out" / runs[0].name, folder / f"{encoder}_T0_fitted.json"
        options = ("--preset", "fit", "--fit-on", str(held), "--json", str(name))
        yield verb(name, ("ensemble", str(runs[0]), *options), (runs[0], held))


def both_encoders(args: argparse.Namespace) -> Step:
    """Both encoders, T0 and T3, every stream and seed: against the first encoder's T0 alone."""
    name, out = args.out / "ensembles" / "everything.json", args.out
    kinds = [f"{encoder}_{strategy}" for encoder in args.encoders for strategy in ("T0", "T3")]
    runs = [out / f"{kind}_seed{seed}" for kind in kinds for seed in args.seeds]
    against = [str(out / f"{args.encoders[0]}_T0_seed{seed}") for seed in args.seeds]
    options = ("--against", *against, "--json", str(name))
    singles = tuple(run / stream for run in runs for stream in PAPER_STREAMS)
    return verb(name, ("ensemble", *map(str, runs), *options), singles)


def pictures(args: argparse.Namespace) -> Iterator[Step]:
    """Of the clips that the first encoder's six streams of all seeds get wrong."""
    found = args.out / "ensembles" / f"{args.encoders[0]}_T0.json"
    run = args.out / f"{args.encoders[0]}_T0_seed{args.seeds[0]}" / PAPER_STREAMS[0]
    if found.is_file():
        clips = json.loads(found.read_text(encoding="utf-8"))["mistakes"]["clips"]
        for clip in clips[:PICTURES]:
            path = (args.results or args.out) / "wrong" / f"{clip['clip']}.png"
            show = ("render", "--dataset", "nw_ucla", "--clip", clip["clip"], *data_dir(args))
            yield verb(path, (*show, "--workdir", str(run), "--out", str(path)), (run,))


def data_dir(args: argparse.Namespace) -> tuple[str, ...]:
    return ("--data-dir", str(args.data_dir)) if args.data_dir else ()


def run(args: argparse.Namespace) -> int:
    """Runs the unfinished steps; returns 1 if one failed.

    Raises:
        UserError: the time is over; names the unfinished step.
    """
    end = time.monotonic() + 60 * args.minutes if args.minutes else float("inf")
    failed = []
    for steps in (plan(args), pictures(args)):
        for step in steps:
            if args.dry_run:
                print(f"{'done' if step.done.exists() else 'to do'}: {shown(step)}")
            elif not step.done.exists() and all(need.exists() for need in step.needs):
                if not do(step, end):
                    failed.append(shown(step))
                elif args.results:
                    keep_reports(args, step)
    for command in failed:
        print(f"failed: {command}", file=sys.stderr)
    if args.results and not args.dry_run:
        report = [sys.executable, "-m", "hocslm_jax", "report"]
        return int(bool(failed)) or subprocess.run(report).returncode
    return int(bool(failed))


def do(step: Step, end: float) -> bool:
    """Runs a step until it or the time ends; returns whether it succeeded."""
    print(f"== {shown(step)}", flush=True)
    step.done.parent.mkdir(parents=True, exist_ok=True)
    left = end - time.monotonic()
    if left <= 0:
        raise UserError("the time is over; rerun the same command to resume")
    process = subprocess.Popen(step.command)
    try:
        status = process.wait(None if left == float("inf") else left)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:  # e.g. compiling; its last checkpoint is complete
            process.kill()
        raise UserError(
            f"the time is over in {step.done.parent}; rerun the same command to resume"
        ) from None
    return status == 0 and step.done.exists()


def keep_reports(args: argparse.Namespace, step: Step) -> None:
    """Copies the reports of the runs that a step wrote."""
    if step.done.name == "result.json":
        for path in sorted(step.done.parent.glob("**/result.json")):
            if "stages" not in path.relative_to(args.out).parts:
                keep(path.parent, args.results / path.parent.relative_to(args.out))


def shown(step: Step) -> str:
    return " ".join(("python", *step.command[1:]))


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of all output")
    add("--encoders", nargs="+", choices=ENCODERS, default=ENCODERS)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--data-dir", type=Path, help="prepared datasets; default: data")
    add("--set", default="", metavar="k=v,k=v", help="settings of every run, e.g. epochs=2")
    add("--minutes", type=float, help="time limit; rerun to resume")
    add(
        "--results",
        type=Path,
        help="copy reports here, e.g. results/nw_ucla/suite, and update docs/results.md",
    )
    add("--dry-run", action="store_true", help="only list the steps, finished and unfinished")
    return parser.parse_args(argv)


if __name__ == "__main__":
    try:
        sys.exit(run(parse()))
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
