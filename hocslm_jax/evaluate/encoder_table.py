"""Two encoders trained alike, on the same streams with the same seeds: side by side, and together.

In: families of streams, as `nw_ucla_report.stream_set` gives them. Out: a row for each stream and
each ensemble that both have, with the clips that one of them alone gets right, and Markdown of it.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble_weights import fuse
from hocslm_jax.evaluate.results import table
from hocslm_jax.evaluate.score_files import Member, match
from hocslm_jax.evaluate.significance import compare
from hocslm_jax.evaluate.stream_table import ENSEMBLES, members_by_seed
from hocslm_jax.files.text import read_json

ROWS = {**{stream: (stream,) for stream in PAPER_STREAMS}, **ENSEMBLES}


def setting(runs: Iterable[Path]) -> dict | None:
    """The config that the runs of one family share, without encoder, stream and seed; else None."""
    shared = None
    for run in runs:
        try:
            config = read_json(run / "config.json")
        except UserError:
            return None
        for group, key in (("model", "encoder"), ("data", "stream")):
            config.get(group, {}).pop(key, None)
        config.pop("seed", None)
        if shared not in (None, config):
            return None
        shared = config
    return shared


def encoder_pairs(sets: Sequence[dict]) -> list[dict]:
    """{"encoders", "name", "rows"} of every two families that differ in the encoder alone.

    A row is one seed's: {"row", "seed", "together", …}, the rest of `significance.compare`, the
    second encoder against the first.
    """
    pairs = []
    for pair in itertools.combinations(sorted(sets, key=_encoder), 2):
        encoders = tuple(map(_encoder, pair))
        alike = pair[0]["setting"] is not None and pair[0]["setting"] == pair[1]["setting"]
        if alike and encoders[0] != encoders[1]:
            rows = _rows(*(one["members"] for one in pair))
            name = " and ".join(one["name"] for one in pair)
            pairs += [{"encoders": encoders, "name": name, "rows": rows}] if rows else []
    return pairs


def _encoder(family: dict) -> str:
    return family["results"][0]["encoder"]


def _rows(first: Sequence[Member], second: Sequence[Member]) -> list[dict]:
    if not first or not second:
        return []
    every = match([*first, *second])
    one, other = (members_by_seed(part) for part in (every[: len(first)], every[len(first) :]))
    rows = []
    for (name, streams), seed in itertools.product(ROWS.items(), sorted(one.keys() & other.keys())):
        if set(streams) <= set(one[seed]) & set(other[seed]):
            parts = [[own[seed][stream] for stream in streams] for own in (one, other)]
            found = compare(*(fuse(part, [1.0] * len(part)) for part in reversed(parts)))
            together = fuse([*parts[0], *parts[1]], [1.0] * 2 * len(streams)).correct
            rows.append({"row": name, "seed": seed, "together": together, **found})
    return rows


def pair_lines(pair: dict) -> list[str]:
    """A Markdown table of one pair."""
    first, second = pair["encoders"]
    header = ("streams", "seed", first, second, f"only {first}", f"only {second}", "McNemar p")
    rows = [
        [row["row"], str(row["seed"])]
        + [f"{row[key]} / {row['total']}" for key in ("other_correct", "correct")]
        + [str(row["only_other"]), str(row["only_this"]), f"{row['p_value']:.2g}"]
        + [f"{row['together']} / {row['total']}"]
        for row in pair["rows"]
    ]
    return table((*header, "both together"), rows)
