"""What only an accelerator can tell, in one call: parity, speed, memory, and training on NW-UCLA.

    python -m benchmarks.accelerator --out results/accelerator [--parts attention joint] [--lm 4B]

In: the device at hand, and for `training` a prepared NW-UCLA. Out: `<out>/<part>.json`, written as
soon as its part is done, so that a machine that is taken away early still leaves the parts before
it; a part whose file is there is not run again. Weights of language models are random: neither
speed nor memory depends on them.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.joint_program import Case, flops
from configs import ntu60_xsub
from hocslm_jax.graph import NTU25
from hocslm_jax.models import build_model
from hocslm_jax.models.qwen3 import SIZES, Qwen3, Qwen3Config, init_params
from hocslm_jax.train import optim, state, step
from hocslm_jax.train.environment import describe_machine, describe_versions

# Dense bfloat16, from the data sheets of the SXM boards; MFU is left out for other devices.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12}
TINY = Qwen3Config(512, 64, 128, 2, 4, 2, 16)
REPETITIONS = 10


def attention(args: argparse.Namespace) -> dict:
    """cuDNN's attention against XLA's in bfloat16, both against float32: states and gradients."""
    config = language_model(args.lm, layers=2)
    params = init_params(config, jax.random.key(0))
    x, to = jax.random.normal(jax.random.key(1), (2, 8, 72, config.hidden_size))

    def run(dtype: str, implementation: str | None):
        model = Qwen3(config, dtype, attention=implementation)
        loss = lambda x: jnp.sum(model.apply({"params": params}, x) * to)  # noqa: E731
        call = jax.jit(jax.value_and_grad(loss))
        return call(x)[1], timed(lambda: call(x)[1])

    with jax.default_matmul_precision("highest"):
        exact, _ = run("float32", "xla")
    result = {}
    for name, implementation in (("xla", "xla"), ("chosen", None)):
        gradient, seconds = run("bfloat16", implementation)
        error = jnp.linalg.norm(gradient - exact) / jnp.linalg.norm(exact)
        result[name] = {"gradient_error": float(error), "seconds": seconds}
    return result


def encoders(args: argparse.Namespace) -> dict:
    """Train steps of both encoders alone, at the NTU shape."""
    result = {}
    for name in ("ctrgcn", "hglnet"):
        for dtype in ("float32", "bfloat16"):
            config = ntu60_xsub.get_config(f"encoder={name},width={args.width},strategy=T0")
            config.model.dtype = dtype
            seconds, compiling = encoder_step(config, args.batch)
            median = statistics.median(seconds)
            rates = {"clips_per_s": args.batch / median, "compile_s": compiling}
            result[f"{name}_{dtype}"] = {**rates, "seconds": seconds}
    return result


def encoder_step(config, batch_size: int) -> tuple[list[float], float]:
    """Seconds of each step, and of the first one, which compiles."""
    model = build_model(config.model, graph=NTU25, num_classes=60)
    tx = optim.make_optimizer(config.optim, optim.make_schedule(config.optim, 1, 1))
    shape = (config.data.num_persons, config.data.frames, NTU25.num_joints, 3)
    now = jax.jit(state.make_init(model, tx, shape, ema=False))(jax.random.key(0), {})
    update = jax.jit(step.make_train_step(step.classify(model), tx), donate_argnums=0)
    rng = np.random.default_rng(0)
    batch = {
        "x": rng.normal(size=(batch_size, *shape)).astype(np.float32),
        "label": rng.integers(60, size=batch_size).astype(np.int32),
        "mask": np.ones(batch_size, np.float32),
    }
    return steps(update, now, {}, jax.device_put(batch))


def joint(args: argparse.Namespace) -> dict:
    """The step of strategy T3 with a language model of full size: time, memory, MFU."""
    config = ntu60_xsub.get_config(f"batch_size={args.batch},width={args.width}")
    config.lm.max_tokens = args.tokens
    device = jax.devices()[0]
    case = Case(config, language_model(args.lm), device, jax.default_backend())
    lowered, abstract, frozen = case.lower(remat=True, chunk=config.lm.chunk)
    compiled = lowered.compile()
    language = jax.jit(
        functools.partial(init_params, case.lm, dtype="bfloat16"),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, frozen["lm"]),
    )(jax.random.key(0))
    batch = jax.tree.map(zeros, case.batch())
    batch["lengths"] = jnp.full_like(batch["lengths"], args.tokens)
    batch["mask"] = jnp.ones_like(batch["mask"])
    now = jax.tree.map(zeros, abstract)
    seconds, _ = steps(compiled, now, {"lm": language}, jax.device_put(batch))
    work = flops(case, True, config.lm.chunk)["formula"]
    median = statistics.median(seconds)
    peak = next((f for name, f in PEAK_FLOPS.items() if name in device.device_kind), None)
    memory = device.memory_stats() or {}
    return {
        "seconds": seconds,
        "clips_per_s": args.batch / median,
        "flops": work,
        "mfu": work / median / peak if peak else None,
        "peak_bytes": memory.get("peak_bytes_in_use"),
    }


def training(args: argparse.Namespace) -> dict:
    """NW-UCLA, joint stream, T0, both encoders: the recipe's 65 epochs while time is left."""
    results = {}
    for seed in range(args.seeds):
        for encoder in ("hglnet", "ctrgcn"):
            workdir = args.out / f"nw_ucla_{encoder}_seed{seed}"
            settings = f"encoder={encoder},seed={seed},eval_every=5"
            command = [sys.executable, "launch.py", f"--workdir={workdir}"]
            subprocess.run([*command, f"--config=configs/nw_ucla.py:{settings}"], check=True)
            results[workdir.name] = json.loads((workdir / "result.json").read_text())
            write(args.out / "training.json", results)
    return results


PARTS: dict[str, Callable[[argparse.Namespace], dict]] = {
    "attention": attention,
    "encoders": encoders,
    "joint": joint,
    "training": training,
}


def zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Values of a shape: how long a step takes does not depend on them."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return jnp.zeros(leaf.shape, leaf.dtype)


def language_model(name: str, layers: int | None = None) -> Qwen3Config:
    config = TINY if name == "tiny" else SIZES[name]
    return dataclasses.replace(config, num_layers=layers) if layers else config


def timed(call: Callable) -> list[float]:
    """Seconds of each repetition after a first one."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return seconds


def steps(update: Callable, now, frozen: dict, batch: dict) -> tuple[list[float], float]:
    """Seconds of each of ten steps that follow on a first one, and of that one."""
    seconds = []
    for _ in range(REPETITIONS + 1):
        start = time.perf_counter()
        now, _, finite = update(now, frozen, batch)
        finite.block_until_ready()
        seconds.append(time.perf_counter() - start)
    return seconds[1:], seconds[0]


def write(path: Path, result: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--lm", choices=["tiny", *SIZES], default="4B")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--width", type=int, default=64, help="of the encoder")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(argv)
    where = {"machine": describe_machine(), "versions": describe_versions()}
    for name in args.parts:
        path = args.out / f"{name}.json"
        if path.exists():
            continue
        result = PARTS[name](args)
        write(path, {**where, "arguments": vars(args) | {"out": str(args.out)}, "result": result})
        print(f"{name}: {json.dumps(result)[:400]}", flush=True)


if __name__ == "__main__":
    main()
