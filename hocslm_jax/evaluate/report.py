"""The verb `report`: one Markdown document with tables that answer questions about finished runs.

In: `results/**/result.json`, the `scores.npz` beside them, and the `table_*.json` of `ablate`. Out:
`docs/results.md`. `--check` compares the document with the files, so that every number in it is
that of a run. Percentages are always computed from counts.
"""

import argparse
import itertools
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from hocslm_jax.data.prepare.nw_ucla import copied
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ablation import ablation_table, read_rows
from hocslm_jax.evaluate.ensemble import ENSEMBLES
from hocslm_jax.evaluate.families import Family, family_table, find_families, part_table
from hocslm_jax.evaluate.mistakes import confusion_table, mistakes
from hocslm_jax.evaluate.released import releases_table
from hocslm_jax.evaluate.results import (
    accuracy_cell,
    best_epoch,
    duration,
    group_by_seed,
    link,
    machines,
    markdown_table,
    read_results,
    run_name,
    same_total,
    setting,
)
from hocslm_jax.evaluate.zero_shot_table import zero_shot_section
from hocslm_jax.files.atomic import write_text
from hocslm_jax.files.text import read_json

PREAMBLE = """\
# Results

Written by `{command}` from the files of the runs; do not edit.

Accuracy is top-1 on all test clips after the **last** epoch: correct / total, per cent, and in
brackets Wilson's 95 % interval. With several seeds it is the mean ± sample standard deviation, and
each seed's count is listed. Links lead to the runs; the `command` in a run's `result.json` repeats
it. ¹ marks the best epoch: it was chosen on the test split (on `val` if the dataset has one), as is
usual in the literature, and is therefore too high. Strategy T0 trains without language.
"""
COPIES_NOTE = """\
In the distributed files, all test clips of "pick up with two hands" and "drop trash" have the
joints of training clips, number by number. Published counts include them. Without them:"""
DESCRIPTIONS_NOTE = """\
Share of the test clips whose generated sentence names their class and no other; share whose class
is the likeliest to the language model, by the mean log-likelihood per token of three sentences of
each class; corpus BLEU and chrF (sacrebleu) and mean ROUGE-L against the references."""
DESCRIPTIONS = {
    "mention": "names the class",
    "likelihood": "class by likelihood",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge_l": "ROUGE-L",
}
ATTRIBUTES_NOTE = """\
Clips whose sentence names the side, the number of times, the size and the part of the body as the
clip's own captions do, of the clips whose captions say it; the rest are wrong or not named. Beside
it the training clips' most frequent value, and a linear classifier on the visual token."""
ATTRIBUTES = {"correct": "named right", "majority": "most frequent value", "probe": "linear probe"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `python -m hocslm_jax report`."""
    parser.add_argument("--results", default="results", help="folder with result.json files")
    parser.add_argument("--out", default="docs/results.md", help="document to write")
    parser.add_argument("--check", action="store_true", help="only fail if the document is stale")


def run(args: argparse.Namespace) -> None:
    """Writes the document or, with --check, raises a UserError unless it is up to date."""
    results, out = Path(args.results), Path(args.out)
    command = f"python -m hocslm_jax report --results {args.results} --out {args.out}"
    text = render(read_results(results), command, results, out.parent)
    if not args.check:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, text)
    elif not out.is_file() or out.read_text(encoding="utf-8") != text:
        raise UserError(f"{out} does not show the runs in {results}; run: {command}")
    print(f"{out} is up to date" if args.check else f"wrote {out}")


def render(runs: dict[Path, dict], command: str, results: Path, docs: Path) -> str:
    """The document; its links are relative to the folder `docs`."""
    tables = sorted(results.glob("**/table_*.json"))
    folders = {path.parent for path in tables}
    # The runs of the single streams are in the folder of a run of several streams.
    free = {p: r for p, r in runs.items() if p.parent not in folders and "streams" not in r}
    families = find_families(free, results)
    shown = {path for family in families for path in family.runs}
    others = {path: result for path, result in free.items() if path not in shown}
    sections = {}
    for dataset, own in itertools.groupby(families, key=lambda family: family.dataset):
        found = list(own)
        sections[f"How accurate are streams and ensembles on {dataset}?"] = _streams(found, docs)
        sections[f"Which clips of {dataset} are wrong?"] = _wrong(found)
    sections["Which weights can I use?"] = _weights(results, docs)
    sections["How accurate are other runs and datasets?"] = _others(others, results, docs)
    ablations = [line for path in tables for line in _ablation(path, docs)]
    sections["What are the parts and training strategies worth?"] = ablations
    sections["How good are the descriptions?"] = _descriptions(runs, results)
    sections["Which classes does a run know without training?"] = zero_shot_section(results, docs)
    sections = {title: lines for title, lines in sections.items() if lines}
    lines = [PREAMBLE.format(command=command)]
    for title in sections:
        anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")  # GitHub's
        lines.append(f"- [{title}](#{anchor})")
    for title, text in sections.items():
        lines += ["", f"## {title}", "", *text]
    return "\n".join(lines) + "\n"


def _weights(results: Path, docs: Path) -> list[str]:
    lines = releases_table(results, docs)
    use = (
        "Give the folder to `predict --checkpoint`, to `evaluate` or to `load_pretrained`; several"
    )
    return [f"{use} are an ensemble.", "", *lines] if lines else []


def _streams(families: Sequence[Family], docs: Path) -> list[str]:
    """A table for each setting, the longest training first."""
    lines = ["Ensembles sum the logits with equal weights."]
    for title, own in itertools.groupby(families, key=lambda family: family.setting):
        own = list(own)
        lines += ["", f"### {title}", "", *family_table(own, docs)]
        command = own[0].first.get("command")
        lines += ["", f"One of these runs: `{command}`."] if command else []
        if own[0].scores and any(map(copied, own[0].largest.ids)):
            lines += ["", COPIES_NOTE, "", *part_table(own, lambda name: not copied(name))]
    return lines


def _wrong(families: Sequence[Family]) -> list[str]:
    """Confusions of the largest ensemble that was trained longest, the best of several encoders."""
    longest = [family for family in families if family.setting == families[0].setting]
    best = max(longest, key=lambda family: family.largest.correct if family.scores else -1)
    if not best.scores:
        return []
    fused, name = best.largest, list(best.scores)[-1]
    about = (
        f"{fused.total - fused.correct} of {fused.total} clips are wrong: {name} of "
        f"{best.first['encoder']} (`{best.name}`), {best.setting}. To draw a clip:"
    )
    draw = f"python -m hocslm_jax render --dataset {best.first['dataset']} --clip ID --out ID.png"
    return [about, "", "```bash", draw, "```", "", *confusion_table(mistakes(fused))]


def _others(runs: dict[Path, dict], results: Path, docs: Path) -> list[str]:
    """Runs that are not part of an ensemble or ablation."""
    rows = []
    for group in group_by_seed(runs):
        own, (path, first) = list(group.values()), next(iter(group.items()))
        rows.append(
            [
                f"{first['dataset']}, {first['protocol']}",
                f"[{first['encoder']}, {first['stream']}]({link(path, docs)})",
                setting(path, first),
                accuracy_cell([result["correct"] for result in own], first["total"]),
                best_epoch(own),
                duration(own),
                machines(own),
            ]
        )
    header = ("dataset", "model", "setting", "accuracy", "best epoch, % ¹", "time", "machine")
    return markdown_table(header, rows, left=3) if rows else []


def _ablation(path: Path, docs: Path) -> list[str]:
    """The table of one `table_*.json`, recomputed from the runs in its folder."""
    table = read_json(path)
    if missing := {"title", "preset", "paired", "rows"} - set(table):
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; write it again with ablate")
    names = [row["row"] for row in table["rows"] if row["row"] not in ENSEMBLES]
    published = {row["row"]: row["published"] for row in table["rows"]}
    rows = read_rows(names, published, table["preset"], path.parent)
    lines = [f"### {table['title']}", "", *ablation_table(rows, table["paired"]), ""]
    for run in sorted(path.parent.glob(f"{names[0]}_seed*/result.json"))[:1]:
        first = read_json(run)
        said = f"{first['dataset']}, {first['protocol']}, {setting(run.parent, first)}"
        lines += [f"First row: {said}. Runs: [{path.parent}]({link(path.parent, docs)}).", ""]
    return lines


def _descriptions(runs: dict[Path, dict], results: Path) -> list[str]:
    rows, attributes = [], []
    for group in group_by_seed(runs):
        scored = [result["captions"] for result in group.values() if result.get("captions")]
        if len(scored) == len(group):
            name = run_name(next(iter(group)), results)
            rows.append([name, *(_description_cell(key, scored) for key in DESCRIPTIONS)])
            attributes += _attribute_rows(name, [scores.get("attributes", {}) for scores in scored])
    lines = [DESCRIPTIONS_NOTE, "", *markdown_table(("run", *DESCRIPTIONS.values()), rows)]
    if attributes:
        header = ("run", "of the clip", *ATTRIBUTES.values(), "wrong", "not named")
        lines += ["", ATTRIBUTES_NOTE, "", *markdown_table(header, attributes)]
    return lines if rows else []


def _attribute_rows(run: str, seeds: Sequence[dict]) -> list[list[str]]:
    """A row for each attribute that every seed of a run has counts of."""
    rows = []
    for attribute in seeds[0]:
        counts = [seed[attribute] for seed in seeds if attribute in seed]
        if len(counts) == len(seeds):
            total = same_total([each["total"] for each in counts])
            cells = [accuracy_cell([each[key] for each in counts], total) for key in ATTRIBUTES]
            rest = [", ".join(str(each[key]) for each in counts) for key in ("wrong", "unnamed")]
            rows.append([run, attribute, *cells, *rest])
    return rows


def _description_cell(key: str, scored: Sequence[dict]) -> str:
    if f"{key}_correct" not in scored[0]:
        return f"{statistics.fmean(scores[key] for scores in scored):.3g}"
    total = same_total([scores[f"{key}_total"] for scores in scored])
    return accuracy_cell([scores[f"{key}_correct"] for scores in scored], total)
