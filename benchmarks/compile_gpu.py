"""Train, prediction and generation programs compiled for NVIDIA GPUs: memory, traffic, kernels.

    python -m benchmarks.compile_gpu --json results/benchmarks/compile_gpu.json [--cases 'T0 *']

In: the configs; needs `pip install "jax[cuda13]"`, but no GPU. Out: a JSON file to which each case
is added, for the installed version of JAX. Each case is compiled in its own process, with XLA's
default options, so that an abort of the compiler affects only one row. Rerun the same
command to resume. `benchmarks.tables` makes the table of docs/scaling.md from the file.
"""

import argparse
import dataclasses
import fnmatch
import json
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import measured_here, one_line_errors, read_result, table, write_result
from hocslm_jax import sharding
from hocslm_jax.errors import UserError
from hocslm_jax.models.lm import SIZES, DecoderLM, param_shapes
from hocslm_jax.models.lm.generate import Options, lower_generation
from hocslm_jax.plan.chips import CHIPS, open_devices
from hocslm_jax.plan.command import read_config
from hocslm_jax.plan.costs import read_costs
from hocslm_jax.plan.planned_step import Step, build_step, memory
from hocslm_jax.sharding import abstract
from hocslm_jax.train.jitted import jit_predict
from hocslm_jax.train.stages import read_stages, stage_config
from hocslm_jax.train.state import eval_variables

NTU = "ntu60_xsub"
PREFIX, WORDS = 9, 48  # tokens of the prefix (visual token, prompt) and generated tokens
COLUMNS = (
    *("program", "GPUs", "jax", "clips", "GiB a GPU", "TFLOP", "GB moved"),
    *("kernels", "library calls", "at best, ms", "bound"),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One program: `part` is "train", "predict" or "generate"."""

    name: str
    part: str
    arguments: str  # config arguments
    topology: str = "h100:1"


def cases(pattern: str = "*") -> list[Case]:
    """Cases whose name matches, the most informative ones first."""
    made = []
    for part in ("train", "predict"):
        for dtype in ("bfloat16", "float32"):
            for encoder in ("ctrgcn", "hglnet"):
                one = f"strategy=T0,encoder={encoder},model.dtype={dtype}"
                made.append(Case(f"T0 {encoder} {dtype} {part}", part, one))
    for size in ("4B", "0.6B"):
        joint = f"encoder=hglnet,model.dtype=bfloat16,llm=Qwen/Qwen3-{size}"
        made.append(Case(f"T3 hglnet Qwen3-{size} train", "train", joint))
        made.append(Case(f"T3 Qwen3-{size} generate", "generate", joint))
    for encoder in ("ctrgcn", "hglnet"):
        one = f"strategy=T0,encoder={encoder},model.dtype=bfloat16"
        six = f"{one},streams=all"
        made.append(Case(f"T0 {encoder} six streams train", "train", six))
        made.append(Case(f"T0 {encoder} bfloat16 8 GPUs train", "train", one, "h100:8"))
    joint = "encoder=hglnet,model.dtype=bfloat16"
    made.append(Case("T3 hglnet Qwen3-4B 8 GPUs train", "train", joint, "h100:8"))
    return [case for case in made if fnmatch.fnmatch(case.name, pattern)]


def lowered(case: Case):
    """The lowered program of a case, and its number of clips."""
    devices, _ = open_devices(case.topology)
    config = read_config(f"{NTU}:{case.arguments}")
    config = stage_config(config, len(read_stages(config)) - 1)
    step = build_step(config, devices)
    if case.part == "train":
        return step.lower(), config.train.batch_size
    lower = lower_prediction if case.part == "predict" else lower_sentences
    return lower(step), config.train.eval_batch_size


def lower_prediction(step: Step):
    """Logits of a batch."""
    config, variables = step.config, eval_variables(step.state)
    shape = (config.train.eval_batch_size, *step.batch["x"].shape[1:])
    placed = sharding.input_sharding(step.mesh)
    x = jax.ShapeDtypeStruct(shape, np.float32, sharding=placed)
    return jit_predict(step.model, step.mesh, len(config.data.streams)).lower(variables, x)


def lower_sentences(step: Step):
    """Greedy sentences after a batch of prefixes, with weights in bfloat16."""
    lm = step.lm or SIZES["0.6B"]
    model, shapes = DecoderLM(lm), param_shapes(lm, "bfloat16")
    params = abstract(shapes, sharding.tree_shardings(shapes, step.mesh, sharding.lm_rules(False)))
    rows = sharding.batch_sharding(step.mesh)
    shape = (step.config.train.eval_batch_size, PREFIX, lm.hidden_size)
    prefix = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=rows)
    options = Options(WORDS, (0,), 0, greedy=True, top_k=0, top_p=1.0)
    return lower_generation(model, options, params, prefix)


def numbers(case: Case) -> dict:
    """Compiles the program here with XLA's default options; returns its costs on one GPU."""
    program, clips = lowered(case)
    start = time.perf_counter()
    compiled = program.compile()
    seconds = time.perf_counter() - start
    name, _, count = case.topology.partition(":")
    costs, chip = read_costs(compiled.as_text(), int(count)), CHIPS[name]
    parts = {
        "arithmetic": costs.matrix_flops / chip.flops,
        "memory": costs.hbm_bytes / chip.hbm_rate,
    }
    parts["network"] = costs.sent / chip.link_rate
    bound = max(parts, key=parts.get)
    return {
        "clips": clips,
        "bytes": memory(compiled),
        "flops": costs.matrix_flops,
        "hbm_traffic": costs.hbm_bytes,
        "kernels": costs.kernels,
        "library_calls": costs.library_calls,
        "collectives": {kind: vars(one) for kind, one in sorted(costs.collectives.items())},
        "seconds": {"compile": seconds, "step": parts[bound], **parts},
        "bound": bound,
    }


def measure(case: Case, limit: int) -> dict:
    """`numbers` in a separate process, or the last line of its output."""
    argv = [sys.executable, "-m", "benchmarks.compile_gpu", "--only", case.name]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        raise UserError(f"{case.name}: not compiled in {limit} s; raise --limit") from None
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    said = [line for line in done.stderr.splitlines() if "Error" in line or "Check failed" in line]
    return {"failed": (said or [f"status {done.returncode}"])[-1][:300]}


def fill(args: argparse.Namespace) -> None:
    """Adds the cases that are missing for this version of JAX, or failed."""
    new = {"benchmark": "compile_gpu", "rows": {}}
    result = read_result(args.json) if args.json.is_file() else new
    for case in cases(args.cases):
        row = result["rows"].setdefault(case.name, {}).get(jax.__version__)
        if row and "failed" not in row:
            continue
        found = measure(case, args.limit)
        result["rows"][case.name][jax.__version__] = found
        result |= measured_here("compile_gpu", arguments=["--json", str(args.json)])
        write_result(args.json, result)
        print(" | ".join(cells(case, jax.__version__, found)), flush=True)


def cells(case: Case, version: str, found: dict) -> list[str]:
    """One line of the table."""
    name = [case.name, f"`{case.topology}`", version]
    if "failed" in found:
        return [*name, f"failed: {found['failed']}", *["–"] * 7]
    library = sum(found["library_calls"].values())
    return [
        *name,
        f"{found['clips']}",
        f"{found['bytes']['peak'] / 2**30:.2f}",
        f"{found['flops'] / 1e12:.2f}",
        f"{found['hbm_traffic'] / 1e9:.1f}",
        f"{found['kernels']:,}",
        f"{library:,}",
        f"{1e3 * found['seconds']['step']:.1f}",
        found["bound"],
    ]


def make_table(result: dict) -> str:
    """Markdown of all rows."""
    lines = [
        cells(case, version, found)
        for case in cases()
        for version, found in sorted(result["rows"].get(case.name, {}).items())
    ]
    return table(COLUMNS, lines) + f"\n\n`{result['command']}`"


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile_gpu")
    parser.add_argument("--json", type=Path, help="file of the result; new cases are added")
    parser.add_argument("--cases", default="*", help="only those whose name matches")
    parser.add_argument("--limit", type=int, default=3600, help="seconds for one case")
    parser.add_argument("--only", metavar="CASE", help="compile one case here and print its costs")
    args = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")  # do not look for a GPU
    if args.only:
        (case,) = (case for case in cases() if case.name == args.only)
        print(json.dumps(numbers(case)))
    elif not args.json:
        raise UserError("give --json FILE for the result")
    else:
        fill(args)


if __name__ == "__main__":
    sys.exit(main())
