"""Runs all benchmarks for accelerators in one call: parity, speed, memory, training.

    python -m benchmarks.accelerator --out results/accelerator [--parts attention joint] [--lm 4B]

In: the local device, and for `training` a prepared NW-UCLA. Out: `<out>/<part>.json`, written when
the part is finished. Rerun the same command to resume after the last finished part. Language
models have random weights, which affect neither speed nor memory.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks import encoder
from benchmarks.joint_contestants import CONTESTANTS
from benchmarks.record import timed, write_result
from hocslm_jax.models.lm import SIZES, DecoderLM, LMConfig, attention_for, init_params
from hocslm_jax.train.environment import describe_machine, describe_versions

TINY = LMConfig(512, 64, 128, 2, 4, 2, 16)
REPETITIONS = 10


def attention(args: argparse.Namespace) -> dict:
    """cuDNN's attention against XLA's in bfloat16, both against float32: states and gradients."""
    config = language_model(args.lm, layers=2)
    params = init_params(config, jax.random.key(0))
    x, to = jax.random.normal(jax.random.key(1), (2, 8, 72, config.hidden_size))

    def run(dtype: str, implementation: str):
        model = DecoderLM(config, dtype, attention=implementation)
        loss = lambda x: jnp.sum(model.apply({"params": params}, x) * to)  # noqa: E731
        call = jax.jit(jax.value_and_grad(loss))
        return call(x)[1], timed(lambda: call(x)[1], REPETITIONS)

    with jax.default_matmul_precision("highest"):
        exact, _ = run("float32", "xla")
    result = {}
    chosen = attention_for(jax.default_backend(), config, "bfloat16")
    for name, implementation in (("xla", "xla"), ("chosen", chosen)):
        gradient, seconds = run("bfloat16", implementation)
        error = jnp.linalg.norm(gradient - exact) / jnp.linalg.norm(exact)
        result[name] = {"gradient_error": float(error), "seconds": seconds}
    return result


def encoders(args: argparse.Namespace) -> dict:
    """Train steps and inference of both encoders on NTU shapes, against PyTorch."""
    result = {}
    for dtype in ("bfloat16", "float32"):
        names = ("ctrgcn", "hglnet", "torch", "torch_compiled")
        cases = [encoder.Case(name, "ntu", args.batch, dtype) for name in names]
        result[dtype] = encoder.summary(encoder.measure(cases, 5, REPETITIONS, 20), args.batch)
    return result


def joint(args: argparse.Namespace) -> dict:
    """The step of strategy T3 with a language model of full size, and PyTorch's: time, memory, MFU.

    Each contestant is a process with exclusive use of the device.
    """
    options = ["--dtype", "bfloat16", "--alone", "--contestants", *CONTESTANTS]
    for name in ("lm", "batch", "tokens", "width"):
        options += [f"--{name}", str(getattr(args, name))]
    return command("benchmarks.joint_speed", args, *options)


def command(module: str, args: argparse.Namespace, *options: str) -> dict:
    """Runs another benchmark on this device; returns its result."""
    path = args.out / f"{module.rpartition('.')[2]}_alone.json"
    subprocess.run([sys.executable, "-m", module, "--json", str(path), *options], check=True)
    return json.loads(path.read_text())


def training(args: argparse.Namespace) -> dict:
    """NW-UCLA, six streams of both encoders, while time is left (benchmarks/nw_ucla_suite.py)."""
    options = ["--out", str(args.out / "nw_ucla"), "--minutes", str(args.minutes)]
    options += ["--seeds", *map(str, range(args.seeds))]
    subprocess.run([sys.executable, "-m", "benchmarks.nw_ucla_suite", *options], check=True)
    found = (args.out / "nw_ucla").rglob("result.json")
    return {str(f.parent.relative_to(args.out)): json.loads(f.read_text()) for f in found}


PARTS: dict[str, Callable[[argparse.Namespace], dict]] = {
    "encoders": encoders,
    "joint": joint,
    "attention": attention,  # the only part that uses the device in this process, until its end
    "training": training,
}


def language_model(name: str, layers: int | None = None) -> LMConfig:
    config = TINY if name == "tiny" else SIZES[name]
    return dataclasses.replace(config, num_layers=layers) if layers else config


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--lm", choices=["tiny", *SIZES], default="4B")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--width", type=int, default=64, help="of the encoder")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=20, help="of training")
    args = parser.parse_args(argv)
    # The contestants of the encoders are processes that share the memory of the device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    where = {"machine": describe_machine(), "versions": describe_versions()}
    for name in args.parts:
        path = args.out / f"{name}.json"
        if path.exists():
            continue
        result = PARTS[name](args)
        write_result(
            path, {**where, "arguments": vars(args) | {"out": str(args.out)}, "result": result}
        )
        print(f"{name}: {json.dumps(result)[:400]}", flush=True)


if __name__ == "__main__":
    main()
