"""Speed and memory of the joint train step (strategy T3), against PyTorch and transformers.

    python -m benchmarks.joint_speed --json joint_speed.json
    python -m benchmarks.joint_speed --lm 4B --batch 64 --dtype bfloat16 --alone   # on a GPU

In: the sizes of a language model and of a batch; weights, clips and captions are random. Out:
clips/s of a step and its ratio to the fastest PyTorch, peak memory, and on a known accelerator the
MFU: the FLOPs of one step, by the same formula for all, relative to the peak of the chip.
Contestants are processes, which take turns as in `benchmarks.encoder` or run one after another.
"""

import argparse
import dataclasses
import functools
import importlib.util
import os
from pathlib import Path

import jax

from benchmarks import encoder
from benchmarks.joint_contestants import CLASSES, CONTESTANTS, PROMPT, Case, build, needed_flops
from benchmarks.record import measured_here, write_result
from hocslm_jax.models.lm import SIZES, LMConfig, num_params
from hocslm_jax.plan.chips import find_chip

# For CPUs: four layers of the 0.6B model, and a vocabulary with which the output matrix has a tenth
# of the parameters, as in the 4B model.
SMALL = dataclasses.replace(SIZES["0.6B"], num_layers=4, vocab_size=8192, eos_token_ids=())
TINY = LMConfig(1009, 48, 80, 3, 4, 2, 16)  # compiles in seconds
SIZES_BY_NAME = {**SIZES, "tiny": TINY, "small": SMALL}
SIZE_OPTIONS = ("lm", "batch", "tokens", "frames", "width", "stages", "dtype")
NOTES = (
    "peak_bytes: of the device's allocator; on a CPU of the process, its compiler included",
    "flops_needed: without recomputation and without gradients of frozen weights; attention over "
    "the full square; the encoder's FLOPs are those of our program",
)


def measure(cases: list[Case], rounds: int, steps: int) -> dict[str, dict]:
    """Facts about each contestant and, unless it failed, the seconds of its steps."""
    try:
        found = encoder.measure(cases, rounds, steps, 0, build)
    except EOFError:  # most likely killed for lack of memory
        return {case.contestant: {"error": "the process was killed"} for case in cases}
    return {
        name: row["about"] | ({} if "error" in row["about"] else {"seconds": row["train"]})
        for name, row in found.items()
    }


def summary(found: dict[str, dict], cases: list[Case], flops: dict[str, float]) -> dict:
    """Medians, spreads, MFU, ratios to every PyTorch contestant, and the repetitions.

    `flops`: FLOPs of one step, by encoder.
    """
    rows = {}
    for case in cases:
        about = found.get(case.contestant, {"error": "not measured yet"})
        rows[case.contestant] = row = {"encoder": case.encoder, **about}
        if "error" in about:
            continue
        row["clips_per_s"] = encoder.spread([case.batch / s for s in about["seconds"]])
        row["flops_needed"] = flops[case.encoder]
        if chip := find_chip(about["device"]):
            needed = row["clips_per_s"]["median"] * flops[case.encoder] / case.batch
            row["mfu"] = needed / chip.flops
    done = {name: row for name, row in rows.items() if "error" not in row}
    rates = {name: row["clips_per_s"]["median"] for name, row in done.items()}
    theirs = {name: rate for name, rate in rates.items() if name.startswith("torch")}
    for name, row in done.items():
        row["ratio_to"] = {other: rates[name] / rate for other, rate in theirs.items()}
    return rows


def report(rows: dict[str, dict]) -> str:
    lines = ["clips/s of a train step, against the fastest PyTorch, peak memory, MFU"]
    for name, row in rows.items():
        if "error" in row:
            lines.append(f"  {name:<14} {row['error']}")
            continue
        rate, peak = row["clips_per_s"], row["peak_bytes"] / 2**30
        ratio = f"x{min(row['ratio_to'].values()):.2f}" if row["ratio_to"] else ""
        mfu = f"{row['mfu']:.1%}" if "mfu" in row else ""
        said = f"{rate['median']:8.2f} ({rate['min']:.2f}-{rate['max']:.2f}) {ratio:>6}"
        lines.append(f"  {name:<14} {said}  {peak:6.1f} GiB  {mfu}")
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joint_speed")
    number = functools.partial(parser.add_argument, type=int)
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--lm", choices=SIZES_BY_NAME, default="small")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=CONTESTANTS[:-1])
    parser.add_argument(
        "--alone", action="store_true", help="run contestants one after another instead of in turns"
    )
    number("--batch", default=8, help="clips")
    number("--tokens", default=64, help="tokens of a caption, with EOS")
    number("--frames", default=64)
    number("--width", default=64, help="width of the encoder")
    number("--stages", nargs="+", default=[4, 3, 3], help="blocks in each stage of the encoder")
    number("--rounds", default=5)
    number("--steps", default=2, help="steps per round")
    return parser.parse_args(argv)


def results(args: argparse.Namespace, rows: dict[str, dict]) -> dict:
    packages = [name for name in ("torch", "transformers") if importlib.util.find_spec(name)]
    return {
        "benchmark": "joint_speed",
        "unit": "clips per second; bytes; FLOPs of one step",
        "settings": {name: getattr(args, name) for name in (*SIZE_OPTIONS, "alone")},
        "classes": CLASSES,
        "prompt_tokens": PROMPT,
        "lm_parameters": num_params(SIZES_BY_NAME[args.lm]),
        "notes": NOTES,
        "contestants": rows,
        **measured_here("joint_speed", *packages),
    }


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    given = {name: getattr(args, name) for name in SIZE_OPTIONS}
    given |= {"lm": SIZES_BY_NAME[args.lm], "stages": tuple(args.stages)}
    cases = [Case(name, **given) for name in args.contestants]
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the contestants' memory
    device = jax.devices()[0]
    flops = {case.encoder: needed_flops(case, device) for case in cases}
    found: dict[str, dict] = {}
    for group in [[case] for case in cases] if args.alone else [cases]:
        found |= measure(group, args.rounds, args.steps)
        rows = summary(found, cases, flops)
        write_result(args.json, results(args, rows))
    print(report(rows))


if __name__ == "__main__":
    main()
