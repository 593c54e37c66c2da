"""The train step of a config as a program for any devices, without dataset, weights or execution.

In: a config and devices. Out: a `Step`, built by the same functions as training but from shapes
instead of arrays; and the memory of its compiled program.
"""

import dataclasses
import math
import os
import re
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from jax.interpreters import partial_eval

from hocslm_jax import sharding
from hocslm_jax.data import pipeline
from hocslm_jax.data.prepare import nw_ucla, quickstart
from hocslm_jax.data.prepare.ntu.classes import NTU60, NTU120
from hocslm_jax.data.store import FEEDER_OF, Store, open_store
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, UCLA20
from hocslm_jax.language.open import Language, fusion_config, leading_vectors
from hocslm_jax.language.pretrain import lm_config
from hocslm_jax.models import build_model
from hocslm_jax.models.lm import (
    SIZES,
    DecoderLM,
    LMConfig,
    attention_for,
    is_gguf,
    param_shapes,
    read_config,
    resolve,
)
from hocslm_jax.plan.products import product_flops
from hocslm_jax.train import optim, setup
from hocslm_jax.train.check_settings import check_values
from hocslm_jax.train.jitted import abstract_batch
from hocslm_jax.train.stages import Stage, fused, position_of, read_stages

SKELETONS = {  # graph and number of classes of the datasets that `prepare` knows
    "nw_ucla": (UCLA20, len(nw_ucla.CLASSES)),
    "ntu60": (NTU25, len(NTU60)),
    "ntu120": (NTU25, len(NTU120)),
    "ntu120_mini": (NTU25, len(NTU120) - len(NTU60)),
    "quickstart": (NTU25, len(quickstart.CLASSES)),
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One stage's train step over shapes: `jitted(state, frozen, batch)`."""

    config: Any
    mesh: jax.sharding.Mesh
    model: Any
    lm: LMConfig | None
    jitted: Any
    state: Any
    frozen: dict
    batch: dict

    @property
    def platform(self) -> str:
        return self.mesh.devices.flat[0].platform

    def lower(self):
        return self.jitted.lower(self.state, self.frozen, self.batch)


def build_step(
    config,
    devices: Sequence[jax.Device],
    lm: LMConfig | None = None,
    stage: Stage | None = None,
    attention: str | None = None,
) -> Step:
    """The step of one stage, built like `setup.build_run`.

    It assumes the longest captions, `lm.max_tokens` each, and no packing.

    Args:
        config: a result of `stage_config`.
        lm: sizes of the language model; default: the config's.
        stage: default: the config's.
        attention: implementation for the language model; default: the fastest of the devices.

    Raises:
        UserError: as `setup.build_run`, or the sizes of the language model are unknown.
    """
    check_values(config)
    stages = read_stages(config)
    stage = stage or stages[position_of(config)]
    mesh = setup.open_mesh(config, devices)
    store = dataset(config.data)
    feed = pipeline.Feed.from_config(config.data, store)
    graph, num_classes = feed.graph_of(store), len(store.classes)
    language, fusion = None, {}
    if fused(stages, position_of(config)):
        language = shapes_of(config.lm, lm or lm_sizes(config.lm), mesh, attention)
        fusion["fusion"] = fusion_config(config.lm, language, stage.classify_on)
    model = build_model(config.model, graph=graph, num_classes=num_classes, **fusion)
    objective = setup.make_objective(config, stage, model, mesh, language)
    describes = "gen" in stage.losses
    language = language if describes else None
    clip, streams = feed.clip_shape(graph), (len(feed.streams),) if feed.streams else ()
    schedule = optim.make_schedule(config.optim, 1, 1)
    programs = setup.make_programs(config, model, objective, schedule, mesh, clip, language)
    tokens = config.lm.max_tokens if describes else None
    return Step(
        config=config,
        mesh=mesh,
        model=model,
        lm=language and language.model.config,
        jitted=programs["train_step"],
        state=programs["abstract_state"],
        frozen={"lm": language.params} if language else {},
        batch=abstract_batch(
            config, mesh, (*streams, *clip), tokens, num_classes if config.distill.share else 0
        ),
    )


def dataset(data) -> Store | SimpleNamespace:
    """Graph, classes and persons of a known dataset; other datasets must be prepared."""
    if data.dataset not in SKELETONS:
        return open_store(data.dataset, data.data_dir)
    graph, num_classes = SKELETONS[data.dataset]
    return SimpleNamespace(
        graph=graph,
        classes=range(num_classes),
        num_persons=1 if data.dataset == "nw_ucla" else 2,
        feeder=FEEDER_OF.get(data.dataset, ""),
    )


def lm_sizes(lm) -> LMConfig:
    """Sizes of the language model that `config.lm` names or pretrains.

    Raises:
        UserError: the name is neither a known Qwen3 nor a folder.
    """
    if lm.init == "pretrain":
        return lm_config(lm.pretrain, SimpleNamespace(size=lm.pretrain.vocab_size, eos_id=0))
    if is_gguf(lm.name) or os.path.isdir(os.path.expanduser(lm.name)):
        return read_config(resolve(lm.name))
    released = re.search(r"Qwen3-([\d.]+B)", lm.name)
    if not released or released[1] not in SIZES:
        known = ", ".join(f"Qwen3-{size}" for size in SIZES)
        raise UserError(f"lm.name={lm.name!r}: its sizes are unknown; give a folder, or {known}")
    return SIZES[released[1]]


def shapes_of(lm, sizes: LMConfig, mesh, attention: str | None = None) -> Language:
    """The language model placed as by `open_language`, with shapes instead of weights."""
    dtype = lm.dtype or ("bfloat16" if lm.init == "load" else "float32")
    shapes = param_shapes(sizes, dtype, lm.weights)
    placed = sharding.tree_shardings(shapes, mesh, sharding.lm_rules(lm.fsdp))
    words = re.findall(r"\w+|[^\w\s]", lm.prompt)  # a common word is one token
    prompt = np.zeros((leading_vectors(lm) + len(words), sizes.hidden_size), np.float32)
    params = sharding.abstract(shapes, placed)
    attention = attention or attention_for(mesh.devices.flat[0].platform, sizes, dtype)
    model = DecoderLM(sizes, dtype, lm.remat, attention, lm.weights)
    return Language("shapes", model, params, None, prompt, 1.0)


def traced_flops(made: Step) -> float:
    """FLOPs of the products for a whole batch before compilation, without unused products.

    The step must use attention="xla", since products inside cuDNN's kernels are not visible.
    """
    jaxpr = made.jitted.trace(made.state, made.frozen, made.batch).jaxpr.jaxpr
    jaxpr, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return product_flops(jaxpr, made.platform)


def compile_lowered(lowered):
    """(compiled, seconds), or (the compiler's message that it does not fit, seconds)."""
    start = time.perf_counter()
    try:
        return lowered.compile(), time.perf_counter() - start
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"Used [\d.]+\w of [\d.]+\w hbm", str(error))
        return used.group() if used else str(error)[:200], time.perf_counter() - start


def nbytes(tree) -> int:
    """Bytes of sharded shapes on one device, without padding; a random key counts as its words."""

    def one(leaf) -> int:
        key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        width = 8 if key else leaf.dtype.itemsize
        return math.prod(leaf.sharding.shard_shape(leaf.shape)) * width

    return sum(one(leaf) for leaf in jax.tree.leaves(tree))


def memory(compiled) -> dict[str, int]:
    """Bytes on a device; the peak is the sum of arguments, new outputs and temporaries."""
    stats = compiled.memory_analysis()
    sizes = {
        "arguments": stats.argument_size_in_bytes,
        "outputs": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
    }
    return sizes | {
        "peak": sum(sizes.values()),
        "generated_code": stats.generated_code_size_in_bytes,
    }
