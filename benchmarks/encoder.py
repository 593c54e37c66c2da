"""Train steps and single-clip inference of the encoders, against CTR-GCN in plain PyTorch.

    python -m benchmarks.encoder --json encoder.json
    python -m benchmarks.encoder --shapes ntu --batch 64 --dtype bfloat16   # on a GPU

In: nothing; clips are random, since speed does not depend on them. Out: clips/s of one train
step (SGD with momentum and weight decay) and milliseconds of one clip, with the ratio to PyTorch,
and on a known accelerator the share of its roofline that a step reaches. Each contestant is a
separate process, configured as its users run it. They take turns, one round each, so that other
load on the machine affects all of them.
"""

import argparse
import dataclasses
import functools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.record import measured_here, write_result
from hocslm_jax.graph import NTU25, UCLA20
from hocslm_jax.plan.chips import find_chip


@dataclasses.dataclass(frozen=True)
class Case:
    """A contestant and its input."""

    contestant: str  # "ctrgcn" or "hglnet" of ours, "torch" or "torch_compiled"
    shape: str
    batch: int
    dtype: str


# (skeleton, classes, persons, frames, clips in a batch) of the recipes' batches on small machines.
SHAPES = {"nw_ucla": (UCLA20, 10, 1, 52, 16), "ntu": (NTU25, 60, 2, 64, 8)}


def random_clips(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """x [B, M, T, V, 3] and labels [B]."""
    graph, classes, persons, frames, _ = SHAPES[case.shape]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.batch, persons, frames, graph.num_joints, 3), np.float32)
    return x, rng.integers(classes, size=case.batch)


def build_ours(case: Case):
    """(train step, inference of one clip, facts: seconds of the first step, costs)."""
    import jax

    from configs import nw_ucla
    from hocslm_jax.models import build_model
    from hocslm_jax.train import environment, optim, state, step

    environment.keep_memory()
    x, label = random_clips(case)
    graph, classes = SHAPES[case.shape][:2]
    config = nw_ucla.get_config(f"encoder={case.contestant}")
    config.model.dtype = case.dtype
    model = build_model(config.model, graph=graph, num_classes=classes)
    tx = optim.make_optimizer(config.optim, optim.make_schedule(config.optim, 1, 1))
    init = state.make_init(model, tx, x.shape[1:], ema=False)
    box = [jax.jit(init)(jax.random.key(0), {})]
    batch = {"x": x, "label": label.astype(np.int32), "mask": np.ones(case.batch, np.float32)}
    batch = jax.device_put(batch)
    start = time.perf_counter()
    options = environment.compiler_options(jax.default_backend())
    update = step.make_train_step(step.classify(model), tx)
    update = jax.jit(update, donate_argnums=0, compiler_options=options)
    compiled = update.lower(box[0], {}, batch).compile()

    def train():
        box[0], _, finite = compiled(box[0], {}, batch)
        finite.block_until_ready()

    train()
    cost = compiled.cost_analysis()
    about = {
        "first_step_s": time.perf_counter() - start,
        "step_flops": cost["flops"],
        "step_bytes": cost["bytes accessed"],
        "device": jax.devices()[0].device_kind,
    }
    logits = functools.partial(model.apply, train=False)
    logits = jax.jit(logits, compiler_options=options)

    def infer():
        logits(state.eval_variables(box[0]), batch["x"][:1]).block_until_ready()

    return train, infer, about


def build_theirs(case: Case):
    """The same of PyTorch: eager, or with `torch.compile`."""
    import torch

    from benchmarks.torch_ctrgcn import CTRGCN

    device = "cuda" if torch.cuda.is_available() else "cpu"
    graph, classes, persons = SHAPES[case.shape][:3]
    x, label = random_clips(case)
    x = torch.from_numpy(x.transpose(0, 4, 2, 3, 1).copy()).to(device)  # [N, C, T, V, M]
    label = torch.from_numpy(label).to(device)
    net = CTRGCN(graph, classes, persons).to(device)
    model = torch.compile(net) if case.contestant == "torch_compiled" else net
    sgd = torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=1e-4, nesterov=True)
    half = torch.autocast(device, torch.bfloat16, enabled=case.dtype == "bfloat16")
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None

    def train():
        model.train()
        sgd.zero_grad()
        with half:
            loss = torch.nn.functional.cross_entropy(model(x), label)
        loss.backward()
        sgd.step()
        finish()

    def infer():
        model.eval()
        with torch.inference_mode(), half:
            model(x[:1])
        finish()

    start = time.perf_counter()
    train()
    return train, infer, {"first_step_s": time.perf_counter() - start}


def build(case: Case):
    return (build_theirs if case.contestant.startswith("torch") else build_ours)(case)


def work(connection, case: Case, build: Callable = build) -> None:
    """The process of a contestant: sets up, then times requested functions until told to end."""
    train, infer, about = build(case)
    infer()
    connection.send(about)
    for name, times in iter(connection.recv, None):
        call, seconds = {"train": train, "infer": infer}[name], []
        call()  # not timed: another contestant has used the CPU caches
        for _ in range(times):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        connection.send(seconds)


def measure(
    cases: list[Case], rounds: int, steps: int, clips: int, build: Callable = build
) -> dict[str, dict]:
    """Seconds of each train step and each clip, and facts, by contestant.

    `build` sets up a contestant in its process; returns (train step, inference of one clip, facts).
    """
    os.environ.setdefault(
        "XLA_PYTHON_CLIENT_PREALLOCATE", "false"
    )  # the processes share the memory of one GPU
    context = multiprocessing.get_context("spawn")
    ends, processes, found = {}, [], {}
    for case in cases:  # set up one by one, since the time of the first step is measured
        ours, theirs = context.Pipe()
        processes.append(context.Process(target=work, args=(theirs, case, build), daemon=True))
        processes[-1].start()
        ends[case.contestant] = ours
        theirs.close()
        found[case.contestant] = {"about": ours.recv(), "train": [], "infer": []}
    for what, times in (("train", steps), ("infer", clips)):
        for _ in range(rounds):
            for name, end in ends.items():
                end.send((what, times))
                found[name][what] += end.recv()
    for end, process in zip(ends.values(), processes, strict=True):
        end.send(None)
        process.join()
    return found


def summary(found: dict[str, dict], batch: int) -> dict:
    """Medians, spreads and ratios; the repetitions are kept beside them."""
    rows = {}
    for name, seconds in found.items():
        rates = [batch / s for s in seconds["train"]]
        milliseconds = [1e3 * s for s in seconds["infer"]]
        rows[name] = {
            "train_clips_per_s": spread(rates),
            "infer_ms": spread(milliseconds),
            **seconds["about"],
            "train_repetitions": rates,
        }
    theirs = rows["torch"]
    for row in rows.values():
        rate, their_rate = row["train_clips_per_s"]["median"], theirs["train_clips_per_s"]["median"]
        row["train_ratio"] = rate / their_rate
        row["infer_ratio"] = theirs["infer_ms"]["median"] / row["infer_ms"]["median"]
        if chip := find_chip(row.get("device", "")):
            least = max(row["step_flops"] / chip.flops, row["step_bytes"] / chip.hbm_rate)
            row["roofline"] = least * rate / batch
    return rows


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def report(shape: str, rows: dict) -> str:
    lines = [f"{shape}: clips/s of a train step, ms of one clip, seconds to the first step"]
    for name, row in rows.items():
        train, infer = row["train_clips_per_s"], row["infer_ms"]
        lines.append(
            f"  {name:<14} {train['median']:8.1f} ({train['min']:.1f}-{train['max']:.1f}), "
            f"x{row['train_ratio']:.2f}   {infer['median']:7.1f} ms, x{row['infer_ratio']:.2f}   "
            f"{row['first_step_s']:.0f} s"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    contestants = ["ctrgcn", "hglnet", "torch"]
    parser.add_argument("--contestants", nargs="+", default=contestants)
    parser.add_argument("--batch", type=int, help="clips (default: depends on the shape)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="train steps per round")
    parser.add_argument("--clips", type=int, default=20, help="single clips per round")
    args = parser.parse_args(argv)
    results = {}
    for shape in args.shapes:
        batch = args.batch or SHAPES[shape][-1]
        cases = [Case(name, shape, batch, args.dtype) for name in args.contestants]
        rows = summary(measure(cases, args.rounds, args.steps, args.clips), batch)
        results[shape] = {"batch": batch, "dtype": args.dtype, "contestants": rows}
        print(report(shape, rows), flush=True)
    result = {
        "benchmark": "encoder",
        "unit": "clips per second; milliseconds",
        "shapes": results,
        **measured_here("encoder", "torch"),
    }
    write_result(args.json, result)


if __name__ == "__main__":
    main()
