"""Builds the parts of a run from its config: data, mesh, model, optimiser, compiled step.

In: the config and the workdir. Out: a `Run`, used by both training and evaluation.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hocslm_jax import hosts, sharding
from hocslm_jax.data import pipeline
from hocslm_jax.data.augment import ClipView
from hocslm_jax.data.captions import CaptionTable
from hocslm_jax.data.class_splits import hold_out
from hocslm_jax.data.store import Store, dataset_folder, open_store
from hocslm_jax.errors import UserError
from hocslm_jax.language.open import Language, fusion_config, packing_grid, training_captions
from hocslm_jax.models import HocSLM, build_model
from hocslm_jax.models.packing import Grid
from hocslm_jax.train import optim, state, step, stream_axis
from hocslm_jax.train.check_settings import check_values
from hocslm_jax.train.environment import init_options
from hocslm_jax.train.jitted import gathered, gathering, jit_step, make_predict
from hocslm_jax.train.stages import (
    Stage,
    fused,
    model_settings,
    position_of,
    read_stages,
    trained_groups,
)


@dataclasses.dataclass(frozen=True)
class Run:
    """The fixed parts of a run, which is one stage of a strategy."""

    config: Any
    stage: Stage
    workdir: Path
    store: Store
    feed: pipeline.Feed
    mesh: jax.sharding.Mesh
    model: Any
    language: Language | None  # if the stage learns to describe
    gain: float | None  # of the model with a projector for a language model
    captions: CaptionTable | None  # of the training clips, if the stage learns to describe
    schedule: optim.Schedule
    steps_per_epoch: int
    init: Callable  # (key, initial) -> TrainState, in its sharding
    abstract_state: Any  # shapes, types and shardings of the TrainState
    train_step: Callable  # jitted (state, frozen, batch) -> (state, metrics, finite)
    predict: Callable  # (variables, x of this host) -> global logits [B, C] or [B, S, C]
    teacher: np.ndarray | None = None  # probabilities [clips of the store, C], see `distill`
    origin: str = ""  # fingerprint of the initial weights, see `lineage`
    before: tuple[str, ...] | None = ()  # classes that these were trained on, None: not known

    @property
    def frozen(self) -> dict:
        return {"lm": self.language.params} if self.language else {}

    @property
    def has_val(self) -> bool:
        """Whether a val split selects the best epoch, rather than the test split."""
        return self.store.has_split(self.config.data.protocol, "val")

    @property
    def total_steps(self) -> int:
        return self.config.train.epochs * self.steps_per_epoch

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams that train side by side; () for a single stream."""
        return tuple(self.feed.streams)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """(M, T, V, C) of one stream."""
        return self.feed.clip_shape(self.store.graph)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one clip of a batch: (M, T, V, C), or (S, M, T, V, C)."""
        streams = (len(self.streams),) if self.streams else ()
        return (*streams, *self.clip_shape)

    @property
    def one_state(self) -> state.TrainState:
        """`abstract_state` of one stream alone."""
        return (
            stream_axis.single_state(self.abstract_state) if self.streams else self.abstract_state
        )

    def shard(self, batch_size: int) -> tuple[int, int]:
        return sharding.host_shard(sharding.batch_sharding(self.mesh), batch_size)

    def put(self, batch: dict[str, np.ndarray]) -> dict:
        """This host's training batch as global arrays."""
        size = self.config.train.batch_size
        return {
            name: sharding.shard_batch(self.placement(name), value, size)
            for name, value in batch.items()
            if name != "row"
        }

    def placement(self, name: str) -> jax.sharding.NamedSharding:
        """The sharding of one array of a training batch."""
        return (sharding.input_sharding if name == "x" else sharding.batch_sharding)(self.mesh)

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
            captions=self.captions,
            teacher=self.teacher,
        )

    def test_batches(
        self, limit: int = -1, view: ClipView | None = None, split: str = "test"
    ) -> Iterator[dict[str, np.ndarray]]:
        size = self.config.train.eval_batch_size
        data = self.config.data
        args = (self.store, data.protocol, split, self.feed)
        options = {"batch_size": size, "shard": self.shard(size), "threads": data.threads}
        return pipeline.eval_batches(*args, limit=limit, view=view, **options)

    def outputs(self, function: Callable, variables: dict) -> Callable:
        """Returns: test batch of this host -> (`function(variables, x)`, rows [B]) of all hosts."""
        placed, size = sharding.batch_sharding(self.mesh), self.config.train.eval_batch_size
        jitted = jax.jit(function)

        def of_batch(batch):
            put = sharding.shard_batch(placed, {"x": batch["x"], "row": batch["row"]}, size)
            return jitted(variables, put["x"]), put["row"]

        return of_batch


def build_run(
    config,
    workdir: str | Path,
    build: Callable = build_model,
    language: Language | None = None,
    opener: Callable[[], Store] | None = None,
) -> Run:
    """Builds one stage, without its weights, from a config of `stages.stage_config`.

    Args:
        build: `(config.model, graph=, num_classes=[, fusion=]) -> nn.Module`.
        language: needed from the first stage that describes on.
        opener: returns the dataset; by default it is opened here.

    Raises:
        UserError: an unknown name or impossible size in the config, or the dataset is not prepared.
    """
    check_values(config)
    config = ConfigDict(config.copy_and_resolve_references())
    with config.unlocked():
        config.stage = position_of(config)
    stages = read_stages(config)
    stage = stages[config.stage]
    mesh = open_mesh(config)
    feed = pipeline.Feed.from_config(config.data)  # reports a typo before the data is opened
    store = opener() if opener else open_data(config.data)
    feed = pipeline.Feed.from_config(config.data, store)
    graph = feed.graph_of(store)
    # Settings that the dataset determines are stored in the run, for prediction and evaluation.
    config.data.update({key: getattr(feed, key) for key in ("num_persons", "channels", "origin")})
    fusion = {}
    if fused(stages, config.stage):
        fusion["fusion"] = fusion_config(config.lm, language, stage.classify_on)
    model = build(model_settings(config), graph=graph, num_classes=len(store.classes), **fusion)
    spe = pipeline.steps_per_epoch(store, config.data.protocol, feed, config.train.batch_size)
    captions = grid = frozen = None
    if "gen" in stage.losses:
        frozen = language
        captions = training_captions(config, store, language, stage.captions == "shuffled")
        grid = packing_grid(config, store, language, captions, mesh)
    schedule = optim.make_schedule(config.optim, config.train.epochs, spe)
    objective = make_objective(config, stage, model, mesh, language, grid)
    return Run(
        config=config,
        stage=stage,
        workdir=Path(workdir),
        store=store,
        feed=feed,
        mesh=mesh,
        model=model,
        language=frozen,
        gain=language.gain if fusion else None,
        captions=captions,
        schedule=schedule,
        steps_per_epoch=spe,
        **make_programs(config, model, objective, schedule, mesh, feed.clip_shape(graph), frozen),
    )


def make_programs(
    config, model, objective: Callable, schedule, mesh, clip_shape, language: Language | None
) -> dict:
    """`init`, `abstract_state`, `train_step` and `predict` of a `Run`, for all its streams."""
    tx, streams = optim.make_optimizer(config.optim, schedule), len(config.data.streams)
    init = state.make_init(model, tx, clip_shape, config.optim.ema > 0, trained_groups(config))
    abstract = jax.eval_shape(init, jax.random.key(0), {})
    placed = sharding.tree_shardings(abstract, mesh, sharding.state_rules(config.mesh.fsdp))
    objective = gathered(objective, {**placed.fixed, **placed.params})
    abstract = stream_axis.stacked_state(sharding.abstract(abstract, placed), streams)
    placed = jax.tree.map(lambda a: a.sharding, abstract)
    meters = read_stages(config)[position_of(config)].meters
    update = step.make_train_step(objective, tx, config.optim.ema, meters)
    update = stream_axis.stacked_update(update, streams, stream_axis.takes_turns(mesh))
    options = init_options(mesh.devices.flat[0].platform)
    init = stream_axis.stacked_init(init, streams)
    return {
        "init": jax.jit(init, out_shardings=placed, compiler_options=options),
        "abstract_state": abstract,
        "train_step": jit_step(update, placed, mesh, language),
        "predict": make_predict(
            model, mesh, config.train.eval_batch_size, streams, state.eval_variables(placed)
        ),
    }


def make_objective(
    config, stage: Stage, model, mesh, language: Language | None, grid: Grid | None = None
) -> Callable:
    """The objective of the stage; `grid` is the layout of packed examples with language."""
    loss, distill, encoder = config.loss, config.distill, "encoder" in stage.train
    if not isinstance(model, HocSLM):
        options = (loss.smoothing, loss.mixup, distill.share, distill.temperature)
        return step.classify(model, *options, train_encoder=encoder)
    weights = {name: loss[name] if name in stage.losses else 0.0 for name in ("cls", "gen")}
    return step.describe(
        model,
        gathering(language),
        weights,
        smoothing=loss.smoothing,
        mixup=loss.mixup,
        train_encoder=encoder,
        chunk=config.lm.chunk,
        grid=grid,
        place=sharding.place_rows(mesh),
    )


def open_mesh(config, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """The mesh of a config, over all or the given devices; both batch sizes must fit it."""
    options = {"stream": config.mesh.stream} if config.data.streams else {}
    options |= {} if devices is None else {"devices": devices}
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.model, **options)
    for name in ("batch_size", "eval_batch_size"):
        sharding.check_batch(mesh, config.train[name], f"train.{name}")
    return mesh


def open_data(data) -> Store:
    """The prepared dataset, without `data.unseen`; built first if `auto_prepare` says so."""
    if data.auto_prepare:
        hosts.on_first(lambda: build_missing(data))
        hosts.wait_to_see(dataset_folder(data.dataset, data.data_dir), inside=True)
    store = open_store(data.dataset, data.data_dir, data.get("cache", ""))
    return hold_out(store, data.get("unseen", ""))


def build_missing(data) -> None:
    """Prepares a dataset that needs no source, like `python -m hocslm_jax prepare`."""
    with contextlib.suppress(UserError):
        open_store(data.dataset, data.data_dir)
        return
    from hocslm_jax.data.prepare.command import build_dataset

    build_dataset(data.dataset, data.data_dir)
