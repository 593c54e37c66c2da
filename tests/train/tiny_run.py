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

from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph
from hocslm_jax.models import HocSLM, Projector, build_model
from hocslm_jax.models.hocslm import prefix_of
from hocslm_jax.train import experiment, loop, setup, strategy
from hocslm_jax.train.stages import stage_config

sys.modules.setdefault("tensorboardX", None)  # it imports PyTorch, which takes seconds

TRAIN, TEST, VAL, CLASSES = 32, 16, 8, 4
# Few joints: XLA:CPU takes long to compile a graph network, and longer the more joints there are.
_NAMES = ("hip centre", "head", "left hand", "right hand", "left foot", "right foot")
GRAPH = Graph("toy", _NAMES, ((1, 0), (2, 1), (3, 1), (4, 0), (5, 0)), 0)
# The real encoder instead of the stand-in, as small as possible.
HGLNET = {
    "model.encoder": "hglnet",
    "model.width": 8,
    "model.stages": (1,),
    "data.frames": 4,
    "optim.lr": 0.01,
}


@dataclasses.dataclass(frozen=True)
class TinyStore:
    """The part of `data.store.Store` that training uses; the class shifts every joint."""

    read_s: float = 0.0
    val: bool = False
    poisoned: int = -1  # a row whose coordinates overflow in float32
    name = "tiny"
    graph = GRAPH
    classes = ("a", "b", "c", "d")
    num_persons = 1
    feeder = "ntu"
    about = None
    measured = None
    path = Path("nowhere") / "1.0.0"
    ids = tuple(f"clip{row:02d}" for row in range(TRAIN + TEST))
    labels = (np.arange(TRAIN + TEST) % CLASSES).astype(np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def joints(self, row: int) -> np.ndarray:
        time.sleep(self.read_s)
        rng = np.random.default_rng(row)
        clip = rng.normal(size=(5 + row % 7, 1, self.graph.num_joints, 3)).astype(np.float32)
        clip[:, :, : 1 + self.labels[row]] += 3
        return clip * np.float32(1e30 if row == self.poisoned else 1)

    def has_split(self, protocol: str, split: str) -> bool:
        return split != "val" or self.val

    def rows(self, protocol: str, split: str) -> np.ndarray:
        places = {
            "train": (0, TRAIN),
            "val": (0, VAL),
        }  # val's clips are among the training clips, for a test
        return np.arange(*places.get(split, (TRAIN, TRAIN + TEST)))


class TinyHocSLM(HocSLM):
    """The fusion on a stand-in for the encoder."""

    @nn.compact
    def __call__(self, x, train: bool):
        fusion, x = self.fusion, x.mean(axis=(1, 2)).reshape(x.shape[0], -1)
        feature = Head(16, name="encoder")(x, train)
        shape = (fusion.prompt_length, fusion.lm_width)
        projector = Projector(fusion.lm_width, fusion.width, fusion.gain, name="projector")
        visual = projector(self.metered("gen", feature))
        prompt = self.param("prompt", nn.initializers.normal(), shape)
        seen = visual if fusion.classify_on == "visual" else self.metered("cls", feature)
        logits = nn.Dense(self.num_classes, name="classifier")(seen)
        return logits, prefix_of(visual, prompt, fusion.leading)


class TinyRecogniser(nn.Module):
    """The model of the preceding stage, in strategy T0."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train: bool):
        feature = Head(16, name="encoder")(x.mean(axis=(1, 2)).reshape(x.shape[0], -1), train)
        return nn.Dense(self.num_classes, name="classifier")(feature)


class Head(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.relu(nn.Dense(self.width)(x))


class Tiny(nn.Module):
    num_classes: int
    dropout: float

    @nn.compact
    def __call__(self, x, train: bool):
        x = x.mean(axis=(1, 2)).reshape(x.shape[0], -1)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(nn.Dense(16)(x)))
        return nn.Dense(self.num_classes)(x)


def build(settings, *, graph, num_classes, **fusion):
    if settings.encoder == "tiny":
        return Tiny(num_classes, settings.dropout)
    if settings.encoder == "groups":
        if fusion:
            return TinyHocSLM(graph, num_classes, **fusion)
        return TinyRecogniser(num_classes)
    return build_model(settings, graph=graph, num_classes=num_classes, **fusion)


def make_config(changes: dict):
    config = experiment.defaults()
    config.data.update(feeder="ntu", frames=4, repeat=1)
    config.model.update(encoder="tiny", dropout=0.2)
    config.optim.update(lr=0.05, warmup_epochs=1, milestones=(2,))
    config.train.update(epochs=3, batch_size=8, eval_batch_size=8)
    config.train.update(checkpoint_every=3, log_every=2)
    config.update_from_flattened_dict(changes)
    return config


def make_run(workdir, changes: dict | None = None, **store):
    """A `Run` on the tiny data."""
    return make_run_with(make_config(changes or {}), workdir, None, **store)


def make_run_with(config, workdir, language, **store):
    """A `Run` of a config's first stage."""
    real, setup.open_store = setup.open_store, lambda *_: TinyStore(**store)
    try:
        return setup.build_run(stage_config(config, 0), workdir, build, language)
    finally:
        setup.open_store = real


# A strategy with language, in seconds.
LANGUAGE = {
    "model.encoder": "groups",
    "finetune.epochs": 2,
    "finetune.lr": 0.01,
    "finetune.warmup_epochs": 1,
    "lm.projector_width": 16,
    "lm.max_tokens": 24,
    "lm.prompt": "It is:",
    "lm.chunk": 8,
    "lm.pretrain.vocab_size": 300,
    "lm.pretrain.hidden_size": 16,
    "lm.pretrain.intermediate_size": 32,
    "lm.pretrain.num_heads": 2,
    "lm.pretrain.num_kv_heads": 1,
    "lm.pretrain.steps": 30,
    "lm.pretrain.batch_size": 8,
}


def train_strategy(workdir, name: str, changes: dict | None = None) -> int:
    """All stages of a strategy on the tiny data."""
    return on_tiny_data(strategy.train, workdir, name, changes)


def on_tiny_data(act, workdir, name: str, changes: dict | None = None) -> int:
    config = make_config({**LANGUAGE, **(changes or {})})
    config.update(strategy=name, stages=experiment.STRATEGIES[name])
    real, setup.open_store = setup.open_store, lambda *_: TinyStore()
    try:
        return act(config, workdir, build)
    finally:
        setup.open_store = real


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    flags.FLAGS.mark_as_parsed()
    try:
        run = make_run(sys.argv[1], json.loads(sys.argv[2]), read_s=float(sys.argv[3]))
        sys.exit(loop.train(run).status)
    except UserError as error:
        sys.exit(f"error: {error}")
