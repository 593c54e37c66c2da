"""The tables in the documents, from the results of the benchmarks.

    python -m benchmarks.tables [--check]

In: `results/`. Out: docs/performance.md, docs/scaling.md, docs/language.md, docs/formats.md,
docs/video.md and docs/reliability.md with new tables, or with --check an error if one is stale.
"""

import argparse
import functools
import sys
from pathlib import Path

from benchmarks import (
    compile_gpu,
    follow,
    generation,
    layouts,
    lm_weights,
    pose_error,
    scaling,
)
from benchmarks.record import one_line_errors, read_result, table, write_tables
from hocslm_jax.evaluate.released import releases_table
from hocslm_jax.language.description_scores import read_descriptions

BEST = 3  # number of released weights in README
SENTENCES = 5  # number of sentences that are shown
NAMES = {
    "ctrgcn": "CTR-GCN",
    "hglnet": "HGLNet",
    "torch": "CTR-GCN in PyTorch",
    "torch_compiled": "CTR-GCN in PyTorch, compiled",
}


def encoder_table(result: dict) -> str:
    """Train steps and single clips, beside PyTorch's."""
    lines = []
    for shape, found in result["shapes"].items():
        for name, row in found["contestants"].items():
            costs = row.get("step_flops", 0) / 1e9, row.get("step_bytes", 0) / 1e9
            lines.append(
                [
                    f"{shape}, batch {found['batch']}: {NAMES[name]}",
                    _spread(row["train_clips_per_s"], 1),
                    f"{row['train_ratio']:.2f}",
                    _spread(row["infer_ms"], 1),
                    f"{row['infer_ratio']:.2f}",
                    f"{row['first_step_s']:.0f}",
                    *(f"{cost:.1f}" if cost else "–" for cost in costs),
                ]
            )
    columns = ["", "clips/s of training", "ratio", "ms of one clip", "ratio", "s to a first step"]
    return table([*columns, "GFLOP a step", "GB moved a step"], lines) + below(result)


def joint_table(result: dict) -> str:
    """The joint step beside PyTorch's."""
    lines = []
    for name, row in result["contestants"].items():
        if "error" in row:
            lines.append([f"`{name}`", row["error"], ""])
            continue
        ratios = [f"{ratio:.2f} of `{other}`" for other, ratio in row["ratio_to"].items()]
        lines.append([f"`{name}`", _spread(row["clips_per_s"], 2), ", ".join(ratios)])
    settings = result["settings"]
    made = (
        f"Batch {settings['batch']}, {settings['tokens']} tokens, {settings['dtype']}, a language "
        f"model of {result['lm_parameters'] / 1e6:,.0f} million parameters.\n\n"
    )
    return made + table(["", "clips/s", "ratio"], lines) + below(result)


def _spread(found: dict, digits: int) -> str:
    median, least, most = (f"{found[key]:.{digits}f}" for key in ("median", "min", "max"))
    return f"{median} ({least}–{most})"


def below(result: dict) -> str:
    """The machine, versions and command of a measurement."""
    machine, versions = result["machine"], result["versions"]
    return (
        f"\n\n{machine['cpu']}, {machine['cpu_cores']} cores; "
        f"jax {versions['jax']}, torch {versions.get('torch', '–')}. `{result['command']}`"
    )


def kills_table(result: dict) -> str:
    """Kills by place and signal, and lost or wrong outcomes."""
    counts: dict[str, dict] = {}
    for name, number in result["kills"].items():
        place, _, signal = name.rpartition(", ")
        counts.setdefault(place, {})[signal] = number
    lines = [
        [place, *(str(row.get(signal, 0)) for signal in ("SIGKILL", "SIGTERM"))]
        for place, row in counts.items()
    ]
    lines.append([f"{result['total']} in all", "", ""])
    faults = result["faults"]
    said = f"{len(faults)} lost or wrong: {'; '.join(faults)}" if faults else "None lost or wrong"
    made = f"`{result['command']}`, {result['machine']['cpu']}"
    return f"{table(['killed in', 'SIGKILL', 'SIGTERM'], lines)}\n\n{said}. {made}."


def soak_table(result: dict) -> str:
    """Resources of a long run after a tenth of its steps and at its end."""
    if "soak" not in result:
        return "Not measured yet."
    found = result["soak"]
    keys = ("memory_mib", "files", "threads")
    lines = [
        [f"step {row['step']:,}", *(f"{row[key]:.0f}" for key in keys)]
        for row in (found["after_a_tenth"], found["at_the_end"])
    ]
    return table([f"of {found['steps']:,}", "memory, MiB", "open files", "threads"], lines)


def sentences_table(rows: list[dict]) -> str:
    """The generated sentences of a few described clips, evenly spaced."""
    chosen = rows[:: max(1, len(rows) // SENTENCES)][:SENTENCES]
    lines = [[f"`{row['id']}`", row["truth"], row["generated"]] for row in chosen]
    return table(["clip", "class", "generated sentence"], lines)


TABLES = {  # by document: its results, and the table of each marker
    "performance.md": {
        "benchmarks/encoder.json": {"encoder": encoder_table},
        "benchmarks/joint_speed.json": {"joint_speed": joint_table},
    },
    "scaling.md": {
        "benchmarks/scaling.json": {
            name: functools.partial(scaling.make_table, name) for name in scaling.table_names()
        },
        "benchmarks/compile_gpu.json": {"gpus": compile_gpu.make_table},
    },
    "language.md": {
        "nw_ucla/smollm2_joint_seed0/descriptions.jsonl": {"smollm2": sentences_table},
        "benchmarks/lm_weights.json": {"lm_weights": lm_weights.make_table},
        "benchmarks/generation.json": {"generation": generation.make_table},
    },
    "formats.md": {"benchmarks/layouts.json": {"layouts": layouts.make_table}},
    "video.md": {
        "benchmarks/pose_error.json": {"pose_error": pose_error.make_table},
        "benchmarks/follow.json": {"follow": follow.make_table},
    },
    "reliability.md": {"reliability.json": {"kills": kills_table, "soak": soak_table}},
}


def make(document: str, results: Path) -> dict[str, str]:
    """Markdown by marker; missing results are reported in the text.

    Raises:
        UserError: a result is damaged.
    """
    made = {}
    for file, tables in TABLES[document].items():
        path = results / file
        read = read_descriptions if path.suffix == ".jsonl" else read_result
        result = read(path) if path.is_file() else None
        for name, function in tables.items():
            made[name] = function(result) if result else "Not measured yet."
    return made


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--check", action="store_true", help="only fail if stale")
    args = parser.parse_args(argv)
    for document in TABLES:
        write_tables(args.docs / document, make(document, args.results), args.check)
    readme = args.docs.parent / "README.md"
    if readme.is_file():
        best = releases_table(args.results, readme.parent)[: 2 + BEST]  # two lines of header
        write_tables(readme, {"weights": "\n".join(best)}, args.check)


if __name__ == "__main__":
    sys.exit(main())
