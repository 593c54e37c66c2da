"""The results table: every `result.json` below a folder becomes a row of one Markdown document.

In: `results/**/result.json`, one a run, as training writes them. Runs whose folders differ only
in a `seedN` are one row, with mean and spread. Out: `docs/results.md`, which `--check` compares
with the files, so that no number in it can be older than, or other than, a run's own. Where there
are runs of NW-UCLA, `results/nw_ucla.md` too. Percentages are computed from counts, never read.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate import nw_ucla_report
from hocslm_jax.evaluate.results import (
    TEXTS,
    command_lines,
    group_runs,
    known,
    percent,
    read_results,
    run_name,
    table,
)
from hocslm_jax.files.atomic import write_text

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

¹ The literature's habit: the best of all epochs, chosen on the test split itself (on the `val`
split of a dataset that has one), and therefore too high. It is for comparison with others.
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
    documents = {out: render(runs, command, results, out.parent)}
    ucla = {path: result for path, result in runs.items() if (results / "nw_ucla") in path.parents}
    if ucla:
        path = results / "nw_ucla.md"
        documents[path] = nw_ucla_report.render(ucla, command, results / "nw_ucla")
    for path, text in documents.items():
        if not args.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise UserError(f"{path} does not show the runs in {results}; run: {command}")
    names = ", ".join(map(str, documents))
    print(f"{names} up to date: {len(runs)} runs" if args.check else f"wrote {names}")


def render(runs: dict[Path, dict], command: str, results: Path, relative_to: Path) -> str:
    """The whole document as Markdown; run names are below `results`, links from `relative_to`."""
    groups = group_runs(runs)
    rows = [_row(run_name(next(iter(group)), results), list(group.values())) for group in groups]
    lines = [PREAMBLE.format(command=command), *table(HEADER, rows, LEFT), ""]
    lines += _descriptions(groups, results)
    lines += ["## Commands", "", *command_lines(groups, relative_to)]
    return "\n".join(lines) + "\n"


def _descriptions(groups: list[dict[Path, dict]], results: Path) -> list[str]:
    """A table of the runs that describe their test clips, if there are any."""
    rows = []
    for group in groups:
        scored = [result["captions"] for result in group.values() if result.get("captions")]
        if len(scored) < len(group):
            continue
        name = run_name(next(iter(group)), results)
        rows.append([name, *(_caption_cell(key, scored) for key in CAPTION_COLUMNS)])
    if not rows:
        return []
    return [CAPTION_PREAMBLE, *table(("run", *CAPTION_COLUMNS.values()), rows), ""]


def _caption_cell(key: str, scored: list[dict]) -> str:
    if f"{key}_correct" not in scored[0]:
        return f"{statistics.fmean(scores[key] for scores in scored):.3g}"
    totals = {scores[f"{key}_total"] for scores in scored}
    if len(totals) > 1:
        raise UserError(f"seeds of one run described {totals} clips: describe as many in each")
    counts = [scores[f"{key}_correct"] for scores in scored]
    total = totals.pop()
    return f"{', '.join(map(str, counts))} / {total} = {percent(counts, total)}"


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
        f"**{percent([result['correct'] for result in results], total)}**",
        percent(known(results, "best_correct"), total),
        str(first["epochs"]),
        _mean(known(results, "samples_per_s")),
        _duration(known(results, "wall_clock_s")),
        "; ".join(machines),
    ]


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
