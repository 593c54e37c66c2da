"""How the cost of a train step grows: clips a second against batch, frames, joints and devices.

    python -m benchmarks.cost_growth --json results/benchmarks/cost_growth.json \
      --png docs/images/cost_growth.png

In: nothing; a small HGLNet on random clips, on this machine's CPU, one size varied at a time, each
point in a process of its own. Out: a JSON file that grows point by point, so that the same command
goes on, and a figure of it, with the estimates of `benchmarks.scaling` beside the measurements.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.record import measured_here, one_line_errors, write_result
from hocslm_jax.errors import UserError

BASE = {"batch": 8, "frames": 32, "joints": 25, "devices": 1}
VARIED = {
    "batch": (1, 2, 4, 8, 16, 32),
    "frames": (8, 16, 32, 64),
    "joints": (9, 17, 25, 49),
    "devices": (1, 2, 4, 8),
}
TITLES = {
    "batch": "batch, clips",
    "frames": "frames a clip",
    "joints": "joints",
    "devices": "devices",
}
WIDTH, STAGES = 16, (1, 1)
SCALING = Path("results/benchmarks/scaling.json")


def points() -> list[dict]:
    """Every combination once: the base, and one size of it varied."""
    varied = [BASE | {name: size} for name, sizes in VARIED.items() for size in sizes]
    return [dict(point) for point in dict.fromkeys(tuple(p.items()) for p in varied)]


def key(point: dict) -> str:
    return ",".join(f"{name}={size}" for name, size in point.items())


def measure(point: dict, repetitions: int) -> dict:
    """Seconds of each step of one point, in this process."""
    import jax

    jax.config.update("jax_num_cpu_devices", point["devices"])
    import numpy as np

    from benchmarks.accelerator import zeros
    from configs import ntu60_xsub
    from hocslm_jax import graph
    from hocslm_jax.plan import step

    config = ntu60_xsub.get_config(f"strategy=T0,width={WIDTH},frames={point['frames']}")
    config.model.stages = STAGES
    config.train.update(batch_size=point["batch"], eval_batch_size=point["batch"])
    joints = point["joints"]
    names = tuple(f"joint {number}" for number in range(joints))
    bones = [(number, (number - 1) // 2) for number in range(1, joints)]  # a binary tree
    chain = {"name": "tree", "joints": names, "edges": bones, "root": 0}
    step.SKELETONS["ntu60"] = (graph.resolve_graph(chain), 60)
    made = step.build_step(config, jax.devices("cpu"))
    start = time.perf_counter()
    compiled = made.lower().compile()
    compiling = time.perf_counter() - start
    rng = np.random.default_rng(0)
    draw = lambda a: rng.normal(size=a.shape) if a.dtype == np.float32 else np.zeros(a.shape)  # noqa: E731
    batch = jax.tree.map(lambda a: jax.device_put(draw(a).astype(a.dtype), a.sharding), made.batch)
    state = jax.tree.map(lambda leaf: jax.device_put(zeros(leaf), leaf.sharding), made.state)
    seconds = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        state, _, finite = compiled(state, made.frozen, batch)
        finite.block_until_ready()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds[1:], "compile_s": compiling}


def fill(args: argparse.Namespace) -> dict:
    """Adds the points that are not in the file yet."""

    result = {"benchmark": "cost_growth", "unit": "clips a second", "points": {}}
    if args.json.is_file():
        result = json.loads(args.json.read_text(encoding="utf-8"))
    missing = [point for point in points() if key(point) not in result["points"]]
    for point in missing:
        command = [sys.executable, "-m", "benchmarks.cost_growth", "--point", json.dumps(point)]
        command += ["--repetitions", str(args.repetitions)]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise UserError(f"{key(point)}: {said}")
        found = json.loads(done.stdout.splitlines()[-1])
        found["clips_per_s"] = point["batch"] / statistics.median(found["seconds"])
        result["points"][key(point)] = found
        result |= {"width": WIDTH, "stages": STAGES, **measured_here("cost_growth")}
        write_result(args.json, result)
        print(f"{key(point)}: {found['clips_per_s']:.2f} clips/s", flush=True)
    return result


def lines(result: dict) -> dict[str, dict[int, float]]:
    """Of each varied size: clips a second."""
    found = {}
    for name, sizes in VARIED.items():
        rates = {size: result["points"].get(key(BASE | {name: size})) for size in sizes}
        found[name] = {size: rate["clips_per_s"] for size, rate in rates.items() if rate}
    return found


def estimates(path: Path) -> dict[str, dict[int, float]]:
    """From the scaling tables: chips to clips a second, by strategy, scaling and chip."""
    if not path.is_file():
        return {}
    found: dict[str, dict[int, float]] = {}
    for name, row in json.loads(path.read_text(encoding="utf-8"))["rows"].items():
        rates = row.get("examples_per_s", {})
        if row["fits"] and rates:
            line = found.setdefault(name.rpartition(":")[0], {})
            line[row["devices"]] = rates.get("compiler", rates["at_best"])
    return {name: dict(sorted(line.items())) for name, line in sorted(found.items())}


def draw(result: dict, planned: dict, path: Path) -> None:
    """Four panels of measurements on one scale, and a fifth with the estimates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.0 * (len(VARIED) + bool(planned)), 3.0), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(VARIED) + bool(planned), squeeze=False)[0]
    for axes, (name, line) in zip(panels, lines(result).items(), strict=False):
        axes.plot(list(line), list(line.values()), marker="o", color="#2a6f97")
        axes.set(xlabel=TITLES[name], title="CPU devices" if name == "devices" else name)
    rates = [rate for line in lines(result).values() for rate in line.values()]
    for axes in panels[: len(VARIED)]:
        axes.set_ylim(min(rates) / 1.5, max(rates) * 1.5)
    if planned:
        for label, line in planned.items():
            panels[-1].plot(list(line), list(line.values()), marker="o", label=label)
        panels[-1].set(xlabel="TPU chips", title="planned")
        figure.legend(loc="outside right center", fontsize=8, frameon=False)
    for axes in panels:
        _scale(axes)
    panels[0].set_ylabel("clips a second")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _scale(axes) -> None:
    """Logarithmic, with plain numbers where the points are."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({x for drawn in axes.get_lines() for x in drawn.get_xdata()})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost_growth")
    parser.add_argument("--json", type=Path, help="the result, gone on with")
    parser.add_argument("--png", type=Path, help="the figure")
    parser.add_argument("--scaling", type=Path, default=SCALING, help="of benchmarks.scaling")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)  # see `fill`
    args = parser.parse_args(argv)
    if args.point:
        print(json.dumps(measure(args.point, args.repetitions)))
        return
    if not args.json:
        raise UserError("name the file for the result: --json FILE")
    result = fill(args)
    if args.png:
        draw(result, estimates(args.scaling), args.png)


if __name__ == "__main__":
    sys.exit(main())
