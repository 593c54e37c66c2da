"""Tables of `plan`: the train step of NTU60 on TPU slices of 4 to 256 chips.

    python -m benchmarks.scaling --json results/benchmarks/scaling.json [--rows 'ctrgcn T3 *']
    python -m benchmarks.scaling --json results/benchmarks/scaling.json --docs docs/scaling.md

In: nothing but the configs; needs libtpu and no TPU. Out: a JSON file that grows by one row at a
time, each compiled in a process of its own, so that the same command goes on where it was stopped.
With --docs nothing is compiled: the tables in the document are made from the file, and --check only
fails where they are stale.
"""

import argparse
import dataclasses
import fnmatch
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import (
    measured_here,
    one_line_errors,
    read_result,
    table,
    write_result,
    write_tables,
)
from hocslm_jax.errors import UserError
from hocslm_jax.plan.estimate import needed

SLICES = {  # 4, 16, 64 and 256 chips
    "v5e": ("2x2", "4x4", "8x8", "16x16"),
    "v5p": ("2x2x1", "2x2x4", "4x4x4", "4x8x8"),
}
CHIPS = (4, 16, 64, 256)
PER_CHIP, FIXED = 16, 256  # clips: weak scaling keeps the former, strong scaling the latter
CONFIGS = {
    "T0": "configs/ntu60_xsub.py:strategy=T0",
    "T3": "configs/ntu60_xsub.py",
    "T3-fsdp": "configs/ntu60_xsub.py:lm.fsdp=true",
}
COLUMNS = (
    *("slice", "chips", "clips", "GiB a chip", "TFLOP a chip", "of an even split"),
    *("GB sent", "at best, ms", "bound", "by the compiler, ms", "clips/s"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One cell of the experiment; its name is its key in the result."""

    strategy: str
    scaling: str
    chip: str
    place: int
    encoder: str = "ctrgcn"

    @property
    def name(self) -> str:
        return f"{self.encoder} {self.strategy} {self.scaling} {self.topology}"

    @property
    def twin(self) -> str:
        other = {"weak": "strong", "strong": "weak"}[self.scaling]
        return dataclasses.replace(self, scaling=other).name

    @property
    def topology(self) -> str:
        return f"{self.chip}:{SLICES[self.chip][self.place]}"

    @property
    def batch(self) -> int:
        return PER_CHIP * CHIPS[self.place] if self.scaling == "weak" else FIXED

    def settings(self, more: str) -> str:
        sizes = f"batch_size={self.batch},eval_batch_size={self.batch}"
        return ",".join(filter(None, [sizes, f"model.encoder={self.encoder}", more]))


def rows(pattern: str = "*") -> list[Row]:
    """Those whose name matches, the most telling ones first."""
    every = [Row("T3", "weak", "v5e", place, "hglnet") for place in (3, 1)]
    every += [
        Row(strategy, scaling, chip, place)
        for strategy, scaling in (("T3", "weak"), ("T0", "weak"), ("T3", "strong"))
        for chip in SLICES
        for place in (3, 1, 2, 0)
    ]
    every.append(Row("T3-fsdp", "strong", "v5e", 0))  # where the frozen weights leave no room
    return [row for row in every if fnmatch.fnmatch(row.name, pattern)]


def measure(row: Row, more: str, limit: int) -> dict:
    """The plan of one row, from a process of its own: it takes much memory and gives it back."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "hocslm_jax", "plan", f"--json={out}"]
        command += [f"--config={CONFIGS[row.strategy]}", f"--topology={row.topology}"]
        command += ["--set", row.settings(more)]
        start = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise UserError(f"{row.name}: not compiled in {limit} s; raise --limit") from None
        if not out.is_file():
            said = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise UserError(f"{row.name}: {said.removeprefix('error: ')}")
        return json.loads(out.read_text()) | {"wall_s": round(time.perf_counter() - start, 1)}


def fill(args: argparse.Namespace) -> None:
    """Adds the rows that are not there yet, or were made with other settings."""
    result = read_result(args.json) if args.json.is_file() else {"benchmark": "scaling", "rows": {}}
    for row in rows(args.rows):
        known = result["rows"].get(row.name)
        if known and known["settings"] == row.settings(args.set):
            continue
        twin = result["rows"].get(row.twin, {})  # the same step on the same slice
        same = twin.get("settings") == row.settings(args.set)
        found = twin if same else measure(row, args.set, args.limit)
        result["rows"][row.name] = found
        result |= measured_here("scaling", "libtpu", arguments=command(args))
        write_result(args.json, result)
        print(f"{row.name}: {' | '.join(cells(row, found)[2:])}, {found['wall_s']} s", flush=True)


def command(args: argparse.Namespace) -> list[str]:
    """The arguments that make all rows, of which this one may make a few."""
    return ["--json", str(args.json), *(["--set", args.set] if args.set else [])]


def cells(row: Row, found: dict) -> list[str]:
    """One line of a table."""
    shape = [f"`{row.topology}`", f"{found['devices']}", f"{found['batch_size']:,}"]
    size = needed(found)
    if size is None:
        return [*shape, f"does not fit: {found['does_not_fit']}", *["–"] * 7]
    seconds, rates = found["seconds"], found["examples_per_s"]
    counts = found["flops"]
    sent = sum(one["sent"] for one in found["collectives"].values())
    fits = "" if found["fits"] else " (does not fit)"
    compiler = f"{1e3 * seconds['compiler']:,.0f}" if "compiler" in seconds else "–"
    least = f"{rates['compiler']:,.0f} to " if "compiler" in rates else "up to "
    return [
        *shape,
        f"{size / 2**30:.1f}{fits}",
        f"{counts['matrix'] / 1e12:.2f}",
        f"{counts['matrix'] / counts['ideal']:.2f}",
        f"{sent / 1e9:.2f}",
        f"{1e3 * seconds['step']:,.1f}",
        found["bound"],
        compiler,
        f"{least}{rates['at_best']:,.0f}",
    ]


def tables(result: dict) -> dict[str, str]:
    """Markdown by marker: the rows that are there, by encoder, strategy and kind of scaling."""
    made, every = {}, rows()
    for kind in dict.fromkeys(row.name.rpartition(" ")[0] for row in every):
        chosen = [row for row in every if row.name.startswith(f"{kind} ")]
        chosen.sort(key=lambda row: (row.chip, row.place))
        known = [row for row in chosen if row.name in result["rows"]]
        lines = [cells(row, result["rows"][row.name]) for row in known]
        made[kind] = table(COLUMNS, lines) if lines else "Not compiled yet."
        if lines and "weak" in kind:
            made[kind] += ideal_lines(result, chosen)
    found, whole = len(result["rows"]), len(every)
    made["settings"] = f"{found} of {whole} rows are compiled, by `{result['command']}`."
    return made


def ideal_lines(result: dict, chosen: list[Row]) -> str:
    """How far weak scaling from 16 to 256 chips is from ideal, where both are there."""
    said = ""
    for chip in SLICES:
        ends = [row.name for row in chosen if row.chip == chip and CHIPS[row.place] in (16, 256)]
        counts = [result["rows"].get(name, {}).get("flops", {}).get("matrix") for name in ends]
        if len(counts) == 2 and all(counts):
            change = counts[1] / counts[0] - 1
            said += f"\n\n{chip}: from 16 to 256 chips the products of one chip change by "
            said += f"{change:+.2%}."
    return said


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--json", type=Path, required=True, help="the result, gone on with")
    parser.add_argument("--rows", default="*", help="only those whose name matches")
    parser.add_argument("--set", default="", metavar="k=v,k=v", help="more settings, for all rows")
    parser.add_argument("--limit", type=int, default=7200, help="seconds for one row")
    parser.add_argument("--docs", type=Path, help="make this document's tables, compile nothing")
    parser.add_argument("--check", action="store_true", help="with --docs: only fail if stale")
    args = parser.parse_args(argv)
    if args.docs:
        write_tables(args.docs, tables(read_result(args.json)), args.check)
    else:
        fill(args)


if __name__ == "__main__":
    sys.exit(main())
