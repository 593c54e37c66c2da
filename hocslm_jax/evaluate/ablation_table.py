"""A table of an ablation beside the paper's, with the spread over seeds.

In: for each row the results of its runs, and the paper's number. Out: a plain dict for JSON and
Markdown. A gain is told from noise by the 95 % t-interval of the difference of two means:
Welch's, or, where each seed of a row starts from the first row's of that seed, the paired one. Both
take two seeds a row or more.
"""

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence

from scipy.stats import ttest_ind, ttest_rel

from hocslm_jax.errors import UserError

LEVEL = 0.95
HEADER = ("row", "seeds", "correct / total", "top-1, %", "gain", "beyond noise")
EPOCHS = "epochs, last stage"
PUBLISHED = ("paper, %", "paper's gain")
NOTE = """\
Gain is over the first row, in points, with its 95 % interval{paired}; beyond noise where that
leaves out zero."""
OF_PAPER = " The paper's numbers are of NTU60 X-Sub, one run each."


def make_rows(results: Mapping[str, Sequence[dict]], published: Mapping[str, float]) -> list[dict]:
    """Rows {"row", "published", "seeds", "correct", "total", "epochs"} of results as training
    writes them.

    Rows without a finished run keep empty lists; seeds are sorted.

    Raises:
        UserError: seeds of other numbers of clips.
    """
    rows = []
    for name, runs in results.items():
        runs = sorted(runs, key=lambda result: result["seed"])
        totals = {result["total"] for result in runs}
        if len(totals) > 1:
            raise UserError(f"{name}: seeds of {sorted(totals)} clips are no row; remove some")
        rows.append(
            {
                "row": name,
                "published": published.get(name),
                "seeds": [result["seed"] for result in runs],
                "correct": [result["correct"] for result in runs],
                "total": totals.pop() if totals else 0,
                "epochs": sorted({result["epochs"] for result in runs if "epochs" in result}),
            }
        )
    return rows


def gain(row: dict, reference: dict, paired: bool = False) -> dict | None:
    """Difference of the mean accuracies in points, with its interval; None where one is missing, or
    where they are not of the same clips.

    Args:
        paired: seeds belong together; without the same seeds in both rows there is no interval.

    Returns:
        {"points", "interval": [low, high] or None, "beyond_noise": bool or None}.
    """
    here, there = (percents(r) for r in (row, reference))
    if not here or not there or row["total"] != reference["total"]:
        return None
    points = statistics.fmean(here) - statistics.fmean(there)
    found = {"points": points, "interval": None, "beyond_noise": None}
    if row is reference or min(len(here), len(there)) < 2:
        return found
    if paired and row["seeds"] != reference["seeds"]:
        return found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # where there is no spread at all
        test = ttest_rel(here, there) if paired else ttest_ind(here, there, equal_var=False)
        interval = test.confidence_interval(LEVEL)
    low, high = float(interval.low), float(interval.high)
    if not 0 < high - low < math.inf:  # no spread at all: nothing to tell noise by
        return found
    return found | {"interval": [low, high], "beyond_noise": low > 0 or high < 0}


def percents(row: dict) -> list[float]:
    """Accuracy of each seed, in per cent."""
    return [100 * correct / row["total"] for correct in row["correct"]]


def markdown(table: dict) -> list[str]:
    """The table as Markdown: gains are over its first row, for the paper's as for ours.

    Rows that were trained for unlike numbers of epochs say for how many.
    """
    rows, paired = table["rows"], table.get("paired", False)
    with_paper = any(row["published"] is not None for row in rows)
    lengths = [row.get("epochs", []) for row in rows]
    unlike = len({epoch for length in lengths for epoch in length}) > 1
    header = HEADER + ((EPOCHS,) if unlike else ()) + (PUBLISHED if with_paper else ())
    lines = ["| " + " | ".join(header) + " |", "| --- |" + " ---: |" * (len(header) - 1)]
    for row, length in zip(rows, lengths, strict=True):
        cells = _cells(row, rows[0], paired)
        cells += [", ".join(map(str, length)) or "–"] if unlike else []
        cells += _paper(row, rows[0]) if with_paper else []
        lines.append("| " + " | ".join(cells) + " |")
    note = NOTE.format(paired=", seed by seed" if paired else "")
    return [*lines, "", note + OF_PAPER * with_paper]


def _cells(row: dict, reference: dict, paired: bool) -> list[str]:
    if not row["correct"]:
        return [row["row"], "–", "not run yet", "–", "–", "–"]
    shares = percents(row)
    spread = f" ± {statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    counts = ", ".join(map(str, row["correct"]))
    seeds = "all" if row["seeds"] is None else ", ".join(map(str, row["seeds"]))
    cells = [row["row"], seeds, f"{counts} / {row['total']}"]
    cells.append(f"**{statistics.fmean(shares):.2f}{spread}**")
    found = None if row is reference else gain(row, reference, paired)
    if found is None:
        return [*cells, "–", "–"]
    if found["interval"] is None:
        return [*cells, f"{found['points']:+.2f}", "too few seeds"]
    low, high = found["interval"]
    verdict = "yes" if found["beyond_noise"] else "no"
    return [*cells, f"{found['points']:+.2f} [{low:+.2f}, {high:+.2f}]", verdict]


def _paper(row: dict, reference: dict) -> list[str]:
    if row["published"] is None:
        return ["–", "–"]
    cell = f"{row['published']:.2f}"
    if row is reference or reference["published"] is None:
        return [cell, "–"]
    return [cell, f"{row['published'] - reference['published']:+.2f}"]
