"""Augmented training clips per second that the input pipeline delivers and the model consumes.

    python -m benchmarks.feed --data-dir data --dataset nw_ucla --json results/feed.json
    python -m benchmarks.feed --shape ntu --json results/benchmarks/feed_ntu.json

In: a prepared dataset, read and augmented as its config in `configs/` says, with nothing consuming
the batches; and the train step of its encoder on one batch that never changes. Out: clips/s of
either, the feed's for each number of prefetching threads, median and spread over repetitions that
are interleaved so that a busy moment of the machine does not fall on one setting alone. With
--shape the feed alone, on generated clips of NTU RGB+D's shape, from disk and from memory.
"""

import argparse
import contextlib
import dataclasses
import importlib
import statistics
import sys
import time
from pathlib import Path

import jax
from absl import flags

from benchmarks import ntu_shape
from benchmarks.record import measured_here, one_line_errors, write_result
from hocslm_jax.data.pipeline import Feed, train_iterator
from hocslm_jax.data.store import Store, open_store
from hocslm_jax.train import jitted as program
from hocslm_jax.train import setup

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


def train_step_clips_per_second(config, repetitions: int) -> dict:
    """What the train step of the config consumes, on one batch, once compiled and warm."""
    run = setup.build_run(config, "unused")
    step, _ = program.compile_step(run)
    with contextlib.closing(run.train_iterator()) as iterator:
        batch = run.put(next(iterator))
    state, rates = run.init(jax.random.key(0), {}), []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        state, _, finite = step(state, {}, batch)
        finite.block_until_ready()
        rates.append(config.train.batch_size / (time.perf_counter() - start))
    rates = rates[1:]
    spread = {"median": statistics.median(rates), "min": min(rates), "max": max(rates)}
    return {"encoder": config.model.encoder, **spread, "repetitions": rates}


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
    module = importlib.import_module(f"configs.{CONFIGS[args.dataset]}")
    config = module.get_config(f"encoder={args.encoder}")
    config.data.data_dir = str(args.data_dir)
    store = open_store(args.dataset, args.data_dir)
    feed = Feed.from_config(config.data, store)
    protocol, batch_size = config.data.protocol, config.train.batch_size
    rates = {threads: [] for threads in args.threads}
    for repetition in range(args.repetitions):
        for threads, found in rates.items():
            options = {"batch_size": batch_size, "clips": args.clips, "seed": repetition}
            found.append(clips_per_second(store, protocol, feed, threads=threads, **options))
    results = [summary(threads, found) for threads, found in rates.items()]
    model = train_step_clips_per_second(config, args.repetitions)
    return {
        "dataset": args.dataset,
        "protocol": protocol,
        "settings": dataclasses.asdict(feed),
        "batch_size": batch_size,
        "feed_rates": results,
        "train_step": model,
        "ratio": max(row["median"] for row in results) / model["median"],
    }


def complete(result: dict) -> dict:
    """With what it is, and where and how it was measured."""
    return {
        "benchmark": "feed",
        "unit": "augmented training clips per second",
        **result,
        **measured_here("feed"),
    }


def report(result: dict) -> str:
    """A line per setting, and the multiple of what the model consumes."""
    lines = [f"{result['dataset']} {result['protocol']} {result['settings']['stream']}, clips/s:"]
    for row in result["feed_rates"]:
        spread = f"{row['min']:.0f}-{row['max']:.0f}"
        cpu = f"{row['median_per_cpu_second']:.0f} per CPU second"
        lines.append(f"  {row['threads']} threads: {row['median']:.0f} ({spread}), {cpu}")
    step = result["train_step"]
    spread = f"{step['min']:.1f}-{step['max']:.1f}"
    lines.append(f"  {step['encoder']} train step: {step['median']:.1f} ({spread})")
    lines.append(f"  the feed delivers {result['ratio']:.0f} times what the step consumes")
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--dataset", choices=CONFIGS, default="nw_ucla")
    parser.add_argument("--shape", choices=["ntu"], help="generated clips instead of a dataset")
    parser.add_argument("--stored", type=int, default=2000, help="records generated for --shape")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 1, 2], help="0 = no prefetch")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--clips", type=int, default=4000, help="clips timed in a repetition")
    parser.add_argument("--encoder", default="ctrgcn", help="the model to compare with")
    return parser.parse_args(argv)


@one_line_errors
def main() -> None:
    args = parse()
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
    if args.shape:
        result = complete(ntu_shape.measure(args, clips_per_second, summary))
    else:
        result = complete(measure(args))
    write_result(args.json, result)
    print(ntu_shape.report(result) if args.shape else report(result))


if __name__ == "__main__":
    sys.exit(main())
