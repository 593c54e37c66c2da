"""Tables of what runs know of classes that they never trained on.

In: the `zero_shot.json` files of `python -m hocslm_jax zero-shot`. Out: Markdown, computed from
their counts: of one run for the terminal, of all for the results document.
"""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.class_ranking import harmonic_mean
from hocslm_jax.evaluate.results import accuracy_cell, link, machines, markdown_table, run_name
from hocslm_jax.evaluate.significance import beats_chance
from hocslm_jax.files.text import read_json

ZERO_SHOT = "zero_shot.json"
METHODS = {
    "likelihood": "likelihood",
    "calibrated": "likelihood, calibrated",
    "embedding": "sentence embedding",
    "example": "one example",
}
CONTROLS = {
    "untrained": "untrained LM",
    "untrained_calibrated": "untrained LM, calibrated",
    "shuffled": "shuffled sentences",
}
YES = (False, True)
COUNTS = ("unseen_correct", "unseen_total", "seen_correct", "seen_total")
NOTE = """\
Test clips of classes that the run was never trained on, ranked among these classes alone
(see `docs/zero_shot.md`): by the language model's likelihood of their sentences, raw and
calibrated; by the cosine with their sentences' embeddings; by one example of each class (the first
draw, and mean ± sample standard deviation of all draws). Controls: a language model with random
weights, and each class with the sentences of another. In bold: more than chance, p < 1 %. The
intervals are over clips; with so few classes another choice of them changes more. No run was
trained on a clip of these classes; where the language model "read about them", the text that it was
pretrained on had sentences about them, as that of any large one has.
"""
GENERALISED_NOTE = """\
The generalised case: clips of unseen and of seen classes, ranked among all classes. Accuracy on
clips of unseen classes / of seen classes / harmonic mean, %.
"""


def read_zero_shot(path: Path) -> dict:
    """One `zero_shot.json`, checked.

    Raises:
        UserError: absent, damaged, or without what the tables need.
    """
    found = read_json(path, "`python -m hocslm_jax zero-shot RUN` writes it")
    try:
        counts = [found["methods"][name] for name in METHODS]
        for row in (*counts, *found["controls"].values()):
            _check(row["correct"], row["total"])
        for row in counts:
            unseen, of_unseen, seen, of_seen = (row["generalised"][key] for key in COUNTS)
            _check(unseen, of_unseen)
            _check(seen, of_seen)
        [float(share) for share in found["methods"]["example"]["draws"]]
        texts = [found[key] for key in ("dataset", "protocol", "language_model", "command")]
        texts += [found["training"]["command"] or "", *found["classes"]]
        if not all(isinstance(text, str) for text in texts) or found["text_had_unseen"] not in YES:
            raise TypeError
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(f"{path} is damaged: write it again with zero-shot RUN") from None
    return found


def _check(correct: int, total: int) -> None:
    if type(correct) is not int or type(total) is not int or not 0 <= correct <= total > 0:
        raise ValueError("counts that cannot be")


def run_table(found: dict) -> list[str]:
    """Markdown of one run, for the terminal."""
    rows = []
    for key, name in METHODS.items():
        row = found["methods"][key]
        cell = accuracy_cell([row["correct"]], row["total"])
        rows.append([name, cell + _draws(row), *map("{:.1f}".format, generalised(row))])
    for key, name in CONTROLS.items():
        if row := found["controls"].get(key):
            rows.append([name, accuracy_cell([row["correct"]], row["total"]), "–", "–", "–"])
    chance = f"{100 / len(found['classes']):.2f}"
    rows.append(["chance", f"**{chance}**", "–", "–", "–"])
    among = f"among {len(found['classes'])} unseen classes"
    header = ("", among, "unseen, among all, %", "seen, among all, %", "harmonic mean, %")
    return markdown_table(header, rows, left=2)


def generalised(row: dict) -> tuple[float, float, float]:
    """Per cent right of the unseen classes' clips and the seen classes', and harmonic mean."""
    unseen, of_unseen, seen, of_seen = (row["generalised"][key] for key in COUNTS)
    shares = 100 * unseen / of_unseen, 100 * seen / of_seen
    return (*shares, harmonic_mean(*shares))


def zero_shot_section(results: Path, docs: Path) -> list[str]:
    """Markdown of all runs below a folder, [] where there is none.

    Runs of one dataset and language model that leave as many classes out get a row together, if no
    class is left out twice.

    Raises:
        UserError: as `read_zero_shot`.
    """
    found = [
        (path.parent, read_zero_shot(path)) for path in sorted(results.glob(f"**/{ZERO_SHOT}"))
    ]
    if not found:
        return []
    rows, wide = [], []
    kinds = sorted(found, key=lambda item: _kind(item[1]))
    for _, group in itertools.groupby(kinds, key=lambda item: _kind(item[1])):
        own = list(group)
        for folder, one in own:
            name = f"[{run_name(folder, results)}]({link(folder, docs)})"
            rows.append([name, _language_model(one), ", ".join(one["classes"]), *_cells([one])])
            cells = [" / ".join(map("{:.1f}".format, generalised(r))) for r in _methods(one)]
            wide.append([name, *cells])
        classes = [name for _, one in own for name in one["classes"]]
        if len(own) > 1 and len(classes) == len(set(classes)):
            rows.append([f"these {len(own)} together", "", "", *_cells([one for _, one in own])])
    header = ("run", "language model", "unseen classes", *METHODS.values(), *CONTROLS.values())
    first = found[0][1]
    commands = filter(None, (first["training"]["command"], first["command"]))
    return [
        *NOTE.splitlines(),
        "",
        *markdown_table((*header, "chance, %"), rows, left=3),
        "",
        *GENERALISED_NOTE.splitlines(),
        "",
        *markdown_table(("run", *METHODS.values()), wide),
        "",
        f"One of these runs: {' then '.join(f'`{command}`' for command in commands)}; "
        f"{machines([first])}.",
    ]


def _kind(one: dict) -> tuple:
    return one["dataset"], one["protocol"], _language_model(one), len(one["classes"])


def _language_model(one: dict) -> str:
    return one["language_model"] + ", read about them" * one["text_had_unseen"]


def _methods(one: dict) -> list[dict]:
    return [one["methods"][key] for key in METHODS]


def _cells(group: Sequence[dict]) -> list[str]:
    """Of some runs together: a cell for each method and control, and chance."""
    classes = len(group[0]["classes"])
    cells = []
    for kind, names in (("methods", METHODS), ("controls", CONTROLS)):
        for key in names:
            own = [one[kind][key] for one in group if key in one[kind]]
            cells.append(_cell(own, classes) if len(own) == len(group) else "–")
    return [*cells, f"{100 / classes:.1f}"]


def _cell(rows: Sequence[dict], classes: int) -> str:
    correct, total = (sum(row[key] for row in rows) for key in ("correct", "total"))
    cell = accuracy_cell([correct], total)
    if not beats_chance(correct, total, classes):
        cell = cell.replace("**", "")
    return cell + (_draws(rows[0]) if len(rows) == 1 else "")


def _draws(row: dict) -> str:
    """`; 20 draws 41.2 ± 6.0` where the examples were drawn several times."""
    shares = [100 * share for share in row.get("draws", ())]
    if len(shares) < 2:
        return ""
    return f"; {len(shares)} draws {statistics.fmean(shares):.1f} ± {statistics.stdev(shares):.1f}"
