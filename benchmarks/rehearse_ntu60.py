"""From raw files to a trained and tested model at NTU RGB+D 60's full size: time, disk, memory.

    python -m benchmarks.rehearse_ntu60 --scratch DIR --samples skeletons.tar.xz --json OUT

In: real sample files, which `synthetic_ntu60` multiplies to a set of the real one's size and names.
Out: one JSON with what each stage said, took and held: generate, prepare, check, train, eval. Each
is a process of its own, as a user starts it. A stage that is done is not done again; one that was
cut off starts anew, so that its time is that of the whole. Only the width and depth of the
model are not the config's: those take a GPU. Files repeat, so what is learnt means nothing.
"""

import argparse
import contextlib
import json
import re
import shlex
import shutil
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.record import one_line_errors, write_result
from benchmarks.synthetic_ntu60 import draw, read_samples, some_names, write_zip, zip_bytes
from benchmarks.watch import watch
from hocslm_jax.data.prepare.ntu.missing import missing_ids
from hocslm_jax.data.prepare.ntu.skeleton import parse_name
from hocslm_jax.data.protocols import RULES
from hocslm_jax.errors import UserError
from hocslm_jax.train.environment import describe_machine, describe_versions

RAW, DATA, RUN = "nturgbd_skeletons_s001_to_s017.zip", "data", "run"  # in the scratch folder
NOTE = (
    "A synthetic set of NTU60's size. Width {width} and {blocks} blocks, not the config's 64 and "
    "10, because a few hundred steps of that take a CPU hours. Files repeat, so losses and "
    "accuracy say nothing. Where the load exceeds the cores, other work shared the machine: "
    "seconds are then too many, CPU seconds are not."
)


def generate(args: argparse.Namespace) -> dict:
    """Writes the raw set."""
    samples = read_samples(args.samples)
    members = draw(some_names(args.files, args.seed), samples, args.seed)
    usable = [sample for name, sample in members if name not in missing_ids(60)]
    frames = [sample.frames for sample in usable]
    joint_bytes = sum(sample.frames * sample.persons for sample in usable) * 25 * 3 * 4
    need, free = zip_bytes(members) + 2 * joint_bytes, shutil.disk_usage(args.scratch).free
    if free < need:
        raise UserError(
            f"--scratch has {free:,} bytes free, {need:,} are needed; fewer --files need less"
        )
    start = time.perf_counter()
    write_zip(args.scratch / RAW, members)
    quantiles = np.quantile(frames, (0, 0.05, 0.5, 0.95, 1)).tolist()
    return {
        "files": len(members),
        "missing": len(members) - len(usable),
        "samples": sum(map(len, samples.values())),
        "text_bytes": sum(sample.size for _, sample in members),
        "zip_bytes": (args.scratch / RAW).stat().st_size,
        "joint_bytes": joint_bytes,
        "frames": {"mean": statistics.fmean(frames), "0_5_50_95_100_percent": quantiles},
        "two_persons": statistics.fmean(sample.persons == 2 for sample in usable),
        "seconds": time.perf_counter() - start,
    }


def prepare(args: argparse.Namespace) -> dict:
    """Raw set to records; compares the splits with those that the names give."""
    folder = args.scratch / DATA / "ntu60"
    shutil.rmtree(folder, ignore_errors=True)
    command = ["-m", "hocslm_jax", "prepare", "ntu60", "--workers", args.workers]
    files = ["--source", args.scratch / RAW, "--data-dir", args.scratch / DATA]
    figures = watch(args.scratch, "prepare", [*command, *files])
    index = json.loads((folder / "index.json").read_text())
    found = {
        name: {split: len(rows) for split, rows in splits.items()}
        for name, splits in index["protocols"].items()
    }
    if found != (expected := expected_splits(args)):
        raise UserError(f"prepared {found}, expected {expected}")
    return figures | {
        "clips": len(index["columns"]["id"]),
        "splits": found,
        "clips_per_second": len(index["columns"]["id"]) / figures["seconds"],
        "record_files": len(index["files"]),
        "folder_bytes": folder_bytes(folder),
    }


def check(args: argparse.Namespace) -> dict:
    """Verifies the records."""
    command = ["-m", "hocslm_jax", "prepare", "ntu60", "--check"]
    return watch(args.scratch, "check", [*command, "--data-dir", args.scratch / DATA])


def train(args: argparse.Namespace) -> dict:
    """Trains, and ends it as a user would: a signal at the wanted step, which it saves."""
    run = args.scratch / RUN
    shutil.rmtree(run, ignore_errors=True)
    command = [*launch(args), f"--config.train.log_every={max(1, min(10, args.steps // 2))}"]
    figures = watch(
        args.scratch, "train", command, lambda: last_step(run / "metrics.jsonl") >= args.steps
    )
    lines = read_lines(run / "metrics.jsonl")
    times = [line["step_time_s"] for line in lines[1:]]  # the first has waited for the compiler
    return figures | {
        "steps": int(re.search(r"step (\d+) is saved", figures["said"])[1]),
        "batch_size": args.batch_size,
        "step_seconds": {"median": statistics.median(times), "max": max(times), "all": times},
        "clips_per_second": args.batch_size / statistics.median(times),
        "losses": [line["train/loss"] for line in lines],
        "run_bytes": folder_bytes(run),
    }


def evaluate(args: argparse.Namespace) -> dict:
    """Scores the whole test split with what was trained."""
    figures = watch(args.scratch, "eval", [*launch(args), "--mode=eval"])
    correct, total = map(int, re.search(r"test (\d+)/(\d+)", figures["said"]).groups())
    if total != (clips := expected_splits(args)["xsub"]["test"]):
        raise UserError(f"eval scored {total} clips of {clips}")
    rate = total / figures["seconds"]
    return figures | {"correct": correct, "clips": total, "clips_per_second_in_all": rate}


# stage -> what does it, and the arguments that it depends on beside those of the stages before it
STAGES: dict[str, tuple[Callable[[argparse.Namespace], dict], tuple[str, ...]]] = {
    "generate": (generate, ("files", "seed")),
    "prepare": (prepare, ("workers",)),
    "check": (check, ()),
    "train": (train, ("steps", "width", "blocks", "batch_size")),
    "eval": (evaluate, ()),
}


def launch(args: argparse.Namespace) -> list:
    options = {"strategy": "T0", "width": args.width, "train.batch_size": args.batch_size}
    blocks = ",".join(map(str, args.blocks))
    config = ",".join(f"{key}={value}" for key, value in options.items())
    return [
        "launch.py",
        f"--config=configs/ntu60_xsub.py:{config}",
        f"--config.model.stages=({blocks})",
        f"--config.data.data_dir={args.scratch / DATA}",
        f"--workdir={args.scratch / RUN}",
    ]


def expected_splits(args: argparse.Namespace) -> dict:
    """The sizes of the splits, from the names alone."""
    names = set(some_names(args.files, args.seed)) - missing_ids(60)
    takes = [parse_name(name) for name in names]
    field = {"subject": "performer"}
    sizes = {}
    for name, rule in RULES["ntu60"].items():
        values = Counter(getattr(take, field.get(rule.column, rule.column)) for take in takes)
        sides = {"train": rule.train, "test": rule.test}
        sizes[name] = {split: sum(values[v] for v in side) for split, side in sides.items()}
    return sizes


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def read_lines(path: Path) -> list[dict]:
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def last_step(path: Path) -> int:
    return max((line["step"] for line in read_lines(path)), default=0)


def rehearse(args: argparse.Namespace) -> dict:
    """All stages that this scratch folder does not hold already, for these arguments."""
    args.scratch.mkdir(parents=True, exist_ok=True)
    asked, figures = {}, {}
    for name, (stage, needs) in STAGES.items():
        asked |= {key: getattr(args, key) for key in needs}
        path = args.scratch / f"{name}.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        if kept.get("asked") != asked:
            print(f"{name} …", flush=True)
            kept = {"asked": dict(asked), "figures": stage(args)}
            for later in list(STAGES)[list(STAGES).index(name) :]:
                (args.scratch / f"{later}.json").unlink(missing_ok=True)
            path.write_text(json.dumps(kept))
        figures[name] = kept["figures"]
        print(f"{name}: {figures[name]['seconds']:.0f} s", flush=True)
    return {
        "benchmark": "rehearse_ntu60",
        "note": NOTE.format(width=args.width, blocks=sum(args.blocks)),
        **figures,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "command": command(args),
    }


def command(args: argparse.Namespace) -> str:
    """What was asked for, without the folders of this machine."""
    words = ["python", "-m", "benchmarks.rehearse_ntu60", "--scratch", "SCRATCH"]
    words += ["--samples", args.samples.name]
    for name in (name for _, needs in STAGES.values() for name in needs):
        value = getattr(args, name)
        words += [f"--{name.replace('_', '-')}", *(value if isinstance(value, list) else [value])]
    return shlex.join(map(str, words))


def clean(scratch: Path) -> None:
    """Removes what the stages have left in the scratch folder, and the folder if that was all."""
    for name in (DATA, RUN):
        shutil.rmtree(scratch / name, ignore_errors=True)
    files = [f"{stage}{suffix}" for stage in STAGES for suffix in (".json", ".log")]
    for name in (RAW, str(Path(RAW).with_suffix(".partial")), *files):
        (scratch / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        scratch.rmdir()


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    about = {"description": __doc__, "formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rehearse_ntu60", **about)
    size = "folder for 7 GB at full size"
    parser.add_argument("--scratch", type=Path, required=True, help=size)
    parser.add_argument("--samples", type=Path, required=True, help="folder, .zip or .tar.*")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--files", type=int, default=56880, help="fewer are drawn by chance")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="of prepare")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--blocks", type=int, nargs=3, default=[1, 1, 1], help="of each stage")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--clean", action="store_true", help="empty the scratch folder at the end")
    args = parser.parse_args(argv)
    args.scratch = args.scratch.resolve()
    return args


@one_line_errors
def main() -> None:
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without the process it watches
    write_result(args.json, rehearse(args))
    if args.clean:
        clean(args.scratch)


if __name__ == "__main__":
    sys.exit(main())
