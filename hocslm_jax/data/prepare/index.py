"""The index of a dataset: everything about its clips except the joints.

In: a Recipe and the records that were written from it. Out: the content of `index.json`. It is made
by reading the records back, so that row i of the index is record i.
"""

import hashlib
from pathlib import Path

import numpy as np

from hocslm_jax.data.channels import USUAL
from hocslm_jax.data.prepare.measure import Census
from hocslm_jax.data.prepare.writer import VERSION, Columns, Recipe
from hocslm_jax.data.records import add_joints, open_records
from hocslm_jax.data.store import COLUMNS
from hocslm_jax.files.checksums import sha256


def make_index(recipe: Recipe, records: Path) -> dict:
    """The index.json of a dataset whose records lie in `records`, as JSON types."""
    columns, num_persons, content, measured = _read_columns(
        records, Census(recipe.channels, recipe.graph)
    )
    if len(set(columns["id"])) != len(columns["id"]):
        raise ValueError(f"{recipe.name}: clip ids are not unique")
    files = sorted(path for path in records.iterdir() if path.is_file())
    return {
        "dataset": recipe.name,
        "version": VERSION,
        "graph": recipe.graph.as_mapping(),
        "classes": list(recipe.classes),
        "num_persons": num_persons,
        "feeder": recipe.feeder,
        **({} if recipe.channels == USUAL else {"channels": recipe.channels}),
        **({"reading": dict(recipe.reading)} if recipe.reading else {}),
        "measured": measured,
        "content": content,
        "source": recipe.source,
        "expected": recipe.expected,
        "files": {path.name: path.stat().st_size for path in files},
        "checksums": {path.name: sha256(path) for path in files},
        "protocols": {
            name: {split: np.asarray(rows).tolist() for split, rows in splits.items()}
            for name, splits in recipe.protocols(columns).items()
        },
        "columns": {key: values.tolist() for key, values in columns.items()},
    }


def _read_columns(records: Path, census: Census) -> tuple[Columns, int, str, dict]:
    """Every field but the joints as arrays [N], the most persons in a clip, a hash of all joints,
    and what the clips measure."""
    keys = ("id", "label", *COLUMNS)
    values, num_persons = {key: [] for key in keys}, 1
    content = hashlib.sha256()
    source = open_records(records)
    for record in map(source.__getitem__, range(len(source))):
        for key in keys:
            values[key].append(record[key])
        num_persons = max(num_persons, record["joints"].shape[1])
        census.add(record["joints"])
        add_joints(content, record["joints"])
    values["id"] = [name.decode() for name in values["id"]]
    columns = {key: np.asarray(value) for key, value in values.items()}
    return columns, num_persons, content.hexdigest(), census.summary()
