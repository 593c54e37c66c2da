"""Starts a stage with a projector that is fitted to captions (`lm.projector_init=captions`).

In: a `Run` with language and the weights that it takes. Out: these and the projector's.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.hosts import say
from hocslm_jax.language.align import CLIPS, fitted, word_targets
from hocslm_jax.language.describe import by_row
from hocslm_jax.language.open import Language
from hocslm_jax.models.encoder import with_feature, with_features
from hocslm_jax.models.hocslm import Projector
from hocslm_jax.train.setup import Run
from hocslm_jax.train.stages import Stage


def wanted(config, stage: Stage) -> bool:
    """Whether the projector of a stage is fitted: it starts anew, and captions train it."""
    new = "projector" in stage.train and "projector" not in stage.take
    return new and "gen" in stage.losses and config.lm.projector_init == "captions"


def check(config, stages: Sequence[Stage]) -> None:
    """Raises UserError where a projector would be fitted to features of an untrained encoder."""
    if any(wanted(config, stage) and "encoder" not in stage.take for stage in stages):
        raise UserError(
            "lm.projector_init=captions needs a trained encoder, and here the projector starts "
            "beside an untrained one: use strategy T1 or T3, or lm.projector_init=random"
        )


def beginning(
    run: Run, language: Language | None, initial: Callable[[], dict]
) -> Callable[[], dict]:
    """Returns what gives the weights that a new run starts from: `initial`, or with a projector."""
    if not wanted(run.config, run.stage):
        return initial
    return functools.partial(with_projector, run, language, initial)


def with_projector(run: Run, language: Language, initial: Callable[[], dict]) -> dict:
    """The weights of `strategy.initial_weights` and a projector, see `language.align`."""
    say("fitting the projector to the captions of training clips")
    taken, lm = initial(), run.config.lm
    start = run.init(jax.random.key(run.config.seed), taken)
    variables = {"params": start.fixed | start.params, "batch_stats": start.batch_stats}

    def read(variables, x):  # what the projector reads, [B, D] or [B, V D]
        if lm.projector_reads == "joints":
            return with_features(run.model, variables, x)[1].reshape(len(x), -1)
        return with_feature(run.model, variables, x)[1]

    found = by_row(run.outputs(read, variables), run.test_batches(CLIPS, split="train"))
    inputs, rows = np.stack(list(found.values())), np.array(list(found))
    fusion = run.model.fusion
    projector = Projector(fusion.lm_width, fusion.width, fusion.gain)
    random = projector.init(jax.random.key(run.config.seed), inputs[:1])["params"]
    targets = word_targets(language, run.captions, rows, run.mesh)
    return taken | {"params": taken["params"] | {"projector": fitted(inputs, targets, random)}}
