"""A small dataset for the tests: seven clips of three classes, of one or two persons."""

import numpy as np

from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.writer import Recipe
from hocslm_jax.graph import UCLA20


def make_clips(count=7):
    rng = np.random.default_rng(0)
    return [
        Clip(
            id=f"clip{i:02}",
            joints=rng.normal(size=(1 + i, 1 + i % 2, 20, 3)).astype(np.float32),
            label=i % 3,
            subject=i,
            camera=1 + i % 3,
            setup=5,
            replication=2,
        )
        for i in range(count)
    ]


def make_recipe(clips, name="toy", shards=3, **changes):
    chunks = [clips[i::shards] for i in range(shards)]
    return Recipe(
        name=name,
        graph=UCLA20,
        classes=("a", "b", "c"),
        shards=[lambda chunk=chunk: iter(chunk) for chunk in chunks],
        **({"source": {"made": "here"}, "protocols": half} | changes),
    )


def half(columns):
    return {
        "half": {
            "train": np.flatnonzero(columns["subject"] < 4),
            "test": np.flatnonzero(columns["subject"] >= 4),
            "val": np.array([], int),
        }
    }
