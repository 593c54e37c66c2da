"""Reads, checks and groups the `result.json` files below a folder, and formats them as text.

In: `results/**/result.json`, one per run, as training writes them. Out: runs that differ only in
the seed as one group; names, percentages and tables in Markdown.
"""

import json
import os
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.significance import accuracy_interval
from hocslm_jax.files.text import read_json

TEXTS = ("dataset", "protocol", "encoder", "stream", "strategy")
COUNTS = ("seed", "epochs", "correct", "total")
OPTIONAL = ("best_correct", "samples_per_s", "wall_clock_s")  # numbers, or null if unknown
SAME = (*TEXTS, "epochs", "total")  # keys that must be equal in runs that differ only in the seed


def read_results(folder: Path) -> dict[Path, dict]:
    """Every run below `folder`: its directory and its checked result, in order of path.

    Raises:
        UserError: there is none, or one is damaged or lacks a key (names the file).
    """
    paths = sorted(folder.glob("**/result.json"))
    if not paths:
        raise UserError(f"{folder} has no result.json; train first, or give --results FOLDER")
    return {path.parent: read_result(path) for path in paths}


def read_result(path: Path) -> dict:
    """One `result.json`, checked.

    Raises:
        UserError: the file is missing or damaged, or lacks a required key.
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
    raise ValueError(f"{name} is not a number of a result")


def group_by_seed(runs: dict[Path, dict]) -> list[dict[Path, dict]]:
    """Runs whose paths differ only in the seed, sorted by dataset, …, strategy, then path.

    Raises:
        UserError: runs with the same name that differ in more than the seed, or a repeated seed.
    """
    groups: dict[str, dict[Path, dict]] = {}
    for folder, result in sorted(runs.items(), key=lambda run: run[1]["seed"]):
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
            raise UserError(f"{first}: its runs contain one seed twice; remove one")
    named = sorted(groups.items(), key=lambda item: (_texts(item[1]), item[0]))
    return [group for _, group in named]


def _texts(group: dict[Path, dict]) -> list[str]:
    return [next(iter(group.values()))[key] for key in TEXTS]


def run_name(folder: Path, results: Path) -> str:
    """The path of a run below the results without its seed, e.g. `nw_ucla/hglnet_joint`."""
    return re.sub(r"[/_-]?seed\d+", "", folder.relative_to(results).as_posix())


def setting(run: Path, result: dict) -> str:
    """`10 epochs, strategy T0, width 32, 32 frames`, from width on if the run's files record it."""
    said = dict(re.findall(r"\b(width|frames)=(\d+)", result.get("command") or ""))
    if (run / "config.json").is_file():
        config = read_json(run / "config.json")
        said = {"width": config.get("model", {}).get("width")}
        said["frames"] = config.get("data", {}).get("frames")
        said["unseen"] = config.get("data", {}).get("unseen")
    parts = [f"{result['epochs']} epochs", f"strategy {result['strategy']}"]
    parts += [f"width {said['width']}"] if said.get("width") else []
    parts += [f"{said['frames']} frames"] if said.get("frames") else []
    parts += [f"seen classes of {said['unseen']} alone"] if said.get("unseen") else []
    return ", ".join(parts + ["distilled"] * ("distill" in result))


def link(path: Path, docs: Path) -> str:
    """A Markdown link to a path, relative to the folder `docs`."""
    return Path(os.path.relpath(path, docs)).as_posix()


def percent(counts: Sequence[float], total: int) -> str:
    """Mean in per cent and, of several counts, sample standard deviation, as `94.83 ± 0.21`."""
    shares = [100 * count / total for count in counts]
    spread = f" ± {statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{statistics.fmean(shares):.2f}{spread}" if shares else "–"


def accuracy_text(correct: int, total: int) -> str:
    """`436/464 (93.97%)`."""
    return f"{correct}/{total} ({correct / total:.2%})"


def accuracy_cell(counts: Sequence[int], total: int) -> str:
    """`436 / 464 = **93.97** [91.4, 95.8]`; of several seeds the spread replaces the interval."""
    if not counts:
        return "–"
    cell = f"{', '.join(map(str, counts))} / {total} = **{percent(counts, total)}**"
    if len(counts) > 1:
        return cell
    low, high = (100 * bound for bound in accuracy_interval(counts[0], total))
    return f"{cell} [{low:.1f}, {high:.1f}]"


def same_total(totals: Sequence[int]) -> int:
    """The clips that each seed of a run described. Raises UserError where they differ."""
    if len(set(totals)) > 1:
        raise UserError(f"seeds of one run described {set(totals)} clips: describe as many in each")
    return totals[0]


def best_epoch(results: Sequence[dict]) -> str:
    """Per cent at the best epoch; – if a run lacks it, as the mean of the others would mislead."""
    counts = [result.get("best_correct") for result in results]
    return "–" if None in counts or not counts else percent(counts, results[0]["total"])


def duration(results: Iterable[dict]) -> str:
    """Mean training time of some runs; – if a run lacks it."""
    seconds = [result.get("wall_clock_s") for result in results]
    if None in seconds:
        return "–"
    whole = round(statistics.fmean(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def machines(results: Iterable[dict]) -> str:
    """The accelerators of some runs, or the processor if there are none."""
    return "; ".join(dict.fromkeys(_machine(result.get("machine")) for result in results))


def _machine(machine: object) -> str:
    if not isinstance(machine, dict):
        return str(machine or "–")
    if machine.get("platform", "cpu") == "cpu":
        cores, name = machine.get("cpu_cores"), machine.get("cpu") or "CPU"
        name = name.replace("(R)", "").replace("(TM)", "")
        return f"{name}, {cores} core{'s' * (cores > 1)}" if cores else name
    count, device = machine.get("devices", 1), machine.get("device", "accelerator")
    return str(device) if count == 1 else f"{count} × {device}"


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1
) -> list[str]:
    """Markdown lines; the first `left` columns and the last are aligned to the left."""
    rule = ["---"] * left + ["---:"] * (len(header) - left - 1) + ["---"]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *cells)]
