"""Families: runs that differ only in stream and seed, and their ensembles.

In: checked results by folder, as `results.read_results` gives them. Out: a table of families with
the same setting: one row per stream and ensemble, one column per family.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.evaluate.ensemble import ENSEMBLES, add_scores, stream_scores
from hocslm_jax.evaluate.results import (
    SAME,
    accuracy_cell,
    best_epoch,
    duration,
    link,
    machines,
    markdown_table,
    run_name,
    setting,
)
from hocslm_jax.evaluate.score_files import Member, match, read_members
from hocslm_jax.evaluate.scores import Scores


@dataclasses.dataclass(frozen=True)
class Family:
    """Runs that differ only in stream and seed.

    Attributes:
        name: their path without stream and seed, e.g. `nw_ucla/six_hglnet/*`.
        runs: results by folder.
    """

    name: str
    runs: dict[Path, dict]

    @property
    def first(self) -> dict:
        return next(iter(self.runs.values()))

    @property
    def dataset(self) -> str:
        return f"{self.first['dataset']}, {self.first['protocol']}"

    @cached_property
    def setting(self) -> str:
        return setting(*next(iter(self.runs.items())))

    @cached_property
    def scores(self) -> dict[str, dict[int, Scores]]:
        """{stream or ensemble: {seed: scores}} of the runs that have scores."""
        scored = {
            path: result
            for path, result in self.runs.items()
            if result["stream"] in PAPER_STREAMS and (path / "scores.npz").is_file()
        }
        members = read_members([str(path) for path in scored]) if scored else []
        return stream_scores(
            [
                dataclasses.replace(member, stream=result["stream"], seed=result["seed"])
                for member, result in zip(members, scored.values(), strict=True)
            ]
        )

    @property
    def largest(self) -> Scores:
        """The largest ensemble, over all seeds."""
        return add_scores(list(self.scores.values())[-1].values())

    def results(self, stream: str) -> list[dict]:
        own = [result for result in self.runs.values() if result["stream"] == stream]
        return sorted(own, key=lambda result: result["seed"])

    def counts(self, row: str) -> list[int]:
        """Correct clips of a stream or an ensemble, by seed."""
        if row in ENSEMBLES:
            return [scores.correct for scores in self.scores.get(row, {}).values()]
        return [result["correct"] for result in self.results(row)]


def find_families(runs: dict[Path, dict], results: Path) -> list[Family]:
    """Families by dataset, the longest training first, then by setting and name."""
    found: dict[tuple, dict[Path, dict]] = {}
    for path, result in runs.items():
        head, _, tail = run_name(path, results).rpartition(result["stream"] or "*")
        alike = tuple(result[key] for key in SAME if key != "stream")
        found.setdefault((f"{head}*{tail}", alike), {})[path] = result
    families = [
        Family(name, dict(sorted(own.items(), key=lambda run: run[1]["stream"] != "joint")))
        for (name, _), own in found.items()
        if len({result["stream"] for result in own.values()}) > 1
    ]
    return sorted(families, key=lambda f: (f.dataset, -f.first["epochs"], f.setting, f.name))


def family_table(families: Sequence[Family], docs: Path) -> list[str]:
    """Markdown; the last columns are the ensemble of all families and the best epochs.

    Args:
        docs: the folder of the document, to which links are relative.
    """
    together, total = _together(families), families[0].first["total"]
    rows = []
    for name in (*PAPER_STREAMS, *ENSEMBLES):
        counts = [family.counts(name) for family in families]
        if any(counts):
            cells = [accuracy_cell(own, total) for own in counts]
            fused = [scores.correct for scores in together.get(name, [])]
            cells += [accuracy_cell(fused, total)] * bool(together)
            best = ", ".join(best_epoch(family.results(name)) for family in families)
            rows.append([name, *cells, "–" if name in ENSEMBLES else best])
    empty = ["–"] * (1 + bool(together))
    times = (f"{duration(family.runs.values())} per stream" for family in families)
    rows.append(["training time", *times, *empty])
    rows.append(["machine", *(machines(family.runs.values()) for family in families), *empty])
    header = [f"[{f.first['encoder']}]({link(next(iter(f.runs)).parent, docs)})" for f in families]
    header += [_encoders(families)] * bool(together)
    return markdown_table(("streams", *header, "best epoch, % ¹"), rows)


def part_table(families: Sequence[Family], chosen: Callable[[str], bool]) -> list[str]:
    """Markdown: streams and ensembles as in `family_table`, on the clips with a chosen id alone."""
    columns = {
        family.first["encoder"]: {row: [*found.values()] for row, found in family.scores.items()}
        for family in families
    }
    if together := _together(families):
        columns[_encoders(families)] = together
    rows = []
    for name in (*PAPER_STREAMS, *ENSEMBLES):
        found = [scores.get(name, []) for scores in columns.values()]
        if any(found):
            rows.append([name, *(_part_cell(scores, chosen) for scores in found)])
    return markdown_table(("streams", *columns), rows)


def _part_cell(found: Sequence[Scores], chosen: Callable[[str], bool]) -> str:
    ranks = [scores.ranks[[chosen(name) for name in scores.ids]] for scores in found]
    return accuracy_cell([int((own < 1).sum()) for own in ranks], len(ranks[0]) if ranks else 0)


def _encoders(families: Sequence[Family]) -> str:
    return " + ".join(family.first["encoder"] for family in families)


def _together(families: Sequence[Family]) -> dict[str, list[Scores]]:
    """The ensembles of all families, for the rows and seeds that all families have."""
    found: dict[str, list[Scores]] = {}
    for name, own in families[0].scores.items() if len(families) > 1 else ():
        for seed in own:
            parts = [family.scores.get(name, {}).get(seed) for family in families]
            if all(parts):
                matched = match([Member(name, part) for part in parts])
                found.setdefault(name, []).append(add_scores(part.scores for part in matched))
    return found
