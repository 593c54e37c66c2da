"""Tables of `plan`: the train steps of NTU60 compiled for TPU slices, and for small memories.

    python -m benchmarks.scaling --json results/benchmarks/scaling.json [--rows '* weak *']

In: the configs; needs libtpu (for rows of GPUs, `jax[cuda13]`), but no TPU or GPU. Out: a JSON file
to which each row is added, compiled in its own process; rerun the same command to resume.
`benchmarks.tables` makes the tables of docs/scaling.md from the file.
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

from benchmarks.record import measured_here, one_line_errors, read_result, table, write_result
from hocslm_jax.errors import UserError
from hocslm_jax.plan.estimate import bytes_needed

SETTINGS = {  # of ntu60_xsub
    **{"T0": "strategy=T0", "T3": "", "T3-fsdp": "lm.fsdp=true"},
    "T3-8B-int8": "llm=Qwen/Qwen3-8B,lm.weights=int8",
    "T3-4B-int4": "llm=Qwen/Qwen3-4B,lm.weights=int4",
}
SLICES = {  # chips: name, per generation
    "v5e": {4: "2x2", 16: "4x4", 64: "8x8", 256: "16x16"},
    "v5p": {4: "2x2x1", 16: "2x2x4", 64: "4x4x4", 256: "4x8x8"},
}
CLIPS_PER_CHIP, CLIPS = 16, 256  # weak scaling keeps the former, strong scaling the latter
COLUMNS = (
    *("step", "devices", "clips", "GiB", "TFLOP", "GB moved", "GB sent"),
    *("lower bound, ms", "bound", "compiler's estimate, ms", "clips/s"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One compiled step; `table` is the marker of its table in the document."""

    table: str  # "weak", "strong" or "few_bits"
    strategy: str
    encoder: str
    topology: str
    batch: int

    @property
    def name(self) -> str:
        return f"{self.encoder} {self.strategy} {self.table} {self.topology}"

    def config(self, more: str) -> str:
        sizes = f"batch_size={self.batch},eval_batch_size={self.batch}"
        parts = (SETTINGS[self.strategy], sizes, f"model.encoder={self.encoder}", more)
        return "ntu60_xsub:" + ",".join(filter(None, parts))


def rows(pattern: str = "*") -> list[Row]:
    """The rows whose name matches the pattern, in the order of the tables."""
    made = []
    for strategy, encoder, chips in (
        ("T3", "hglnet", ("v5e",)),
        ("T3", "ctrgcn", ("v5e", "v5p")),
        ("T0", "ctrgcn", ("v5e", "v5p")),
    ):
        for topology, number in slices(chips, (16, 256)):
            made.append(Row("weak", strategy, encoder, topology, CLIPS_PER_CHIP * number))
    for topology, _ in slices(("v5e", "v5p"), (4, 16, 64, 256)):
        made.append(Row("strong", "T3", "ctrgcn", topology, CLIPS))
    made.append(Row("strong", "T3-fsdp", "ctrgcn", "v5e:2x2", CLIPS))
    made.append(Row("few_bits", "T3-8B-int8", "ctrgcn", "v5e:1x1", CLIPS_PER_CHIP))
    made.append(Row("few_bits", "T3-4B-int4", "ctrgcn", "rtx4060:1", CLIPS_PER_CHIP))
    return [row for row in made if fnmatch.fnmatch(row.name, pattern)]


def slices(chips: tuple[str, ...], numbers: tuple[int, ...]) -> list[tuple[str, int]]:
    """Topologies of these TPU generations, and their numbers of chips."""
    return [(f"{chip}:{SLICES[chip][number]}", number) for chip in chips for number in numbers]


def measure(row: Row, more: str, limit: int) -> dict:
    """The plan of one row, from a separate process, which frees its memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "row.json"
        command = [sys.executable, "-m", "hocslm_jax", "plan", f"--json={out}"]
        command += [f"--config={row.config(more)}", f"--topology={row.topology}"]
        start = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            raise UserError(f"{row.name}: not compiled in {limit} s; raise --limit") from None
        if not out.is_file():
            said = (done.stderr.strip().splitlines() or ["it ended without a message"])[-1]
            raise UserError(f"{row.name}: {said.removeprefix('error: ')}")
        return json.loads(out.read_text()) | {"wall_s": round(time.perf_counter() - start, 1)}


def fill(args: argparse.Namespace) -> None:
    """Adds the rows that are missing or were made with other settings."""
    result = read_result(args.json) if args.json.is_file() else {"benchmark": "scaling", "rows": {}}
    for row in rows(args.rows):
        known = result["rows"]
        step = (row.config(args.set), row.topology)
        same = [one for one in known.values() if step == (one["config"], one["topology"])]
        if row.name in known and known[row.name] in same:
            continue
        found = same[0] if same else measure(row, args.set, args.limit)
        known[row.name] = found
        result |= measured_here("scaling", arguments=["--json", str(args.json)])
        write_result(args.json, result)
        print(f"{row.name}: {' | '.join(cells(row, found)[1:])}", flush=True)


def cells(row: Row, found: dict) -> list[str]:
    """One line of a table."""
    step = f"{row.strategy} {row.encoder}, `{row.topology}`"
    shape = [step, f"{found['devices']}", f"{found['batch_size']:,}"]
    size = bytes_needed(found)
    if size is None:
        return [*shape, f"does not fit: {found['does_not_fit']}", *["–"] * 7]
    fits = "" if found["fits"] else " (does not fit)"
    memory = [f"{size / 2**30:.1f}{fits}", f"{found['flops']['matrix'] / 1e12:.2f}"]
    seconds = found["seconds"]
    compiler = f"{1e3 * seconds['compiler']:,.0f}" if "compiler" in seconds else "–"
    if "bound" not in found:  # the traffic is not known
        return [*shape, *memory, *["–"] * 4, compiler, "–"]
    rates = found["examples_per_s"]
    sent = sum(one["sent"] for one in found["collectives"].values())
    least = f"{rates['compiler']:,.0f} to " if "compiler" in rates else "up to "
    return [
        *shape,
        *memory,
        f"{found['hbm_traffic'] / 1e9:,.1f}",
        f"{sent / 1e9:.2f}",
        f"{1e3 * seconds['step']:,.1f}",
        found["bound"],
        compiler,
        f"{least}{rates['at_best']:,.0f}",
    ]


def table_names() -> list[str]:
    return list(dict.fromkeys(row.table for row in rows()))


def make_table(name: str, result: dict) -> str:
    """Markdown of the available rows of one table."""
    known = result["rows"]
    found = [row for row in rows() if row.table == name and row.name in known]
    return table(COLUMNS, [cells(row, known[row.name]) for row in found])


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument(
        "--json", type=Path, required=True, help="file of the result; new rows are added"
    )
    parser.add_argument("--rows", default="*", help="only those whose name matches")
    parser.add_argument("--set", default="", metavar="k=v,k=v", help="further settings of all rows")
    parser.add_argument("--limit", type=int, default=7200, help="seconds for one row")
    fill(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
