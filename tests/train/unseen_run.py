"""The tiny run on a store that can leave classes out (`data.unseen`)."""

import dataclasses

import numpy as np
import tiny_run

from hocslm_jax.train import experiment, setup, strategy

ROWS = np.arange(tiny_run.TRAIN + tiny_run.TEST, dtype=np.int32)
UNSEEN = {"data.unseen": "1+3"}  # b and d of a, b, c, d
SHORT = {"model.encoder": "groups", "train.epochs": 1, "finetune.epochs": 1}


def splits():
    return {"xview": {"train": ROWS[: tiny_run.TRAIN], "test": ROWS[tiny_run.TRAIN :]}}


@dataclasses.dataclass(frozen=True)
class SplitStore(tiny_run.TinyStore):
    """A `TinyStore` with its splits as a field."""

    protocols: dict = dataclasses.field(default_factory=splits)
    unseen: tuple[int, ...] = ()

    def has_split(self, protocol: str, split: str) -> bool:
        return split in self.protocols[protocol]

    def rows(self, protocol: str, split: str) -> np.ndarray:
        return self.protocols[protocol][split]


def make_config(changes: dict, name: str = "T0", **stage):
    """The config of a strategy; or, with the fields of a stage, of this one alone."""
    config = tiny_run.make_config({**tiny_run.LANGUAGE, **changes})
    if stage:
        config.update(strategy="custom", stages=(stage,))
    else:
        config.update(strategy=name, stages=experiment.STRATEGIES[name])
    return config


def train(workdir, changes: dict, name: str = "T0", **stage) -> int:
    real, setup.open_store = setup.open_store, lambda *_: SplitStore()
    try:
        return strategy.train(make_config(changes, name, **stage), workdir, tiny_run.build)
    finally:
        setup.open_store = real
