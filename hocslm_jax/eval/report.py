"""The results table: every `result.json` below a folder becomes a row of one Markdown document.

In: `results/**/result.json`, one a run, as training writes them. Runs whose folders differ only
in a `seedN` are one row, with mean and spread. Out: `docs/results.md`, which `--check` compares
with the files, so that no number in it can be older than, or other than, a run's own.
Percentages are computed from the counts, never read.
"""

import argparse
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
HEADER = (
    *("run", "dataset", "protocol", "encoder", "stream", "strategy", "seeds", "correct / total"),
    *("top-1, last epoch", "top-1, best epoch ¹", "epochs", "clips/s ²", "wall clock", "machine"),
)
LEFT = 6  # columns of text; the rest are numbers
PREAMBLE = """\
# Results

Written by `{command}` from the runs' own `result.json` files; do not edit.

Top-1 is correct / total over all test clips after the **last** epoch, in per cent. With two or
more seeds it is the mean ± the sample standard deviation, and the counts are listed by seed.

¹ The literature's habit: the best of all epochs, chosen on the test split itself, and therefore
too high. It is here for comparison with published numbers only.
² Clips trained on a second, mean over the seeds; so is the wall clock of a run.
"""

CAPTION_PREAMBLE = """\
## Descriptions

Test clips in the words of the language model: sentences that name the clip's class and no other;
clips whose class the language model finds likeliest, by the mean log-likelihood of a token of three
sentences of each class; corpus BLEU and chrF (sacrebleu) and mean ROUGE-L against the references.
"""
CAPTION_COLUMNS = {
    "mention": "name their class, %",
    "likelihood": "class by likelihood, %",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_l": "ROUGE-L",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `python -m hocslm_jax report`."""
    parser.add_argument("--results", default="results", help="folder with result.json files")
    parser.add_argument("--out", default="docs/results.md", help="document to write")
    parser.add_argument("--check", action="store_true", help="only fail if the document is stale")


def run(args: argparse.Namespace) -> None:
    """Writes the document or, with --check, raises a UserError unless it is up to date."""
    results, out = Path(args.results), Path(args.out)
    command = f"python -m hocslm_jax report --results {args.results} --out {args.out}"
    runs = read_results(results)
    text = render(runs, command, results, out.parent)
    if args.check:
        if not out.is_file() or out.read_text(encoding="utf-8") != text:
            raise UserError(f"{out} does not show the runs in {results}; run: {command}")
        print(f"{out} is up to date: {len(runs)} runs")
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(f"wrote {out}: {len(runs)} runs")


def read_results(folder: Path) -> dict[Path, dict]:
    """Every run below `folder`: its directory to its checked result, in order of path.

    Raises:
        UserError: there is none, or one is broken or lacks a key (names the file).
    """
    paths = sorted(folder.glob("**/result.json"))
    if not paths:
        raise UserError(f"{folder} holds no result.json; train first, or give --results FOLDER")
    return {path.parent: _read(path) for path in paths}


def render(runs: dict[Path, dict], command: str, results: Path, relative_to: Path) -> str:
    """The whole document as Markdown; run names are below `results`, links from `relative_to`."""
    groups = _groups(runs)
    rows = [_row(_name(next(iter(group)), results), list(group.values())) for group in groups]
    lines = [PREAMBLE.format(command=command), *_table(HEADER, rows), ""]
    lines += _descriptions(groups, results)
    lines += ["## Commands", ""]
    for group in groups:
        folders = [os.path.relpath(folder, relative_to) for folder in group]
        links = ", ".join(f"[{Path(f).name}]({Path(f).as_posix()}/result.json)" for f in folders)
        said = next(iter(group.values())).get("command")
        lines.append(f"- {links}" + (f": `{said}`" if said else ""))
    return "\n".join(lines) + "\n"


def _descriptions(groups: list[dict[Path, dict]], results: Path) -> list[str]:
    """A table of the runs that describe their test clips, if there are any."""
    rows = []
    for group in groups:
        scored = [result["captions"] for result in group.values() if result.get("captions")]
        if len(scored) < len(group):
            continue
        name = _name(next(iter(group)), results)
        rows.append([name, *(_caption_cell(key, scored) for key in CAPTION_COLUMNS)])
    if not rows:
        return []
    return [CAPTION_PREAMBLE, *_table(("run", *CAPTION_COLUMNS.values()), rows, left=1), ""]


def _caption_cell(key: str, scored: list[dict]) -> str:
    if f"{key}_correct" not in scored[0]:
        return f"{statistics.fmean(scores[key] for scores in scored):.3g}"
    totals = {scores[f"{key}_total"] for scores in scored}
    if len(totals) > 1:
        raise UserError(f"seeds of one run described {totals} clips: describe as many in each")
    counts = [scores[f"{key}_correct"] for scores in scored]
    total = totals.pop()
    return f"{', '.join(map(str, counts))} / {total} = {_percent(counts, total)}"


def _read(path: Path) -> dict:
    try:
        result = json.loads(path.read_text(encoding="utf-8"), parse_constant=_not_a_number)
    except (OSError, ValueError) as error:
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


def _groups(runs: dict[Path, dict]) -> list[dict[Path, dict]]:
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


def _name(folder: Path, results: Path) -> str:
    """The path of a run below the results without its seed, e.g. `nw_ucla/hglnet_joint`."""
    return re.sub(r"[/_-]?seed\d+", "", folder.relative_to(results).as_posix())


def _row(name: str, results: Sequence[dict]) -> list[str]:
    first = results[0]
    total = first["total"]
    correct = ", ".join(str(result["correct"]) for result in results)
    machines = dict.fromkeys(_machine(result.get("machine")) for result in results)
    return [
        name,
        *(first[key] for key in TEXTS),
        ", ".join(str(result["seed"]) for result in results),
        f"{correct} / {total}",
        f"**{_percent([result['correct'] for result in results], total)}**",
        _percent(_known(results, "best_correct"), total),
        str(first["epochs"]),
        _mean(_known(results, "samples_per_s")),
        _duration(_known(results, "wall_clock_s")),
        "; ".join(machines),
    ]


def _known(results: Iterable[dict], key: str) -> list[float]:
    """The values of a key, or none at all where a run lacks it: a mean of some would mislead."""
    values = [result.get(key) for result in results]
    return [] if None in values else values


def _percent(counts: Sequence[float], total: int) -> str:
    if not counts:
        return "–"
    shares = [100 * count / total for count in counts]
    spread = f" ± {statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{statistics.fmean(shares):.2f}{spread}"


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.0f}" if values else "–"


def _duration(seconds: Sequence[float]) -> str:
    if not seconds:
        return "–"
    whole = round(statistics.fmean(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"


def _machine(machine: object) -> str:
    """One short phrase: the accelerators, or the processor where there are none."""
    if not isinstance(machine, dict):
        return str(machine or "–")
    if machine.get("platform", "cpu") == "cpu":
        cores = machine.get("cpu_cores")
        return f"{machine.get('cpu') or 'CPU'}" + (f", {cores} cores" if cores else "")
    count = machine.get("devices", 1)
    device = machine.get("device", "accelerator")
    return str(device) if count == 1 else f"{count} × {device}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], left: int = LEFT) -> list[str]:
    rule = ["---"] * left + ["---:"] * (len(header) - left - 1) + ["---"]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return ["| " + " | ".join(row) + " |" for row in (header, rule, *cells)]
