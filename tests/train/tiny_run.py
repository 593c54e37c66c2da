"""A run of seconds: 48 random clips, and a stand-in network with BatchNorm and dropout.

As a script, `python tiny_run.py WORKDIR '{"train.epochs": 3}' SECONDS` trains it like `launch.py`;
every clip takes SECONDS to read, so that a test can interrupt it.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags
from flax import linen as nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs import base
from hocslm_jax.errors import UserError
from hocslm_jax.graph import UCLA20
from hocslm_jax.models import build_model
from hocslm_jax.train import loop, setup

TRAIN, TEST, CLASSES = 32, 16, 4
# The real encoder in the place of the stand-in, as small as it gets.
HGLNET = {
    "model.encoder": "hglnet",
    "model.width": 8,
    "model.stages": (1, 1),
    "data.frames": 8,
    "optim.lr": 0.01,
}


@dataclasses.dataclass(frozen=True)
class TinyStore:
    """The part of `data.store.Store` that training uses; the class shifts every joint."""

    read_s: float = 0.0
    poisoned: int = -1  # a row whose coordinates overflow in float32
    name = "tiny"
    graph = UCLA20
    classes = ("a", "b", "c", "d")
    num_persons = 1
    ids = tuple(f"clip{row:02d}" for row in range(TRAIN + TEST))
    labels = (np.arange(TRAIN + TEST) % CLASSES).astype(np.int32)

    def joints(self, row: int) -> np.ndarray:
        time.sleep(self.read_s)
        rng = np.random.default_rng(row)
        clip = rng.normal(size=(5 + row % 7, 1, 20, 3)).astype(np.float32)
        clip[:, :, : 1 + 4 * self.labels[row]] += 3
        return clip * np.float32(1e30 if row == self.poisoned else 1)

    def rows(self, protocol: str, split: str) -> np.ndarray:
        return np.arange(TRAIN) if split == "train" else np.arange(TRAIN, TRAIN + TEST)


class Tiny(nn.Module):
    num_classes: int
    dropout: float

    @nn.compact
    def __call__(self, x, train: bool):
        x = x.mean(axis=(1, 2)).reshape(x.shape[0], -1)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(nn.Dense(16)(x)))
        return nn.Dense(self.num_classes)(x)


def build(settings, *, graph, num_classes):
    if settings.encoder == "tiny":
        return Tiny(num_classes, settings.dropout)
    return build_model(settings, graph=graph, num_classes=num_classes)


def make_config(changes: dict):
    config = base.defaults()
    config.data.update(feeder="ntu", frames=4, repeat=1)
    config.model.update(encoder="tiny", dropout=0.2)
    config.optim.update(lr=0.05, warmup_epochs=1, milestones=(2,))
    config.train.update(epochs=3, batch_size=8, eval_batch_size=8)
    config.train.update(checkpoint_every=3, log_every=2)
    config.update_from_flattened_dict(changes)
    return config


def make_run(workdir, changes: dict | None = None, **store):
    """A `Run` on the tiny data."""
    real, setup.open_store = setup.open_store, lambda *_: TinyStore(**store)
    try:
        return setup.build_run(make_config(changes or {}), workdir, build)
    finally:
        setup.open_store = real


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    flags.FLAGS.mark_as_parsed()
    try:
        sys.exit(
            loop.train(make_run(sys.argv[1], json.loads(sys.argv[2]), read_s=float(sys.argv[3])))
        )
    except UserError as error:
        sys.exit(f"error: {error}")
