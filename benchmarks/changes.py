"""What each choice of formulation gives to CTR-GCN's train step: the step without it, beside it.

    python -m benchmarks.changes --json results/benchmarks/changes.json

In: nothing; the contestants of `benchmarks.encoder` are our own encoder as it is, and as often with
one choice undone. Out: clips/s of a train step, the memory it needs, and what this machine can do
at best: products a second, bytes a second. Float32, NW-UCLA's shape.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks import encoder
from benchmarks.record import measured_here, timed, write_result

AS_IT_IS = "as it is"


def one_product() -> None:
    """Topologies are applied by one matrix product, the form that GPUs take."""
    from hocslm_jax.models import layers

    layers._loops, layers._loops_backward = layers._products, layers._products_backward


def derived_norm() -> None:
    """JAX derives BatchNorm's gradient."""
    from hocslm_jax.models import layers

    layers.normalise = layers.normalise.fun


def derived_convolution() -> None:
    """JAX derives the temporal convolution's gradients, and keeps the windows of x for them."""
    from hocslm_jax.models import layers

    layers.convolve = layers.convolve.fun


def returned_memory() -> None:
    """glibc gives a step's memory back to the system, and the next one asks for it again."""
    from hocslm_jax.train import environment

    environment.keep_memory = lambda: None


def default_compiler() -> None:
    """XLA's own choice of vector width and of the order of instructions."""
    from hocslm_jax.train import environment

    environment.compiler_options = lambda platform: None


UNDONE: dict[str, Callable[[], None]] = {
    AS_IT_IS: lambda: None,
    "one product": one_product,
    "derived norm": derived_norm,
    "derived convolution": derived_convolution,
    "returned memory": returned_memory,
    "default compiler": default_compiler,
}


def build(case: encoder.Case):
    """CTR-GCN with one choice undone, in a process of its own."""
    UNDONE[case.contestant]()
    return encoder.build_ours(dataclasses.replace(case, contestant="ctrgcn"))


def machine_rates(size: int = 2048) -> dict[str, float]:
    """At best: FLOP/s of a float32 product, bytes/s read and written by an addition."""
    import jax
    import jax.numpy as jnp

    from hocslm_jax.train import environment

    environment.keep_memory()
    square = jnp.ones((size, size))
    long = jnp.ones(64 * 2**20)  # 256 MB, more than a core's caches hold
    multiply, add = jax.jit(lambda a: a @ a), jax.jit(lambda a: a + 1)
    product = statistics.median(timed(lambda: multiply(square), 11))
    addition = statistics.median(timed(lambda: add(long), 11))
    return {"flops_per_s": 2 * size**3 / product, "bytes_per_s": 2 * long.nbytes / addition}


def summary(found: dict[str, dict], batch: int) -> dict[str, dict]:
    rows = encoder.summary(found, batch, opponent=AS_IT_IS)
    kept = ("train_clips_per_s", "train_ratio", "step_flops", "step_bytes", "step_temporaries")
    return {name: {key: row[key] for key in kept} for name, row in rows.items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shape", choices=encoder.SHAPES, default="nw_ucla")
    parser.add_argument("--only", nargs="+", choices=list(UNDONE)[1:], default=list(UNDONE)[1:])
    parser.add_argument("--batch", type=int, help="clips; default: the shape's own")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="train steps in a round")
    args = parser.parse_args(argv)
    batch = args.batch or encoder.SHAPES[args.shape][-1]
    rates = machine_rates()
    names = [AS_IT_IS, *args.only]
    cases = [encoder.Case(name, args.shape, batch, "float32") for name in names]
    rows = summary(encoder.measure(cases, args.rounds, args.steps, 1, build), batch)
    for name, row in rows.items():
        rate = row["train_clips_per_s"]
        print(
            f"{name:<20} {rate['median']:6.1f} ({rate['min']:.1f}-{rate['max']:.1f}) clips/s, "
            f"x{row['train_ratio']:.2f}, {row['step_temporaries'] / 1e6:,.0f} MB"
        )
    result = {"benchmark": "changes", "unit": "clips per second; bytes", "batch": batch}
    result |= {"shape": args.shape, "machine_rates": rates, "rows": rows}
    write_result(args.json, result | measured_here("changes"))


if __name__ == "__main__":
    main()
