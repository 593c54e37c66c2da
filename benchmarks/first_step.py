"""Where the seconds before HGLNet's first train step go: the same step with a part left out.

    python -m benchmarks.first_step --json results/benchmarks/first_step.json

In: nothing. Out: seconds to a first step from nothing, of which to trace and lower the program, and
clips/s afterwards, of the step as it is and of steps that compile less or optimise less. Each is a
process of its own, set up alone; then they take turns.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import encoder
from benchmarks.record import measured_here, one_line_errors, write_result

AS_IT_IS = "as it is"


def no_norm() -> None:
    """The gradient's norm is neither made nor looked at."""
    import jax.numpy as jnp
    import optax

    optax.tree.norm = lambda tree: jnp.float32(0)


def no_momentum() -> None:
    """p <- p - lr g: one operation a parameter is left of the optimiser."""
    import optax

    from hocslm_jax.train import optim

    no_norm()
    optim.make_optimizer = lambda *_: optax.scale(-0.1)


def llvm_level(level: int) -> None:
    """LLVM optimises kernels less than its default, 3."""
    from hocslm_jax.train import environment

    chosen = environment.CPU_OPTIONS | {"xla_backend_optimization_level": level}
    environment.compiler_options = lambda platform: chosen if platform == "cpu" else None


VARIANTS: dict[str, Callable[[], None]] = {
    AS_IT_IS: lambda: None,
    "no norm": no_norm,
    "no momentum": no_momentum,
    "LLVM level 2": lambda: llvm_level(2),
    "LLVM level 1": lambda: llvm_level(1),
}


def build(case: encoder.Case):
    """HGLNet with one part left out, in a process of its own."""
    VARIANTS[case.contestant]()
    return encoder.build_ours(dataclasses.replace(case, contestant="hglnet"))


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--shape", choices=encoder.SHAPES, default="nw_ucla")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="train steps in a round")
    args = parser.parse_args(argv)
    batch = encoder.SHAPES[args.shape][-1]
    names = dict.fromkeys([AS_IT_IS, *args.variants])
    cases = [encoder.Case(name, args.shape, batch, "float32") for name in names]
    found = encoder.measure(cases, args.rounds, args.steps, 1, build)
    rows = encoder.summary(found, batch, opponent=AS_IT_IS)
    for name, row in rows.items():
        print(
            f"{name:<14} {row['first_step_s']:5.1f} s, {row['lower_s']:.1f} to trace and lower; "
            f"{row['train_clips_per_s']['median']:5.1f} clips/s, x{row['train_ratio']:.2f}"
        )
    result = {"benchmark": "first_step", "unit": "seconds; clips per second", "batch": batch}
    result |= {"shape": args.shape, "rows": rows}
    write_result(args.json, result | measured_here("first_step"))


if __name__ == "__main__":
    sys.exit(main())
