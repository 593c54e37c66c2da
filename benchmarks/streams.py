"""Six streams in one program against six programs of one stream each, by time of a train step.

    python -m benchmarks.streams --json results/benchmarks/streams.json
    python -m benchmarks.streams --shape ntu60 --encoder ctrgcn --dtype bfloat16

In: the encoder and the shapes of a config in `configs/`, random clips that never change. Out:
seconds for one update of all streams: in one program, side by side and in turn, and separately; and
what `streams=all` gains with the way that it takes here. Median and extremes over repetitions that
alternate, so that a busy moment of the machine does not fall on one way alone. The separate steps
share one compiled program, and are queued without waiting for each other.
"""

import argparse
import functools
import importlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from benchmarks.record import measured_here, one_line_errors, write_result
from hocslm_jax.data.feeder import Feed
from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.graph import resolve_graph
from hocslm_jax.models import build_model
from hocslm_jax.sharding import make_mesh
from hocslm_jax.train import environment, optim, state, step, stream_axis

# config file, skeleton and number of classes
SHAPES = {"nw_ucla": ("nw_ucla", "ucla20", 10), "ntu60": ("ntu60_xsub", "ntu25", 60)}
SIDE_BY_SIDE, IN_TURN, SEPARATE = "side by side", "in turn", "separate"
STEPS_PER_EPOCH = 100  # only the schedule asks


def make_config(args: argparse.Namespace):
    config = importlib.import_module(f"configs.{SHAPES[args.shape][0]}").get_config("strategy=T0")
    config.model.update(encoder=args.encoder, dtype=args.dtype)
    for section, name in (("model", "width"), ("train", "batch_size"), ("data", "frames")):
        if value := getattr(args, name):
            config[section][name] = value
    if args.stages:
        config.model.stages = tuple(args.stages)
    return config


def pieces(args: argparse.Namespace, config) -> tuple[Callable, Callable, dict]:
    """`init` and `update` of one stream, and a batch of all streams, x [B, S, M, T, V, C]."""
    _, graph, classes = SHAPES[args.shape]
    graph = resolve_graph(graph)
    model = build_model(config.model, graph=graph, num_classes=classes)
    schedule = optim.make_schedule(config.optim, config.train.epochs, STEPS_PER_EPOCH)
    tx = optim.make_optimizer(config.optim, schedule)
    clip = Feed.from_config(config.data).clip_shape(graph)
    rng, size = np.random.default_rng(0), config.train.batch_size
    batch = {
        "x": rng.normal(size=(size, args.streams, *clip)).astype(np.float32),
        "label": rng.integers(classes, size=size).astype(np.int32),
        "mask": np.ones(size, np.float32),
    }
    init = state.make_init(model, tx, clip, ema=False)
    return init, step.make_train_step(step.classify(model), tx), jax.device_put(batch)


def one_program(
    args: argparse.Namespace, init, update, batch, in_turn: bool
) -> tuple[Callable, dict]:
    """A function that updates all streams once, and what compiling it took."""
    states = [jax.jit(stream_axis.stacked_init(init, args.streams))(jax.random.key(0), {})]
    update = stream_axis.stacked_update(update, args.streams, in_turn)
    compiled, cost = compile_step(update, states[0], batch)

    def run():
        states[0], _, finite = compiled(states[0], {}, batch)
        return finite

    return run, cost


def separate_programs(args: argparse.Namespace, init, update, batch) -> tuple[Callable, dict]:
    """The same, one stream after another."""
    init = jax.jit(init)
    states = [init(jax.random.key(0), {}) for _ in range(args.streams)]
    batches = [batch | {"x": batch["x"][:, place]} for place in range(args.streams)]
    compiled, cost = compile_step(update, states[0], batches[0])

    def run():
        finite = []
        for place, own in enumerate(batches):
            states[place], _, fine = compiled(states[place], {}, own)
            finite.append(fine)
        return finite

    return run, cost


def compile_step(update: Callable, example, batch: dict) -> tuple[Callable, dict]:
    """The compiled step; seconds, FLOPs by XLA's count and temporary bytes of it."""
    start = time.perf_counter()
    options = environment.compiler_options(jax.default_backend())
    update = jax.jit(update, donate_argnums=0, compiler_options=options)
    lowered = update.lower(example, {}, batch)
    compiled = lowered.compile()
    memory, costs = compiled.memory_analysis(), lowered.cost_analysis()
    return compiled, {
        "compile_s": time.perf_counter() - start,
        "flops": costs.get("flops") if costs else None,
        "temporary_bytes": memory.temp_size_in_bytes if memory else None,
    }


def seconds(run: Callable, steps: int) -> float:
    """Of one update of all streams, over `steps` of them."""
    start = time.perf_counter()
    for _ in range(steps):
        done = run()
    finite = jax.device_get(done)
    elapsed = (time.perf_counter() - start) / steps
    if not np.all(finite):
        raise UserError("a loss is not finite: nothing was measured; choose another --width")
    return elapsed


def summary(found: list[float], cost: dict) -> dict:
    spread = {"median": statistics.median(found), "min": min(found), "max": max(found)}
    return {**spread, "repetitions": found, **cost}


def measure(args: argparse.Namespace) -> dict:
    environment.keep_memory()
    config = make_config(args)
    parts = pieces(args, config)
    ways = {
        SIDE_BY_SIDE: functools.partial(one_program, in_turn=False),
        IN_TURN: functools.partial(one_program, in_turn=True),
        SEPARATE: separate_programs,
    }
    runs = {name: way(args, *parts) for name, way in ways.items()}
    found = {name: [] for name in runs}
    for repetition in range(args.repetitions + 1):
        for name, (run, _) in runs.items():
            found[name].append(seconds(run, args.steps if repetition else 1))  # the first warms up
    rows = {name: summary(found[name][1:], cost) for name, (_, cost) in runs.items()}
    chosen = IN_TURN if stream_axis.takes_turns(make_mesh(stream=1)) else SIDE_BY_SIDE
    pairs = zip(found[SEPARATE][1:], found[chosen][1:], strict=True)
    ratios = [separate / together for separate, together in pairs]
    return {
        "benchmark": "streams",
        "unit": "seconds for one update of all streams",
        "streams": args.streams,
        "shape": args.shape,
        "batch_size": config.train.batch_size,
        "clip": list(parts[2]["x"].shape[2:]),
        "model": config.model.to_dict(),
        "rows": rows,
        "chosen": chosen,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        **measured_here("streams"),
    }


def report(result: dict) -> str:
    count, size = result["streams"], result["batch_size"]
    where = f"{result['machine']['devices']} x {result['machine']['device']}"
    lines = [f"{result['shape']} {result['model']['encoder']}, batch {size}, {where}:"]
    for name, row in result["rows"].items():
        spread = f"{1e3 * row['min']:.1f}-{1e3 * row['max']:.1f}"
        speed = f"{size / row['median']:.1f} clips/s"
        said = f"{1e3 * row['median']:.1f} ms ({spread}), {speed}, compiled in"
        lines.append(f"  {count} streams, {name}: {said} {row['compile_s']:.1f} s")
    low, high = result["ratio_range"]
    said = f"{result['ratio']:.2f} ({low:.2f}-{high:.2f}) times as fast as separate steps"
    lines.append(f"  streams=all computes them {result['chosen']}: {said}")
    return "\n".join(lines)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streams", description=__doc__)
    number = functools.partial(parser.add_argument, type=int)
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--shape", choices=SHAPES, default="nw_ucla")
    parser.add_argument("--encoder", choices=["hglnet", "ctrgcn"], default="hglnet")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    number("--streams", default=len(PAPER_STREAMS))
    number("--width", default=0, help="of the first stage; 0 = the config's")
    number("--stages", nargs="+", help="blocks of each stage; default: the config's")
    number("--batch-size", default=0, help="clips; 0 = the config's")
    number("--frames", default=0, help="0 = the config's")
    number("--steps", default=10, help="updates in a repetition")
    number("--repetitions", default=7)
    return parser.parse_args(argv)


@one_line_errors
def main() -> None:
    args = parse()
    result = measure(args)
    write_result(args.json, result)
    print(report(result))


if __name__ == "__main__":
    sys.exit(main())
