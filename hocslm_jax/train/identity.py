"""Identifies a run's data and settings, to compare checkpoints, or hosts.

In: a store and a protocol, a config, or a `Run`. Out: small dicts of JSON types. A checkpoint's
`meta` stores the identity of its data, which every later use compares. The processes of a run on
several hosts compare settings and data before they start.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from hocslm_jax.data.store import Store
from hocslm_jax.errors import UserError
from hocslm_jax.train import checkpoint, environment
from hocslm_jax.train.setup import Run

# Settings that may differ between hosts.
OWN = ("compilation_cache", "data.data_dir", "data.threads", "data.cache", "data.auto_prepare")
CLIPS = 5  # number of clips whose joints are compared, evenly spaced
SPLITS = ("train", "val", "test")


def identity(store, protocol: str) -> dict:
    """The identity of a run's data, as JSON types.

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
    """Compares the data with that of a checkpoint's `meta`.

    Checkpoints of older versions do not identify their data and are not compared; neither are the
    joints of datasets that an older version prepared.

    Args:
        where: the run of the checkpoint.
        splits: False ignores clips and labels, for another protocol of the same data.

    Raises:
        UserError: the data differs; names how.
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
    """The differences, in a few words each."""
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


def settings(config, workdir: str | Path, mode: str) -> dict:
    """The config, the workdir and the mode of a run, and the versions of its packages."""
    flat = flatten_dict(checkpoint.plain(config), sep=".")
    versions = environment.describe_versions()
    versions = {f"version of {name}": versions.get(name) for name in environment.PACKAGES}
    place = {"--workdir": str(Path(workdir).absolute()), "--mode": mode}
    return {k: v for k, v in flat.items() if k not in OWN} | versions | place


def fingerprint(run: Run) -> dict:
    """The settings of a run, its language model, and its data."""
    flat = flatten_dict(checkpoint.plain(run.config), sep=".")
    found = {k: v for k, v in flat.items() if k not in OWN} | of_data(run.store, run.config.data)
    if run.captions is not None:
        found["captions"] = digest(run.captions.tokens, run.captions.start, run.captions.count)
    if run.language is not None:
        found["language model"] = digest(run.language.prompt, repr(run.language.gain))
    return found


def of_data(store: Store, data) -> dict:
    """The classes, clips, labels and splits of a dataset, and the joints of a few clips."""
    few = np.linspace(0, len(store) - 1, CLIPS).astype(int)
    found = flatten_dict(identity(store, data.protocol), sep=".")
    return found | {"joints": digest(*(store.joints(row) for row in few))}


def checksum(state) -> str:
    """A checksum of this process's first copy of every replicated array."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        if leaf.is_fully_replicated:
            data = leaf.addressable_data(0)
            typed = jax.dtypes.issubdtype(data.dtype, jax.dtypes.prng_key)
            found.update(np.ascontiguousarray(jax.random.key_data(data) if typed else data))
    return found.hexdigest()[:12]


def digest(*parts: str | np.ndarray) -> str:
    """The first digits of a hash of texts or arrays, in order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part))
        found.update(b"\0")
    return found.hexdigest()[:12]
