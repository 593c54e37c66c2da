"""A small dataset for the tests: seven clips of three classes, of one or two persons."""

import dataclasses

import numpy as np

from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.writer import Recipe
from hocslm_jax.graph import UCLA20, Graph


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


@dataclasses.dataclass
class Memory:
    """The part of a Store that a feeder uses, of clips in memory."""

    clips: list
    graph: Graph = UCLA20
    channels: str = "xyz"
    name: str = "mine"
    feeder: str = ""
    num_persons: int = 2

    @property
    def ids(self):
        return [f"clip{row}" for row in range(len(self.clips))]

    @property
    def labels(self):
        return np.zeros(len(self.clips), np.int32)

    def joints(self, row):
        return self.clips[row]
