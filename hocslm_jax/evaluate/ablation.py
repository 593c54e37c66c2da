"""The rows of an ablation beside the paper's numbers, with the spread over seeds.

In: a folder of runs `<row>_seed<N>`, and the paper's numbers. Out: plain dicts for JSON, and a
table in Markdown. A gain is significant if the 95 % t-interval of the difference of two means does
not contain zero: Welch's, or the paired one if each run starts from the first row's run of its
seed. Both need at least two seeds per row.
"""

import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import scipy  # loads scipy.stats on first use, which takes a second

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble import ENSEMBLES, stream_rows
from hocslm_jax.evaluate.results import accuracy_cell, markdown_table, read_result, same_total
from hocslm_jax.evaluate.score_files import read_members

LEVEL = 0.95
HEADER = ("row", "correct / total = top-1, %", "gain, points", "significant")
TOLD = {"mention": "names the class", "likelihood": "class by likelihood"}
NOTE = "Gain: over the first row, with its 95 % interval{paired}."
NOTE_OF_PAPER = " The paper's numbers are single runs on NTU60 X-Sub."


def read_rows(
    names: Iterable[str], published: Mapping[str, float], preset: str, folder: Path
) -> list[dict]:
    """Rows {"row", "published", "seeds", "correct", "total", "epochs"} of the finished runs.

    Rows whose runs all described clips also have "told": for each key of `TOLD` the counts
    {"correct", "total"} of the seeds.
    With a preset of ensemble weights, the runs are streams and their ensembles become rows too.
    Rows without a finished run have empty lists; seeds are sorted.

    Raises:
        UserError: a damaged result, or seeds with different numbers of clips.
    """
    paths = {name: sorted(folder.glob(f"{name}_seed*/result.json")) for name in names}
    rows: list[dict] = []
    for name, own in paths.items():
        results = sorted(map(read_result, own), key=lambda result: result["seed"])
        totals = {result["total"] for result in results}
        if len(totals) > 1:
            raise UserError(f"{name}: its seeds have {sorted(totals)} clips; remove some")
        seeds, correct = ([result[key] for result in results] for key in ("seed", "correct"))
        row = {"row": name, "seeds": seeds, "correct": correct, "total": max(totals, default=0)}
        row["epochs"] = sorted({result["epochs"] for result in results})
        captions = [result.get("captions") for result in results]
        if captions and all(captions):
            row["told"] = {key: _told(captions, key) for key in TOLD}
        rows.append(row)
    if preset:
        runs = [path.parent for own in paths.values() for path in own]
        scored = [str(run) for run in runs if (run / "scores.npz").is_file()]
        found = stream_rows(read_members(scored), preset) if scored else []
        fused = {row["row"]: row for row in found if row["row"] not in paths}
        empty = {"seeds": [], "correct": [], "total": 0}
        rows += [{"row": n, "epochs": [], **fused.get(n, empty)} for n in ENSEMBLES | fused]
    return [row | {"published": published.get(row["row"])} for row in rows]


def _told(captions: Sequence[dict], key: str) -> dict:
    """One of the counts in `TOLD`, from the scores of the seeds' descriptions."""
    total = same_total([scores[f"{key}_total"] for scores in captions])
    return {"correct": [scores[f"{key}_correct"] for scores in captions], "total": total}


def _told_cell(counts: dict | None) -> str:
    return accuracy_cell(counts["correct"], counts["total"]) if counts else "–"


def gain(row: dict, reference: dict, paired: bool = False) -> tuple[float, list[float] | None]:
    """Difference of the mean accuracies in points, and its interval [low, high].

    The interval is None for fewer than two seeds, for equal results of all seeds, or if `paired`
    rows have different seeds.
    """
    here, there = ([100 * n / r["total"] for n in r["correct"]] for r in (row, reference))
    points = statistics.fmean(here) - statistics.fmean(there)
    if min(len(here), len(there)) < 2 or (paired and row["seeds"] != reference["seeds"]):
        return points, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all seeds have the same result
        stats = scipy.stats
        test = (
            stats.ttest_rel(here, there)
            if paired
            else stats.ttest_ind(here, there, equal_var=False)
        )
        low, high = map(float, test.confidence_interval(LEVEL))
    return points, [low, high] if 0 < high - low < math.inf else None


def ablation_table(rows: Sequence[dict], paired: bool = False) -> list[str]:
    """Markdown; gains are over the first row.

    A column shows the epochs if rows were trained for different numbers of them; two more columns
    show how many descriptions are of the right class, if any row has descriptions.
    """
    with_paper = any(row["published"] is not None for row in rows)
    with_epochs = len({epochs for row in rows for epochs in row["epochs"]}) > 1
    described = any("told" in row for row in rows)
    header = HEADER + tuple(TOLD.values()) * described
    header += ("epochs, last stage",) * with_epochs + ("paper, %",) * with_paper
    lines = []
    for row in rows:
        cells = [row["row"], accuracy_cell(row["correct"], row["total"])]
        cells += _gain_cells(row, rows[0], paired)
        told = row.get("told", {})
        cells += [_told_cell(told.get(key)) for key in TOLD] * described
        cells += [", ".join(map(str, row["epochs"])) or "–"] * with_epochs
        paper = "–" if row["published"] is None else f"{row['published']:.2f}"
        lines.append(cells + [paper] * with_paper)
    note = NOTE.format(paired=", paired by seed" if paired else "")
    return [*markdown_table(header, lines), "", note + NOTE_OF_PAPER * with_paper]


def _gain_cells(row: dict, reference: dict, paired: bool) -> list[str]:
    comparable = row["correct"] and row["total"] == reference["total"]  # run, and on the same clips
    if row is reference or not comparable:
        return ["–", "–"]
    points, interval = gain(row, reference, paired)
    if interval is None:
        return [f"{points:+.2f}", "–"]
    low, high = interval
    significant = "yes" if low > 0 or high < 0 else "no"
    return [f"{points:+.2f} [{low:+.2f}, {high:+.2f}]", significant]
