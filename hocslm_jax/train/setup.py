"""From a config to the pieces of a run: data, mesh, model, optimiser, compiled step.

In: the config and the workdir. Out: a `Run`, built once, used by training and evaluation alike.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hocslm_jax import sharding
from hocslm_jax.data import pipeline
from hocslm_jax.data.store import Store, open_store
from hocslm_jax.errors import UserError
from hocslm_jax.models import build_model
from hocslm_jax.train import checkpoint, optim, state, step
from hocslm_jax.train.metrics import say

STRATEGIES = ("T0",)


@dataclasses.dataclass(frozen=True)
class Run:
    """What does not change while a run trains."""

    config: Any
    workdir: Path
    store: Store
    feed: pipeline.Feed
    mesh: jax.sharding.Mesh
    model: Any
    schedule: optim.Schedule
    steps_per_epoch: int
    init: Callable  # key -> TrainState, in its sharding
    abstract_state: Any  # shapes, types and shardings of the TrainState
    train_step: Callable  # jitted (state, frozen, batch) -> (state, metrics, finite)
    predict: Callable  # (variables, x of this host) -> global logits [B, C]

    @property
    def total_steps(self) -> int:
        return self.config.train.epochs * self.steps_per_epoch

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(M, T, V, C)."""
        return (self.feed.num_persons, self.feed.frames, self.store.graph.num_joints, 3)

    def shard(self, batch_size: int) -> tuple[int, int]:
        return sharding.host_shard(sharding.batch_sharding(self.mesh), batch_size)

    def put(self, batch: dict[str, np.ndarray]) -> dict:
        """This host's training batch as global arrays."""
        rows = sharding.batch_sharding(self.mesh)
        needed = {name: batch[name] for name in ("x", "label", "mask")}
        return sharding.shard_batch(rows, needed, self.config.train.batch_size)

    def train_iterator(self):
        size = self.config.train.batch_size
        return pipeline.train_iterator(
            self.store,
            self.config.data.protocol,
            self.feed,
            batch_size=size,
            seed=self.config.seed,
            shard=self.shard(size),
            threads=self.config.data.threads,
        )

    def test_batches(self) -> Iterator[dict[str, np.ndarray]]:
        size = self.config.train.eval_batch_size
        data = self.config.data
        args = (self.store, data.protocol, "test", self.feed)
        return pipeline.eval_batches(*args, batch_size=size, shard=self.shard(size))


def build_run(config, workdir: str | Path, build: Callable = build_model) -> Run:
    """Everything but the weights.

    Args:
        build: `(config.model, graph=, num_classes=) -> nn.Module`.

    Raises:
        UserError: an unknown name or an impossible size in the config, or a dataset not prepared.
    """
    check(config)
    mesh = open_mesh(config)
    feed = pipeline.Feed.from_config(config.data)  # a typo shows before the data is looked for
    store = open_data(config.data)
    graph = feed.graph_of(store)
    model = build(config.model, graph=graph, num_classes=len(store.classes))
    spe = pipeline.steps_per_epoch(store, config.data.protocol, feed, config.train.batch_size)
    schedule = optim.make_schedule(config.optim, config.train.epochs, spe)
    tx = optim.make_optimizer(config.optim, schedule)
    clip_shape = (feed.num_persons, feed.frames, graph.num_joints, 3)
    init = state.make_init(model, tx, clip_shape, ema=config.optim.ema > 0)
    abstract = jax.eval_shape(init, jax.random.key(0))
    placed = sharding.tree_shardings(abstract, mesh)
    update = step.make_train_step(step.classify(model), tx, config.optim.ema)
    return Run(
        config=config,
        workdir=Path(workdir),
        store=store,
        feed=feed,
        mesh=mesh,
        model=model,
        schedule=schedule,
        steps_per_epoch=spe,
        init=jax.jit(init, out_shardings=placed),
        abstract_state=checkpoint.abstract(abstract, placed),
        train_step=jit_step(update, placed, mesh),
        predict=make_predict(model, mesh, config.train.eval_batch_size),
    )


def open_mesh(config) -> jax.sharding.Mesh:
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.model)
    for name in ("batch_size", "eval_batch_size"):
        sharding.check_batch(mesh, config.train[name], f"train.{name}")
    return mesh


def jit_step(update: Callable, placed, mesh, frozen=None) -> Callable:
    """The update, compiled for the mesh; the old state's memory is reused for the new one."""
    rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    return jax.jit(
        update,
        donate_argnums=0,
        in_shardings=(placed, frozen or {}, rows),
        out_shardings=(placed, everywhere, everywhere),
    )


def make_predict(model, mesh, batch_size: int) -> Callable:
    rows = sharding.batch_sharding(mesh)

    @functools.partial(jax.jit, out_shardings=rows)
    def logits(variables, x):
        return model.apply(variables, x, train=False)

    return lambda variables, x: logits(variables, sharding.shard_batch(rows, x, batch_size))


def open_data(data) -> Store:
    """The prepared dataset; with `data.auto_prepare` process 0 first builds it where missing."""
    if data.auto_prepare:
        if jax.process_index() == 0:
            build_missing(data)
        multihost_utils.sync_global_devices("prepared")
    return open_store(data.dataset, data.data_dir)


def build_missing(data) -> None:
    """What `python -m hocslm_jax prepare` does for a dataset that needs no source."""
    with contextlib.suppress(UserError):
        open_store(data.dataset, data.data_dir)
        return
    from hocslm_jax.data import prepare

    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.run(parser.parse_args([data.dataset, "--data-dir", data.data_dir]))


def check(config) -> None:
    """Raises UserError for values that no other part would name clearly."""
    if config.strategy not in STRATEGIES:
        raise UserError(f"strategy={config.strategy!r} is unknown: use {', '.join(STRATEGIES)}")
    for name in ("epochs", "batch_size", "eval_batch_size", "checkpoint_every", "log_every"):
        if config.train[name] < 1:
            raise UserError(f"train.{name}={config.train[name]} must be at least 1")
    if not 0 <= config.optim.ema < 1:
        raise UserError(f"optim.ema={config.optim.ema} must be in [0, 1)")


def compile_step(run: Run):
    """The compiled train step and its FLOPs (one whole batch, all devices), before any data."""
    batch = abstract_batch(run)
    lowered = run.train_step.lower(run.abstract_state, {}, batch)
    return lowered.compile(), _flops(lowered)


def abstract_batch(run: Run) -> dict:
    """Shapes, types and shardings of a training batch."""
    size = run.config.train.batch_size
    rows = sharding.batch_sharding(run.mesh)
    like = functools.partial(jax.ShapeDtypeStruct, sharding=rows)
    return {
        "x": like((size, *run.clip_shape), np.float32),
        "label": like((size,), np.int32),
        "mask": like((size,), np.float32),
    }


def describe_model(run: Run, step_flops: float | None) -> dict:
    """Parameters by block and FLOPs; printed, and written to `model.json`."""
    blocks: dict[str, int] = {}
    leaves = jax.tree.leaves_with_path(run.abstract_state.params)
    for path, leaf in leaves:
        block = "/".join(sharding.path_name(path).split("/")[:-1][:2])
        blocks[block] = blocks.get(block, 0) + math.prod(leaf.shape)
    variables = state.eval_variables(run.abstract_state)
    clip = jax.ShapeDtypeStruct((1, *run.clip_shape), np.float32)
    forward = jax.jit(lambda v, x: run.model.apply(v, x, train=False)).lower(variables, clip)
    model = {
        "parameters": sum(blocks.values()),
        "blocks": blocks,
        "shapes": {sharding.path_name(path): list(leaf.shape) for path, leaf in leaves},
        "clip": list(run.clip_shape),
        "forward_flops_per_clip": _flops(forward),
        "train_step_flops": step_flops,
    }
    if jax.process_index() == 0:
        (run.workdir / "model.json").write_text(json.dumps(model, indent=1) + "\n")
    width = max(len(name) for name in blocks)
    for name, count in blocks.items():
        say(f"  {name:<{width}} {count:>12,}")
    flops = model["forward_flops_per_clip"]
    cost = f", {flops / 1e9:.3f} GFLOP a clip" if flops else ""
    say(f"  {'parameters':<{width}} {model['parameters']:>12,}{cost}")
    return model


def _flops(lowered) -> float | None:
    """FLOPs by XLA's count of the program before partitioning; None where it does not count."""
    costs = lowered.cost_analysis()
    return float(costs["flops"]) if costs and "flops" in costs else None
