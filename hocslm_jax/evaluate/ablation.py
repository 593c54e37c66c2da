"""The rows of an ablation beside the paper's numbers, with the spread over seeds.

In: a folder of runs `<row>_seed<N>`, and the paper's numbers. Out: plain dicts for JSON, and a
table in Markdown. A gain is significant if the 95 % t-interval of the difference of two means does
not contain zero: Welch's, or the paired one if each run starts from the first row's run of its
seed. Both need two seeds per row.
"""

import math
import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from scipy.stats import ttest_ind, ttest_rel

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble import ENSEMBLES, stream_rows
from hocslm_jax.evaluate.results import markdown_table, percent, read_result
from hocslm_jax.evaluate.score_files import read_members

LEVEL = 0.95
HEADER = ("row", "seeds", "correct / total", "top-1, %", "gain", "significant")
NOTE = "Gain: difference to the first row in points, with its 95 % interval{paired}."
NOTE_OF_PAPER = " The paper's numbers are single runs on NTU60 X-Sub."


def read_rows(
    names: Iterable[str], published: Mapping[str, float], preset: str, folder: Path
) -> list[dict]:
    """Rows {"row", "published", "seeds", "correct", "total", "epochs"} of the finished runs.

    With a preset of ensemble weights the runs are streams, and their ensembles are further rows.
    Rows without a finished run have empty lists; seeds are sorted.

    Raises:
        UserError: a broken result, or seeds with different numbers of clips.
    """
    paths = {name: sorted(folder.glob(f"{name}_seed*/result.json")) for name in names}
    rows = []
    for name, own in paths.items():
        results = sorted(map(read_result, own), key=lambda result: result["seed"])
        totals = {result["total"] for result in results}
        if len(totals) > 1:
            raise UserError(f"{name}: its seeds have {sorted(totals)} clips; remove some")
        seeds, correct = ([result[key] for result in results] for key in ("seed", "correct"))
        row = {"row": name, "seeds": seeds, "correct": correct, "total": max(totals, default=0)}
        rows.append(row | {"epochs": sorted({result["epochs"] for result in results})})
    if preset:
        runs = [path.parent for own in paths.values() for path in own]
        scored = [str(run) for run in runs if (run / "scores.npz").is_file()]
        found = stream_rows(read_members(scored), preset) if scored else []
        fused = {row["row"]: row for row in found if row["row"] not in paths}
        empty = {"seeds": [], "correct": [], "total": 0}
        rows += [{"row": n, "epochs": [], **fused.get(n, empty)} for n in ENSEMBLES | fused]
    return [row | {"published": published.get(row["row"])} for row in rows]


def gain(row: dict, reference: dict, paired: bool = False) -> dict | None:
    """Difference of the mean accuracies in points, and its interval.

    Args:
        paired: seeds belong together; if the rows have different seeds there is no interval.

    Returns:
        {"points", "interval": [low, high] or None, "significant": bool or None}, or None if a row
        has no run, or the rows have different clips.
    """
    here, there = ([100 * n / r["total"] for n in r["correct"]] for r in (row, reference))
    if not here or not there or row["total"] != reference["total"]:
        return None
    points = statistics.fmean(here) - statistics.fmean(there)
    found = {"points": points, "interval": None, "significant": None}
    if min(len(here), len(there)) < 2 or (paired and row["seeds"] != reference["seeds"]):
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # seeds without any spread
        test = ttest_rel(here, there) if paired else ttest_ind(here, there, equal_var=False)
        low, high = map(float, test.confidence_interval(LEVEL))
    if not 0 < high - low < math.inf:  # no spread at all says nothing
        return found
    return found | {"interval": [low, high], "significant": low > 0 or high < 0}


def ablation_table(rows: Sequence[dict], paired: bool = False) -> list[str]:
    """Markdown; gains are over the first row, for the paper's numbers too.

    If the rows were trained for different numbers of epochs, a column gives these.
    """
    with_paper = any(row["published"] is not None for row in rows)
    with_epochs = len({epochs for row in rows for epochs in row["epochs"]}) > 1
    header = HEADER + ("epochs, last stage",) * with_epochs
    header += ("paper, %", "paper's gain") * with_paper
    lines = []
    for row in rows:
        epochs = [", ".join(map(str, row["epochs"])) or "–"] * with_epochs
        lines.append(_cells(row, rows[0], paired) + epochs + _paper(row, rows[0]) * with_paper)
    note = NOTE.format(paired=", paired by seed" if paired else "")
    return [*markdown_table(header, lines), "", note + NOTE_OF_PAPER * with_paper]


def _cells(row: dict, reference: dict, paired: bool) -> list[str]:
    if not row["correct"]:
        return [row["row"], "–", "not run yet", "–", "–", "–"]
    counts = ", ".join(map(str, row["correct"]))
    seeds = "all" if row["seeds"] is None else ", ".join(map(str, row["seeds"]))
    share = f"**{percent(row['correct'], row['total'])}**"
    cells = [row["row"], seeds, f"{counts} / {row['total']}", share]
    found = None if row is reference else gain(row, reference, paired)
    if found is None:
        return [*cells, "–", "–"]
    if found["interval"] is None:
        return [*cells, f"{found['points']:+.2f}", "too few seeds"]
    low, high = found["interval"]
    said = "yes" if found["significant"] else "no"
    return [*cells, f"{found['points']:+.2f} [{low:+.2f}, {high:+.2f}]", said]


def _paper(row: dict, reference: dict) -> list[str]:
    number, first = row["published"], reference["published"]
    if number is None:
        return ["–", "–"]
    known = first is not None and row is not reference
    return [f"{number:.2f}", f"{number - first:+.2f}" if known else "–"]
