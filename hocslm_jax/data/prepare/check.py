"""`prepare … --check`: does a dataset match its index and the published protocols?

In: the folder of a prepared dataset. Out: one line that says what was verified, or an error that
lists all faults. Every record is read.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hocslm_jax.data import protocols
from hocslm_jax.data.channels import USUAL
from hocslm_jax.data.clip import check_joints
from hocslm_jax.data.prepare.measure import Census
from hocslm_jax.data.prepare.notices import shared_clips
from hocslm_jax.data.records import add_joints, open_records
from hocslm_jax.data.store import COLUMNS, dataset_folder, read_index
from hocslm_jax.errors import UserError
from hocslm_jax.files.checksums import sha256
from hocslm_jax.graph import resolve_graph


def check(
    dataset: str, data_dir: str | Path, tell: Callable[[dict, dict], None] | None = None
) -> str:
    """Verifies `<data_dir>/<dataset>` and returns a summary.

    Args:
      tell: called with the index and the measurements of the clips, if there are no faults.

    Raises:
      UserError: the dataset is not prepared, or has faults.
    """
    folder = dataset_folder(dataset, data_dir)
    index = read_index(folder)
    census = Census(index.get("channels", USUAL), resolve_graph(index["graph"]))
    wrong = list(_wrong_files(folder / index["version"], index))
    wrong += [] if wrong else _wrong_records(folder / index["version"], index, census)
    wrong += _wrong_protocols(dataset, index)
    if wrong:
        lines = "\n  ".join(wrong)
        raise UserError(f"{folder}: {len(wrong)} faults; --force rebuilds it\n  {lines}")
    clips, disjoint = len(index["columns"]["id"]), ", ".join(_separated(dataset, index))
    measured = census.summary()
    if tell:
        tell(index, measured)
    by_id = " by id alone" if any(shared_clips(index, measured)) else ""
    return (
        f"{dataset}: {clips:,} clips in {len(index['files'])} files verified: checksums, records, "
        f"ids, labels; splits disjoint{by_id or (f' by {disjoint}' if disjoint else '')}"
    )


def _wrong_files(records: Path, index: dict) -> Iterator[str]:
    sums = index.get("checksums")
    if sums is None:
        yield "the index has no checksums, since an older version wrote it"
        return
    for name in index["files"]:
        if sha256(records / name) != sums.get(name):
            yield f"{name} has changed since it was written"


def _wrong_records(records: Path, index: dict, census: Census) -> list[str]:
    """The first record of each kind of fault; counts every clip."""
    columns = index["columns"]
    point = (resolve_graph(index["graph"]).num_joints, len(census.channels))
    source, wrong = open_records(records), {}
    if len(source) != len(columns["id"]):
        return [f"{len(source)} records, but {len(columns['id'])} rows in the index"]
    if len(set(columns["id"])) != len(source):
        wrong["ids"] = "ids are not unique"
    content = hashlib.sha256()
    for row in range(len(source)):
        record = source[row]
        add_joints(content, record["joints"])
        clip, name = record["joints"], columns["id"][row]
        expected = {key: columns[key][row] for key in ("label", *COLUMNS)}
        if record["id"].decode() != name or any(record[k] != v for k, v in expected.items()):
            wrong.setdefault("row", f"record {row} is not row {row} of the index, {name}")
        if clip.shape[0] != expected["num_frames"] or clip.shape[2:] != point:
            wrong.setdefault("shape", f"{name} has shape {clip.shape}")
        elif not 0 < clip.shape[1] <= index["num_persons"]:
            wrong.setdefault("persons", f"{name} has {clip.shape[1]} persons")
        else:
            try:
                check_joints(clip)
            except ValueError as error:
                wrong.setdefault("joints", f"{name}: {error}")
            census.add(clip)
        if not 0 <= expected["label"] < len(index["classes"]):
            wrong.setdefault("label", f"{name} has label {expected['label']}")
    if index.get("content", content.hexdigest()) != content.hexdigest():
        wrong["content"] = "the joints differ from those that the index was made from"
    return list(wrong.values())


def _wrong_protocols(dataset: str, index: dict) -> Iterator[str]:
    """Splits that share a clip, a subject, a camera or a setup, or have an unpublished size."""
    columns = {key: np.asarray(values) for key, values in index["columns"].items()}
    for name, splits in index["protocols"].items():
        rows = np.concatenate([np.asarray(rows, int) for rows in splits.values()])
        if len(set(rows.tolist())) != len(rows):
            yield f"{name}: a clip is in two splits"
        if rows.size and not 0 <= rows.min() <= rows.max() < len(columns["id"]):
            yield f"{name}: rows beyond the {len(columns['id'])} clips"
        elif what := _column(dataset, name, columns):
            sides = [set(columns[what][np.asarray(rows, int)]) for rows in splits.values()]
            if shared := sorted(map(int, set.intersection(*sides))):
                yield f"{name}: {what} {shared} in both splits"
    rules = protocols.RULES.get(dataset, {})
    if not rules or not all(_column(dataset, name, columns) for name in rules):
        return
    try:
        expected = protocols.public(dataset, columns)
    except UserError as error:
        yield str(error)
        return
    for name, splits in expected.items():
        if index["protocols"].get(name) != {key: rows.tolist() for key, rows in splits.items()}:
            yield f"{name} is not the published protocol"


def _column(dataset: str, protocol: str, columns: dict) -> str | None:
    """The column that a public protocol splits by, if the clips have it; imported files may not."""
    rule = protocols.RULES.get(dataset, {}).get(protocol)
    return rule.column if rule and np.any(columns[rule.column]) else None


def _separated(dataset: str, index: dict) -> list[str]:
    found = (_column(dataset, name, index["columns"]) for name in index["protocols"])
    return [what for what in found if what]
