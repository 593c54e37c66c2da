"""What all processes of a run must have in common, as short texts to compare.

In: a config, or a `Run`. Out: flat dicts: settings by key, and of the data the first digits of a
hash of each part.
"""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np

from hocslm_jax.data.store import Store
from hocslm_jax.train import checkpoint, environment
from hocslm_jax.train.setup import Run

# What a host may have for itself.
OWN = ("compilation_cache", "data.data_dir", "data.threads", "data.cache", "data.auto_prepare")
CLIPS = 5  # whose joints are compared, from the first to the last


def settings(config, workdir: str | Path, mode: str) -> dict:
    """The config, the place and the kind of a run, and the versions of its packages."""
    flat = checkpoint.flat(checkpoint.plain(config))
    versions = environment.describe_versions()
    versions = {f"version of {name}": versions.get(name) for name in environment.PACKAGES}
    place = {"--workdir": str(Path(workdir).absolute()), "--mode": mode}
    return {k: v for k, v in flat.items() if k not in OWN} | versions | place


def fingerprint(run: Run) -> dict:
    """The settings of a run, with what was read for it, and its data."""
    flat = checkpoint.flat(checkpoint.plain(run.config))
    found = {k: v for k, v in flat.items() if k not in OWN} | of_data(run.store, run.config.data)
    if run.captions is not None:
        found["captions"] = digest(run.captions.tokens, run.captions.start, run.captions.count)
    if run.language is not None:
        found["language model"] = digest(run.language.prompt, repr(run.language.gain))
    return found


def of_data(store: Store, data) -> dict:
    """The classes, clips, labels and splits of a dataset, and the joints of a few clips."""
    splits = {split: store.rows(data.protocol, split) for split in ("train", "test")}
    few = np.linspace(0, len(store) - 1, CLIPS).astype(int)
    return {
        "clips": len(store),
        "class names": digest(*store.classes),
        "clip ids": digest(*store.ids),
        "labels": digest(np.asarray(store.labels)),
        "skeleton": digest(json.dumps(store.graph.as_mapping())),
        "joints": digest(*(store.joints(row) for row in few)),
        **{f"{split} clips": digest(rows) for split, rows in splits.items()},
    }


def checksum(state) -> str:
    """Of this process's first copy of every array that all devices hold whole."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        if leaf.is_fully_replicated:
            data = leaf.addressable_data(0)
            typed = jax.dtypes.issubdtype(data.dtype, jax.dtypes.prng_key)
            found.update(np.ascontiguousarray(jax.random.key_data(data) if typed else data))
    return found.hexdigest()[:12]


def digest(*parts: str | np.ndarray) -> str:
    """The first digits of a hash of texts or arrays in their order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part))
        found.update(b"\0")
    return found.hexdigest()[:12]
