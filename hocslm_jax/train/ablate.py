"""The verb `ablate`: every row of a table, with every seed, one after another.

In: a file with CONFIG (a config file) and ROWS (name -> its `:k=v,k=v` argument), such as
configs/ablations/strategies.py. Out: `<workdir>/<row>_seed<N>`, ordinary runs of launch.py, and
copies of their reports in `--out`, from which `report` makes its table. A run that is finished is
not run again, one that was cut off goes on.
"""

import argparse
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hocslm_jax.errors import UserError

REPORTS = ("result.json", "config.json", "metrics.jsonl", "descriptions.jsonl")
T0 = "strategy=T0"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", type=Path, help="file with CONFIG and ROWS")
    parser.add_argument("--workdir", type=Path, required=True, help="where the runs go")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these; default: all")
    parser.add_argument("--set", default="", metavar="k=v,k=v", help="for every run")
    parser.add_argument("--out", type=Path, help="copy the finished runs' reports here")


def run(args: argparse.Namespace) -> None:
    """Runs the table; stops at the first run that fails.

    Raises:
        UserError: no such table or row, or a run that ended without a result.
    """
    config, rows = read_table(args.table)
    if unknown := set(args.rows or ()) - set(rows):
        known = ", ".join(rows)
        raise UserError(f"{args.table} has no row {sorted(unknown)[0]!r}; its rows are {known}")
    wanted = {name: arg for name, arg in rows.items() if name in (args.rows or rows)}
    for folder, command in commands(config, wanted, args):
        print(f"== {folder.name}: {' '.join(command[1:])}", flush=True)
        status = subprocess.run(command).returncode
        if status or not (folder / "result.json").is_file():
            raise UserError(f"{folder} ended with status {status}; the same command goes on")
        if args.out:
            keep(folder, args.out / folder.name)


def read_table(path: Path) -> tuple[str, dict[str, str]]:
    """CONFIG and ROWS of a table file. Raises UserError if it is not one."""
    try:
        names = runpy.run_path(str(path))
        return names["CONFIG"], dict(names["ROWS"])
    except (OSError, SyntaxError, KeyError) as error:
        raise UserError(f"{path} is no table with CONFIG and ROWS ({error!r})") from error


def commands(
    config: str, rows: dict[str, str], args: argparse.Namespace
) -> Iterator[tuple[Path, list[str]]]:
    """(workdir, command) of every run. A T0 row is the first stage of its seed's other rows."""
    first = next((name for name, arg in rows.items() if arg == T0), None)
    for seed in args.seeds:
        for name, arg in rows.items():
            settings = [arg, f"seed={seed}", *filter(None, [args.set])]
            if first and name != first and "strategy=" in arg and starts_with_t0(config, arg):
                settings.append(f"t0={args.workdir / f'{first}_seed{seed}'}")
            folder = args.workdir / f"{name}_seed{seed}"
            language = f"--config.lm.folder={args.workdir / f'lm_seed{seed}'}"
            flags = [f"--config={config}:{','.join(settings)}", f"--workdir={folder}", language]
            yield folder, [sys.executable, "launch.py", *flags]


def starts_with_t0(config: str, arg: str) -> bool:
    """Whether the first of several stages is strategy T0."""
    from hocslm_jax.train.stages import Stage, read_stages

    stages = read_stages(runpy.run_path(config)["get_config"](arg))
    return len(stages) > 1 and stages[0] == Stage()


def keep(folder: Path, out: Path) -> None:
    """Copies a run's reports."""
    out.mkdir(parents=True, exist_ok=True)
    for name in REPORTS:
        if (folder / name).is_file():
            shutil.copy(folder / name, out / name)
