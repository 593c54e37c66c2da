"""The `result.json` files below a folder: read, checked, and grouped by seed.

In: `results/**/result.json`, one a run, as training writes them. Out: runs whose folders differ
only in a `seedN` as one group, and what the documents made of them share: names, percentages from
the counts, tables, commands.
"""

import json
import os
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from hocslm_jax.errors import UserError

TEXTS = ("dataset", "protocol", "encoder", "stream", "strategy")
COUNTS = ("seed", "epochs", "correct", "total")
OPTIONAL = ("best_correct", "samples_per_s", "wall_clock_s")  # numbers; null where unknown
SAME = (*TEXTS, "epochs", "total")  # what runs that differ only in the seed must share


def read_results(folder: Path) -> dict[Path, dict]:
    """Every run below `folder`: its directory to its checked result, in order of path.

    Raises:
        UserError: there is none, or one is broken or lacks a key (names the file).
    """
    paths = sorted(folder.glob("**/result.json"))
    if not paths:
        raise UserError(f"{folder} holds no result.json; train first, or give --results FOLDER")
    return {path.parent: read_result(path) for path in paths}


def read_result(path: Path) -> dict:
    """One `result.json`, checked.

    Raises:
        UserError: not there, damaged, or lacks what every result has.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_a_number)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); repair or remove it") from error
    if not isinstance(result, dict):
        raise UserError(f"{path} is not a result: expected a JSON object; remove it")
    wrong = [key for key in TEXTS if not isinstance(result.get(key), str)]
    wrong += [key for key in COUNTS if type(result.get(key)) is not int]
    wrong += [key for key in OPTIONAL if not isinstance(result.get(key, 0), int | float | None)]
    if wrong:
        raise UserError(f"{path}: {', '.join(wrong)} missing or of the wrong type; run it again")
    for key in ("correct", "best_correct"):
        if not 0 <= (result.get(key) or 0) <= result["total"] or not result["total"]:
            raise UserError(f"{path}: {key} is not between 0 and total; run it again")
    return result


def _not_a_number(name: str):
    raise ValueError(f"{name} is no result")


def group_runs(runs: dict[Path, dict]) -> list[dict[Path, dict]]:
    """Runs whose paths differ only in the seed, in the order of the table."""
    groups: dict[str, dict[Path, dict]] = {}
    for folder, result in runs.items():
        groups.setdefault(re.sub(r"seed\d+", "seed", folder.as_posix()), {})[folder] = result
    for group in groups.values():
        first = next(iter(group))
        for folder, result in group.items():
            for key in SAME:
                if result[key] != group[first][key]:
                    raise UserError(
                        f"{folder} and {first} look like two seeds of one run but differ in {key} "
                        f"({result[key]}, {group[first][key]}); rename one of the folders"
                    )
        if len({result["seed"] for result in group.values()}) < len(group):
            raise UserError(f"{first}: one seed is there twice among its runs; remove one")
    seeded = [
        dict(sorted(group.items(), key=lambda run: run[1]["seed"])) for group in groups.values()
    ]
    return sorted(seeded, key=lambda group: [next(iter(group.values()))[key] for key in TEXTS])


def run_name(folder: Path, results: Path) -> str:
    """The path of a run below the results without its seed, e.g. `nw_ucla/hglnet_joint`."""
    return re.sub(r"[/_-]?seed\d+", "", folder.relative_to(results).as_posix())


def known(results: Iterable[dict], key: str) -> list[float]:
    """The values of a key, or none at all where a run lacks it: a mean of some would mislead."""
    values = [result.get(key) for result in results]
    return [] if None in values else values


def percent(counts: Sequence[float], total: int) -> str:
    """Mean and, of several counts, sample standard deviation, as `94.83 ± 0.21`."""
    if not counts:
        return "–"
    shares = [100 * count / total for count in counts]
    spread = f" ± {statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{statistics.fmean(shares):.2f}{spread}"


def command_lines(groups: Iterable[dict[Path, dict]], relative_to: Path) -> list[str]:
    """A line for each group: links to its results, and the command of the first run."""
    lines = []
    for group in groups:
        folders = [os.path.relpath(folder, relative_to) for folder in group]
        links = ", ".join(f"[{Path(f).name}]({Path(f).as_posix()}/result.json)" for f in folders)
        said = next(iter(group.values())).get("command")
        lines.append(f"- {links}" + (f": `{said}`" if said else ""))
    return lines


def table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> list[str]:
    """Markdown lines; the first `left` columns and the last are aligned to the left."""
    rule = ["---"] * left + ["---:"] * (len(header) - left - 1) + ["---"]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *cells)]
