"""Augmented training clips per second that the input pipeline delivers.

    python -m benchmarks.feed --data-dir data --dataset nw_ucla --json results/feed.json

In: a prepared dataset, read and augmented as its config in `configs/` says, with nothing consuming
the batches. Out: clips/s for each number of prefetching threads, median and spread over repetitions
that are interleaved so that a busy moment of the machine does not fall on one setting alone, and
clips per second of the process's own CPU time, which other load hardly touches.
"""

import argparse
import dataclasses
import importlib
import json
import shlex
import statistics
import sys
import time
from pathlib import Path

from absl import flags

from hocslm_jax.data.pipeline import Feed, train_iterator
from hocslm_jax.data.store import Store, open_store
from hocslm_jax.errors import UserError
from hocslm_jax.train.environment import describe_machine, describe_versions

CONFIGS = {"nw_ucla": "nw_ucla", "ntu60": "ntu60_xsub", "ntu120": "ntu120_xsub"}


def clips_per_second(
    store: Store, protocol: str, feed: Feed, *, batch_size: int, threads: int, clips: int, seed: int
) -> tuple[float, float]:
    """Clips per second of wall clock and of CPU time, once the prefetch buffer has been emptied."""
    steps = -(-clips // batch_size)
    options = {"batch_size": batch_size, "threads": threads, "seed": seed}
    iterator = train_iterator(store, protocol, feed, **options)
    for _ in range(4 * threads + 4):
        next(iterator)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        next(iterator)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    iterator.close()
    return steps * batch_size / wall, steps * batch_size / cpu


def summary(threads: int, found: list[tuple[float, float]]) -> dict:
    """Median, extremes and the repetitions themselves, in clips/s."""
    rates, cpu_rates = zip(*found, strict=True)
    median = statistics.median(rates)
    return {
        "threads": threads,
        "median": median,
        "median_per_thread": median / max(threads, 1),
        "median_per_cpu_second": statistics.median(cpu_rates),
        "min": min(rates),
        "max": max(rates),
        "repetitions": rates,
    }


def measure(args: argparse.Namespace) -> dict:
    config = importlib.import_module(f"configs.{CONFIGS[args.dataset]}").get_config("")
    store, feed = open_store(args.dataset, args.data_dir), Feed.from_config(config.data)
    protocol, batch_size = config.data.protocol, config.train.batch_size
    rates = {threads: [] for threads in args.threads}
    for repetition in range(args.repetitions):
        for threads, found in rates.items():
            options = {"batch_size": batch_size, "clips": args.clips, "seed": repetition}
            found.append(clips_per_second(store, protocol, feed, threads=threads, **options))
    return {
        "benchmark": "feed",
        "unit": "augmented training clips per second",
        "dataset": args.dataset,
        "protocol": protocol,
        "feed": dataclasses.asdict(feed),
        "batch_size": batch_size,
        "results": [summary(threads, found) for threads, found in rates.items()],
        "machine": describe_machine(),
        "versions": describe_versions(),
        "command": shlex.join(["python", "-m", "benchmarks.feed", *sys.argv[1:]]),
    }


def report(result: dict, model_rate: float | None) -> str:
    """A line per setting, with the multiple of what the model consumes where that is given."""
    lines = [f"{result['dataset']} {result['protocol']} {result['feed']['stream']}, clips/s:"]
    for row in result["results"]:
        multiple = f", {row['median'] / model_rate:.0f}x the model" if model_rate else ""
        spread = f"{row['min']:.0f}-{row['max']:.0f}"
        cpu = f"{row['median_per_cpu_second']:.0f} per CPU second"
        lines.append(f"  {row['threads']} threads: {row['median']:.0f} ({spread}), {cpu}{multiple}")
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--dataset", choices=CONFIGS, default="nw_ucla")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 1, 2], help="0 = no prefetch")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--clips", type=int, default=4000, help="clips timed in a repetition")
    parser.add_argument("--model-rate", type=float, help="clips/s a model consumes, to compare")
    return parser.parse_args(argv)


def main() -> int:
    args = parse()
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
    try:
        result = measure(args) | {"model_clips_per_second": args.model_rate}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(report(result, args.model_rate))
    return 0


if __name__ == "__main__":
    sys.exit(main())
