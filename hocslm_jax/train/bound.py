"""A run is bound to its data: what a checkpoint notes of it, and the comparison at every use.

In: a store and a protocol. Out: a small dict for `meta`: classes in order, clip ids and labels of
each split, the joints (their hash, which `prepare` computed) and the skeleton.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from hocslm_jax.errors import UserError

SPLITS = ("train", "val", "test")


def identity(store, protocol: str) -> dict:
    """What a run notes of its data, as JSON types.

    Args:
        store: `data.store.Store`, or anything with its `ids`, `labels`, `classes`, `graph`, `rows`.
    """
    known = getattr(store, "protocols", {}).get(protocol, SPLITS[::2])
    splits = {split: store.rows(protocol, split) for split in SPLITS if split in known}
    return {
        "classes": list(store.classes),
        "splits": {
            split: {
                "clips": len(rows),
                "ids": _hash([store.ids[row] for row in rows]),
                "labels": _hash([int(store.labels[row]) for row in rows]),
            }
            for split, rows in splits.items()
        },
        "skeleton": _hash(store.graph.as_mapping()),
        "joints": getattr(store, "content", ""),
    }


def check_data(meta: dict, store, protocol: str, where: str | Path, splits: bool = True) -> None:
    """Compares the data at hand with that of a checkpoint's `meta`.

    A checkpoint of an older version has no note of its data and is not compared; neither are the
    joints of a dataset that an older version prepared.

    Args:
        where: the run that the checkpoint is of.
        splits: False leaves clips and labels out, for another protocol of the same data.

    Raises:
        UserError: names what differs.
    """
    if "dataset" not in meta:
        return
    changes = _changes(meta["dataset"], identity(store, protocol), splits)
    if changes:
        raise UserError(
            f"{where} was trained on other data: {'; '.join(changes[:3])}. Prepare that data "
            "again, or use another --workdir"
        )


def _changes(old: dict, new: dict, splits: bool) -> list[str]:
    """What differs, in a few words each."""
    found = _class_changes(old["classes"], new["classes"])
    for split in sorted(set(old["splits"]) | set(new["splits"])) if splits else ():
        empty = {"clips": 0, "ids": "", "labels": ""}
        there, here = (side["splits"].get(split, empty) for side in (old, new))
        if there["clips"] != here["clips"]:
            found.append(f"{there['clips']} {split} clips there, {here['clips']} here")
        elif there["ids"] != here["ids"]:
            found.append(f"other {split} clips")
        elif there["labels"] != here["labels"]:
            found.append(f"other labels of {split} clips")
    if old["skeleton"] != new["skeleton"]:
        found.append("another skeleton")
    if old["joints"] and new["joints"] and old["joints"] != new["joints"]:
        found.append("other coordinates")
    return found


def _class_changes(old: Sequence[str], new: Sequence[str]) -> list[str]:
    if len(old) != len(new):
        return [f"{len(old)} classes there, {len(new)} here"]
    pairs = [(label, *pair) for label, pair in enumerate(zip(old, new, strict=True))]
    for label, there, here in pairs:
        if there != here:
            return [f"class {label} is {there[:40]!r} there, {here[:40]!r} here"]
    return []


def _hash(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
