"""The tables of docs/reliability.md, from `results/reliability.json`.

    python -m benchmarks.reliability [--check]

In: what benchmarks.crash_campaign wrote. Out: the document with new tables, or with --check an
error where they are stale.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.record import one_line_errors, read_result, table, write_tables


def kills_table(result: dict) -> str:
    """Kills by place and signal, and what came of them."""
    counts = {}
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
    return f"{table(['killed in', 'SIGKILL', 'SIGTERM'], lines)}\n\n{said}. {measured(result)}"


def soak_table(result: dict) -> str:
    """What a long run uses at a tenth of it and at its end."""
    if "soak" not in result:
        return "Not measured yet."
    found = result["soak"]
    rows = (found["after_a_tenth"], found["at_the_end"])
    lines = [
        [
            f"step {row['step']:,}",
            *(f"{row[key]:.0f}" for key in ("memory_mib", "files", "threads")),
        ]
        for row in rows
    ]
    return table([f"of {found['steps']:,}", "memory, MiB", "open files", "threads"], lines)


def measured(result: dict) -> str:
    return f"Measured by `{result['command']}` on {result['machine']['cpu']}."


def tables(path: Path) -> dict[str, str]:
    """Markdown by marker."""
    if not path.is_file():
        return {"kills": "Not measured yet.", "soak": "Not measured yet."}
    result = read_result(path)
    return {"kills": kills_table(result), "soak": soak_table(result)}


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability")
    parser.add_argument("--result", type=Path, default=Path("results/reliability.json"))
    parser.add_argument("--docs", type=Path, default=Path("docs/reliability.md"))
    parser.add_argument("--check", action="store_true", help="only fail if stale")
    args = parser.parse_args(argv)
    write_tables(args.docs, tables(args.result), args.check)


if __name__ == "__main__":
    sys.exit(main())
