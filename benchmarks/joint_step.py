"""Memory and FLOPs of the joint train step (strategy T3), read from the compiled program.

    python -m benchmarks.joint_step --target cpu v5p:1x1x1 --json results/joint_step.json

In: the size of the language model, the shape of a batch, and what to compile for: the CPU, or ahead
of time one chip of a TPU topology, which needs libtpu (`pip install libtpu`) but no TPU. Out:
for the language model rematerialised or not, and its logits made for all caption positions at once
or for a few: bytes, FLOPs and compile time, and what `joint_program` found of three promises.
"""

import argparse
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from benchmarks.joint_program import CLASSES, PROMPT, VARIANTS, Case, measure
from benchmarks.record import measured_here, one_line_errors, write_result
from configs import ntu60_xsub
from hocslm_jax.errors import UserError
from hocslm_jax.models.qwen3 import SIZES, Qwen3Config, num_params
from hocslm_jax.plan.chips import CHIPS, check_compiler, open_devices

LMS = {**SIZES, "tiny": Qwen3Config(1009, 48, 80, 3, 4, 2, 16)}  # compiles in seconds
SIZE_OPTIONS = ("part", "lm", "batch", "tokens", "chunk", "width", "stages", "frames", "effort")
NOTES = (
    "cpu: XLA:CPU keeps float32 copies of bfloat16 arrays, the frozen weights included, and its "
    "heuristics are another machine's: its temporaries say little about an accelerator's",
    "flops: of the products as they are written; the formula adds those of the encoder",
    "peak: arguments + outputs - donated + temporaries",
)


def build(args: argparse.Namespace, target: str) -> Case:
    config = ntu60_xsub.get_config()
    config.train.batch_size = args.batch
    config.lm.update(max_tokens=args.tokens, chunk=args.chunk)
    stages = tuple(int(blocks) for blocks in args.stages.split(","))
    config.model.update(width=args.width, stages=stages)
    config.data.frames = args.frames
    devices = jax.devices("cpu") if target == "cpu" else open_devices(target)[0]
    return Case(config, LMS[args.lm], devices[0], target, args.part)


def elsewhere(args: argparse.Namespace, target: str, name: str) -> dict:
    """A variant in a process of its own, which gives its memory back."""
    if target != "cpu":
        check_compiler(target)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        options = [f"--{key}={getattr(args, key)}" for key in SIZE_OPTIONS]
        command = [sys.executable, "-m", "benchmarks.joint_step", "--row", str(out), *options]
        command += ["--target", target, "--variants", name]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if not out.is_file():
            said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise UserError(f"--target {target}: {said.removeprefix('error: ')}")
        return {"target": target} | json.loads(out.read_text())


def results(args: argparse.Namespace, rows: list[dict]) -> dict:
    compilers = ["libtpu"] if importlib.util.find_spec("libtpu") else []
    return {
        "benchmark": "joint_step",
        "unit": "bytes, FLOPs of one step, seconds",
        "settings": {name: getattr(args, name) for name in SIZE_OPTIONS},
        "classes": CLASSES,
        "prompt_tokens": PROMPT,
        "lm_parameters": num_params(LMS[args.lm]),
        "hbm_bytes": {t: CHIPS[t.partition(":")[0]].hbm for t in args.target if t != "cpu"},
        "notes": NOTES,
        "rows": rows,
        **measured_here("joint_step", *compilers),
    }


HEADER = (
    f"{'target':<11} {'variant':<12} {'state':>7} {'frozen':>7} {'temp':>8} {'peak':>8} GiB "
    f"{'products':>9} {'formula':>9} TFLOP {'compile':>9}"
)


def line(row: dict) -> str:
    """A row of the table."""
    sizes, counts = row["bytes"], row["flops"]
    gib = lambda name: sizes[name] / 2**30  # noqa: E731
    start = f"{row['target']:<11} {row['variant']:<12} {gib('state'):7.3f} {gib('frozen'):7.3f} "
    cost = f"{counts['products'] / 1e12:9.3f} {counts['formula'] / 1e12:9.3f}"
    if "does_not_fit" in row:
        return f"{start}  does not fit: {row['does_not_fit']} {cost}"
    rest = f"{gib('temporaries'):8.3f} {gib('peak'):8.3f}     {cost}"
    return f"{start}{rest}       {row['seconds']['compile']:7.0f} s"


def promises(rows: list[dict]) -> str:
    """What holds in every variant, and what is broken where."""
    broken = [
        f"{row['target']} {row['variant']}: {name.replace('_', ' ')}"
        for row in rows
        for name, held in row["promises"].items()
        if not held
    ]
    names = ", ".join(rows[0]["promises"]).replace("_", " ")
    return f"broken: {'; '.join(broken)}" if broken else f"held by all: {names}"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joint_step")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--target", nargs="+", default=["cpu"], help="cpu, v5e:1x1, v5p:1x1x1, …")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument(
        "--part",
        choices=("joint", "language"),
        default="joint",
        help="language: without the encoder, which takes a TPU's compiler many minutes",
    )
    parser.add_argument("--lm", choices=LMS, default="4B")
    parser.add_argument("--batch", type=int, default=64, help="clips")
    parser.add_argument("--tokens", type=int, default=64, help="of a caption, with its EOS")
    parser.add_argument("--chunk", type=int, default=16, help="positions, where chunked")
    parser.add_argument("--width", type=int, default=64, help="of the encoder")
    parser.add_argument("--stages", default="4,3,3", help="of the encoder, blocks in each")
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--effort", type=float, default=0.0, help="of XLA to speed up, -1 to 1")
    parser.add_argument("--jobs", type=int, default=1, help="compilations at one time")
    parser.add_argument("--row", type=Path, help=argparse.SUPPRESS)  # see `elsewhere`
    return parser.parse_args(argv)


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    args, rows = parse(argv), []
    if args.row:
        case = build(args, args.target[0])
        args.row.write_text(json.dumps(measure(case, args.variants[0], args.effort)))
        return 0
    print(HEADER)
    cases = list(itertools.product(args.target, args.variants))
    with ThreadPoolExecutor(args.jobs) as pool:
        for row in pool.map(lambda case: elsewhere(args, *case), cases):
            rows.append(row)
            print(line(row), flush=True)
            write_result(args.json, results(args, rows))  # it may be interrupted
    print(promises(rows), *NOTES, sep="\n")
    return 0 if all(all(row["promises"].values()) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
