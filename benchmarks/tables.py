"""The tables of docs/performance.md, from the results of the benchmarks.

    python -m benchmarks.performance --docs docs/performance.md [--check]

In: `results/benchmarks/*.json`. Out: the document with new tables, or with --check an error where
they are stale. A benchmark that has no result yet is said to have none.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.record import one_line_errors, read_result, table, write_tables
from hocslm_jax.errors import UserError

NAMES = {
    "ctrgcn": "CTR-GCN",
    "hglnet": "HGLNet",
    "torch": "CTR-GCN in PyTorch",
    "torch_compiled": "CTR-GCN in PyTorch, compiled",
}
# Ratios to PyTorch that are wanted: of training, of one clip's inference.
WANTED = {"ctrgcn": (2.0, 2.0), "hglnet": (1.0, None)}
CHANGES = {  # of benchmarks.changes: what is undone
    "as it is": "–",
    "one product": "topologies by one matrix product, not fused multiply-adds (`layers.aggregate`)",
    "derived norm": "BatchNorm's gradient as JAX derives it (`layers.normalise`)",
    "derived convolution": "the temporal convolution's gradients as JAX derives them "
    "(`layers.convolve`)",
    "returned memory": "memory given back after each step (`environment.keep_memory`)",
    "default compiler": "XLA's default options (`environment.compiler_options`)",
}

FIRST_STEP = {  # of benchmarks.first_step
    "as it is": "as it is",
    "no norm": "no gradient norm, which watches for what is not finite",
    "no momentum": "nor momentum and weight decay",
    "LLVM level 2": "LLVM at level 2, not 3",
    "LLVM level 1": "LLVM at level 1",
}


def encoder_table(result: dict) -> str:
    """Train steps and single clips, beside PyTorch's."""
    lines = []
    for shape, found in result["shapes"].items():
        for name, row in found["contestants"].items():
            train, infer = row["train_clips_per_s"], row["infer_ms"]
            wanted = WANTED.get(name, (None, None))
            lines.append(
                [
                    f"{shape}, batch {found['batch']}: {NAMES[name]}",
                    f"{train['median']:.1f} ({train['min']:.1f}–{train['max']:.1f})",
                    judged(row["train_ratio"], wanted[0]),
                    f"{infer['median']:.1f} ({infer['min']:.1f}–{infer['max']:.1f})",
                    judged(row["infer_ratio"], wanted[1]),
                    f"{row['first_step_s']:.0f}",
                ]
            )
    columns = ["", "clips/s of training", "ratio", "ms of one clip", "ratio", "s to a first step"]
    return table(columns, lines) + below(result)


def judged(ratio: float, wanted: float | None) -> str:
    if wanted is None:
        return f"{ratio:.2f}"
    return f"{ratio:.2f}, {'met' if ratio >= wanted else 'missed'}: {wanted:g}"


def changes_table(result: dict) -> str:
    """What a train step loses by each choice undone."""
    lines = []
    for name, row in result["rows"].items():
        rate = row["train_clips_per_s"]
        lines.append(
            [
                CHANGES[name],
                f"{rate['median']:.1f} ({rate['min']:.1f}–{rate['max']:.1f})",
                f"{row['train_ratio']:.2f}",
                f"{row['step_temporaries'] / 1e6:,.0f}",
                f"{row['step_bytes'] / 1e9:.1f}",
            ]
        )
    columns = [
        "undone",
        "clips/s",
        "of the step as it is",
        "temporaries, MB",
        "GB read and written",
    ]
    return table(columns, lines) + below(result)


def first_step_table(result: dict) -> str:
    """Seconds before the first step, with a part of the step left out."""
    lines = []
    for name, row in result["rows"].items():
        rate = row["train_clips_per_s"]
        lines.append(
            [
                FIRST_STEP[name],
                f"{row['first_step_s']:.1f}",
                f"{row['lower_s']:.1f}",
                f"{rate['median']:.1f} ({rate['min']:.1f}–{rate['max']:.1f})",
            ]
        )
    columns = ["", "s to a first step", "of which traced and lowered", "clips/s"]
    return table(columns, lines) + below(result)


def floor_table(result: dict) -> str:
    """The two numbers of a step, and the time that each takes at best on the machine."""
    row, rates = result["rows"]["as it is"], result["machine_rates"]
    needs = row["step_flops"] / rates["flops_per_s"], row["step_bytes"] / rates["bytes_per_s"]
    took = result["batch"] / row["train_clips_per_s"]["median"]
    flops, size = f"{row['step_flops'] / 1e9:.1f} GFLOP", f"{row['step_bytes'] / 1e9:.1f} GB"
    peak, rate = rates["flops_per_s"] / 1e9, rates["bytes_per_s"] / 1e9
    lines = [
        ["arithmetic", flops, f"{peak:.0f} GFLOP/s", f"{1e3 * needs[0]:.0f}"],
        ["memory", size, f"{rate:.1f} GB/s", f"{1e3 * needs[1]:.0f}"],
        ["the step", "", "", f"{1e3 * took:.0f}"],
    ]
    return table(["", "a step", "the machine at best", "ms"], lines)


def joint_table(result: dict) -> str:
    """The joint step beside PyTorch's."""
    lines = []
    for name, row in result["contestants"].items():
        if "error" in row:
            lines.append([f"`{name}`", row["error"], ""])
            continue
        rate = row["clips_per_s"]
        ratios = [f"{ratio:.2f} of `{other}`" for other, ratio in row["ratio_to"].items()]
        lines.append(
            [
                f"`{name}`",
                f"{rate['median']:.2f} ({rate['min']:.2f}–{rate['max']:.2f})",
                ", ".join(ratios),
            ]
        )
    settings = result["settings"]
    made = (
        f"Batch {settings['batch']}, {settings['tokens']} tokens, {settings['dtype']}, a language "
    )
    made += f"model of {result['lm_parameters'] / 1e6:,.0f} million parameters.\n\n"
    return made + table(["", "clips/s", "ratio"], lines) + below(result)


def streams_table(result: dict) -> str:
    """Several streams in one program, beside a program of each."""
    lines, rows = [], result["rows"]
    for name, row in rows.items():
        lines.append(
            [
                name if name == "separate" else f"one program, {name}",
                f"{row['median']:.2f} ({row['min']:.2f}–{row['max']:.2f})",
                f"{rows['separate']['median'] / row['median']:.2f}",
                f"{row['temporary_bytes'] / 1e9:.2f}",
                f"{row['compile_s']:.0f}",
            ]
        )
    kind = f"{NAMES[result['model']['encoder']]}, {result['shape']}, batch {result['batch_size']}; "
    kind += f"here `streams=all` takes them {result['chosen']}.\n\n"
    columns = ["s for a step of all", "ratio", "temporaries, GB", "s to compile"]
    return kind + table([f"{result['streams']} streams", *columns], lines) + below(result)


def packing_table(result: dict) -> str:
    """Captions packed into rows, beside one a row."""
    lines = []
    for name, rate in result["tokens_per_s"].items():
        share = result["positions"]["real"] / result["positions"][name]
        ratio = rate / result["tokens_per_s"]["unpacked"]
        lines.append([name, f"{rate:,.0f}", f"{ratio:.2f}", f"{share:.0%}"])
    settings = result["settings"]
    kind = f"Captions of {settings['mean']:g} tokens on average and {settings['tokens']} at most, "
    kind += (
        f"{settings['batch']} in a batch; language model `{settings['lm']}`, {settings['dtype']}."
    )
    columns = ["", "caption tokens/s", "ratio", "positions that are no padding"]
    return f"{kind}\n\n" + table(columns, lines) + below(result)


def below(result: dict) -> str:
    """Where and with what it was measured."""
    machine, versions = result["machine"], result["versions"]
    with_torch = f", torch {versions['torch']}" if "torch" in versions else ""
    return (
        f"\n\n{machine['cpu']}, {machine['cpu_cores']} cores; "
        f"jax {versions['jax']}{with_torch}. `{result['command']}`"
    )


TABLES = {
    "encoder": encoder_table,
    "changes": changes_table,
    "first_step": first_step_table,
    "streams": streams_table,
    "joint_speed": joint_table,
    "packing": packing_table,
}


def tables(folder: Path) -> dict[str, str]:
    """Markdown by marker.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of results")
    made = {}
    for name, make in TABLES.items():
        path = folder / f"{name}.json"
        made[name] = make(read_result(path)) if path.is_file() else "Not measured yet."
    changes = folder / "changes.json"
    made["floor"] = floor_table(read_result(changes)) if changes.is_file() else "Not measured yet."
    return made


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance")
    parser.add_argument("--results", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--docs", type=Path, default=Path("docs/performance.md"))
    parser.add_argument("--check", action="store_true", help="only fail if stale")
    args = parser.parse_args(argv)
    write_tables(args.docs, tables(args.results), args.check)


if __name__ == "__main__":
    sys.exit(main())
