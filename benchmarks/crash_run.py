"""The processes that benchmarks.crash_campaign kills: a tiny training and a tiny `prepare`.

Each function runs in its own process. A `Kill` gives the place and signal with which the process
kills itself; `note_states` records a hash of every saved state, so that two runs can be compared
bit for bit.
"""

import argparse
import csv
import dataclasses
import functools
import hashlib
import json
import os
import signal
import threading
from pathlib import Path

import jax
import numpy as np
from absl import flags
from flax import linen as nn

from hocslm_jax.data.prepare import command as preparing
from hocslm_jax.data.prepare.check import check
from hocslm_jax.graph import UCLA20
from hocslm_jax.train import checkpoint, environment, experiment, setup, strategy

DATASET, TRAIN, TEST, CLASSES = "crash", 32, 16, 4
NOTES = "states.jsonl"
# For each place, a function that is called there: its owner and its name.
PLACES = {
    "step": (setup.Run, "put"),
    "checkpoint": (checkpoint, "save"),
    "evaluation": (setup.Run, "test_batches"),
    "between stages": (setup, "build_run"),
    "restore": (checkpoint, "resume"),
}


@dataclasses.dataclass(frozen=True)
class Kill:
    """A signal that a process sends to itself.

    Attributes:
      place: a key of `PLACES`, or "any" for a time after the start.
      count: number of the call.
      delay: seconds after the start of that call.
      signal: number of the signal.
    """

    place: str
    count: int = 1
    delay: float = 0.0
    signal: int = signal.SIGKILL


class Network(nn.Module):
    """A network with BatchNorm, dropout, and the parameter groups encoder and classifier."""

    num_classes: int

    @nn.compact
    def __call__(self, x, train: bool):
        feature = Encoder(name="encoder")(x.mean(axis=(1, 2)).reshape(x.shape[0], -1), train)
        return nn.Dense(self.num_classes, name="classifier")(feature)


class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dropout(0.2, deterministic=not train)(nn.relu(nn.Dense(16)(x)))


def build(settings, *, graph, num_classes: int) -> Network:
    del settings, graph
    return Network(num_classes)


def write_source(folder: Path) -> None:
    """Writes clips for `prepare folder`, with a pose that depends on the class."""
    folder.mkdir(parents=True)
    (folder / "graph.json").write_text(json.dumps(UCLA20.as_mapping()))
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("id", "file", "label", "split"))
        for row in range(TRAIN + TEST):
            rng, label = np.random.default_rng(row), row % CLASSES
            joints = 0.3 * rng.normal(size=(6 + row % 5, 20, 3)).astype(np.float32)
            joints[:, : 1 + 4 * label] += 0.5
            np.save(folder / f"{row:02}.npy", joints)
            split = "train" if row < TRAIN else "test"
            table.writerow((f"clip{row:02}", f"{row:02}.npy", f"class{label}", split))


def prepare(source: Path, data_dir: Path, kill: Kill | None = None) -> int:
    """`python -m hocslm_jax prepare folder`."""
    schedule(kill)
    parser = argparse.ArgumentParser()
    preparing.add_arguments(parser)
    options = ["--name", DATASET, "--source", str(source), "--data-dir", str(data_dir)]
    preparing.run(parser.parse_args(["folder", *options]))
    return 0


def verify(data_dir: Path) -> int:
    """`prepare --check`, in its own process, since it reads records with threads."""
    print(check(DATASET, data_dir))
    return 0


def make_config(data_dir: Path, epochs: int, repeat: int = 1, name: str = "T0+"):
    """Two stages of 4 * epochs * repeat steps, or one stage for the name "T0"."""
    config = experiment.defaults()
    config.data.update(dataset=DATASET, data_dir=str(data_dir), protocol="split", feeder="ntu")
    config.data.update(frames=4, repeat=repeat, num_persons=1)
    config.optim.update(lr=0.05, warmup_epochs=1, milestones=(2,), ema=0.9)
    config.finetune.update(epochs=epochs, warmup_epochs=1)
    config.train.update(epochs=epochs, batch_size=8, eval_batch_size=8, log_every=2)
    config.train.update(checkpoint_every=3, keep=1)
    config.update(strategy=name, stages=experiment.STRATEGIES[name])
    return config


def train(config, workdir: Path, cache: Path, kill: Kill | None = None, who: dict | None = None):
    """Runs `launch.py` with the tiny network; `who` are JAX's environment variables."""
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags
    os.environ.update(who or {})
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if who:
        environment.SILENCE_S = 10
        environment.join_processes()
    note_states(workdir)
    schedule(kill)
    return strategy.train(config, workdir, build)


def schedule(kill: Kill | None) -> None:
    """Makes the process send itself the signal at the place of `kill`."""
    if kill is None:
        return

    def end():
        os.kill(os.getpid(), kill.signal)

    if kill.place == "any":
        later(kill.delay, end)
        return
    owner, name = PLACES[kill.place]
    original, calls = getattr(owner, name), []

    @functools.wraps(original)
    def counted(*args, **options):
        calls.append(1)
        if len(calls) == kill.count:
            later(kill.delay, end)
        return original(*args, **options)

    setattr(owner, name, counted)


def later(seconds: float, call) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


def note_states(workdir: Path) -> None:
    """Adds a line {folder, step, hash} to the workdir's notes for every saved state."""
    original = checkpoint.save

    @functools.wraps(original)
    def noted(manager, step, state, meta):
        if jax.process_index() == 0:
            place = os.path.relpath(manager.directory, workdir)
            line = {"folder": place, "step": step, "hash": state_hash(state)}
            with (workdir / NOTES).open("a") as file:
                file.write(json.dumps(line) + "\n")
        return original(manager, step, state, meta)

    checkpoint.save = noted


def state_hash(state) -> str:
    """sha256 of every array of a replicated state."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        digest.update(np.asarray(leaf.addressable_data(0)).tobytes())
    return digest.hexdigest()
