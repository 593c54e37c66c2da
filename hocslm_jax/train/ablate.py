"""The verb `ablate`: runs every row of a table with every seed, one after another.

In: a file with CONFIG (a config file) and ROWS (name -> its `:k=v,k=v` argument, with `{workdir}`
and `{seed}` if it needs another row's run), and the paper's numbers in PUBLISHED; for example
configs/ablations/components.py. Out: `<workdir>/<row>_seed<N>`, ordinary runs of launch.py, and the
table with the paper's numbers as table_<file>.md and .json; with `--out` also copies of the
reports. Finished runs are not repeated; interrupted ones resume.
"""

import argparse
import dataclasses
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ablation import ablation_table, read_rows
from hocslm_jax.evaluate.results import read_result
from hocslm_jax.files.atomic import replaced, write_json, write_text
from hocslm_jax.train.config_files import config_file

REPORTS = ("result.json", "config.json", "metrics.jsonl", "descriptions.jsonl", "scores.npz")
SMALL = 1_000_000  # bytes; larger scores are not copied
T0 = "strategy=T0"


@dataclasses.dataclass(frozen=True)
class Table:
    """The content of a table file.

    Attributes:
      name: name of its file and of the written table.
      config: the config file of every run.
      rows: name -> argument of the config file; gains are measured from the first row.
      title: with the number of the table in the paper.
      published: row -> per cent on NTU60 X-Sub.
      preset: weights of ensembles, if the rows are streams; otherwise "".
      paired: whether each seed of a row starts from the same seed of the first row.
    """

    name: str
    config: str
    rows: dict[str, str]
    title: str = ""
    published: dict[str, float] = dataclasses.field(default_factory=dict)
    preset: str = ""
    paired: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `ablate`."""
    parser.add_argument("table", type=Path, help="file with CONFIG and ROWS")
    parser.add_argument("--workdir", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--config", metavar="FILE", help="replaces the config of the table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="rows to run; default: all")
    parser.add_argument("--set", default="", metavar="k=v,k=v", help="settings of every run")
    parser.add_argument("--out", type=Path, help="copy the finished runs' reports here")
    parser.add_argument("--summarise", action="store_true", help="train nothing, write the table")


def run(args: argparse.Namespace) -> None:
    """Runs the table; stops at the first run that fails.

    Raises:
        UserError: no such table or row, or a run that ended without a result.
    """
    table = read_table(config_file(str(args.table)))
    table = dataclasses.replace(table, config=args.config or table.config)
    if unknown := set(args.rows or ()) - set(table.rows):
        known = ", ".join(table.rows)
        raise UserError(f"{args.table} has no row {sorted(unknown)[0]!r}; its rows are {known}")
    for folder, command in () if args.summarise else commands(table.config, table.rows, args):
        print(f"== {folder.name}: {' '.join(command[1:])}", flush=True)
        status = subprocess.run(command).returncode
        if status or not (folder / "result.json").is_file():
            raise UserError(f"{folder} ended with status {status}; rerun to resume")
        if args.out:
            keep(folder, args.out / folder.name)
        write_table(table, args.workdir, args.out or args.workdir)
    text = write_table(table, args.workdir, args.out or args.workdir)
    print("\n".join(text))


def read_table(path: Path) -> Table:
    """Reads a table file. Raises UserError if it is invalid."""
    try:
        names = runpy.run_path(str(path))
        return Table(
            name=path.stem,
            config=names["CONFIG"],
            rows=dict(names["ROWS"]),
            title=names.get("TITLE", path.stem),
            published=dict(names.get("PUBLISHED", {})),
            preset=names.get("PRESET", ""),
            paired=names.get("PAIRED", False),
        )
    except (OSError, SyntaxError, KeyError) as error:
        raise UserError(f"{path} is not a table with CONFIG and ROWS ({error!r})") from error


def commands(
    config: str, rows: dict[str, str], args: argparse.Namespace
) -> Iterator[tuple[Path, list[str]]]:
    """(workdir, command) of every run. A T0 row's run is also the first stage of other rows."""
    first = next((name for name, arg in rows.items() if arg == T0), None)
    chosen = {name: arg for name, arg in rows.items() if name in (args.rows or rows)}
    for seed in args.seeds:
        before = args.workdir / f"{first}_seed{seed}"
        known = first in chosen or (before / "result.json").is_file()
        for name, arg in chosen.items():
            placed = arg.replace("{workdir}", str(args.workdir)).replace("{seed}", str(seed))
            settings = [placed, f"seed={seed}", *filter(None, [args.set])]
            alike = arg.startswith("strategy=") and "," not in arg  # only the strategy
            if known and name != first and alike and starts_with_t0(config, arg):
                settings.append(f"t0={before}")
            folder = args.workdir / f"{name}_seed{seed}"
            language = f"--config.lm.folder={args.workdir / f'lm_seed{seed}'}"
            flags = [f"--config={config}:{','.join(settings)}", f"--workdir={folder}", language]
            yield folder, [sys.executable, "-m", "hocslm_jax", "train", *flags]


def starts_with_t0(config: str, arg: str) -> bool:
    """Whether the first of several stages is strategy T0."""
    from hocslm_jax.train import experiment  # imports JAX
    from hocslm_jax.train.stages import Stage, read_stages

    stages = read_stages(experiment.load(config, arg))
    return len(stages) > 1 and stages[0] == Stage()


def keep(folder: Path, out: Path) -> None:
    """Copies a run's reports."""
    out.mkdir(parents=True, exist_ok=True)
    for name in REPORTS:
        path = folder / name
        if path.is_file() and not (name == "scores.npz" and path.stat().st_size > SMALL):
            with replaced(out / name) as partial:
                shutil.copy(path, partial)


def write_table(table: Table, workdir: Path, out: Path) -> list[str]:
    """Writes table_<name>.json and .md of the finished runs; returns the lines of the latter."""
    rows = read_rows(table.rows, table.published, table.preset, workdir)
    known = {key: getattr(table, key) for key in ("title", "config", "preset", "paired")}
    lines = [f"# {table.title}", "", *ablation_table(rows, table.paired)]
    runs = (run for row in table.rows for run in sorted(workdir.glob(f"{row}_seed*/result.json")))
    first = next(runs, None)
    said = first and read_result(first).get("command")
    lines += ["", f"Settings as in `{said}`."] if said else []
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"table_{table.name}"
    write_json(path.with_suffix(".json"), known | {"rows": rows})
    write_text(path.with_suffix(".md"), "\n".join(lines) + "\n")
    return lines
