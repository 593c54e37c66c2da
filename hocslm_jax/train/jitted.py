"""The jitted programs of a run: shardings of arguments, and gathering of split weights.

In: an update, a model and a language model, which are independent of devices. Out: the jitted step,
prediction and likelihoods, and a language model that gathers the split weights of its layers.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

from hocslm_jax import sharding
from hocslm_jax.language.describe import log_likelihoods
from hocslm_jax.language.open import Language
from hocslm_jax.models import HocSLM
from hocslm_jax.models.lm import DecoderLM
from hocslm_jax.train import stream_axis
from hocslm_jax.train.environment import compiler_options


def jit_step(update: Callable, placed, mesh, language: Language | None) -> Callable:
    """The update, compiled for the mesh; the old state's memory is reused for the new one.

    It spreads the clips over all devices, and gathers the split embeddings and output matrix of the
    language model; `gathering` handles its layers.
    """
    everywhere = sharding.replicated(mesh)
    frozen = {"lm": weight_shardings(language)} if language else {}

    def train_step(state, given, batch):
        given = {"lm": gather_ends(given["lm"], frozen["lm"])} if language else {}
        return update(state, given, batch | {"x": sharding.spread(mesh, batch["x"])})

    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(placed, frozen, None),  # `Run.put` has placed the batch
        out_shardings=(placed, everywhere, everywhere),
        compiler_options=compiler_options(mesh.devices.flat[0].platform),
    )


def gathered(objective: Callable, placed: dict) -> Callable:
    """An objective whose parameters, sharded as in `placed`, are gathered along 'data'."""

    def of_whole(params, *rest):
        return objective(sharding.gather(params, placed), *rest)

    return of_whole


def gather_ends(params: dict, placed: dict) -> dict:
    """A language model's parameters with its embeddings and output matrix gathered along 'data'."""
    ends = {name: value for name, value in params.items() if name != "blocks"}
    return params | sharding.gather(ends, {name: placed[name] for name in ends})


def gathering(language: Language) -> DecoderLM:
    """The language model of a train step, which gathers each layer if `lm.fsdp` splits it."""
    layers = weight_shardings(language).get("blocks", {})
    return language.model.clone(gather=sharding.gather_layer(layers))


def make_likelihoods(language: Language) -> Callable:
    """`(prefix, tokens, lengths) -> log-probabilities` of sentences, see `log_likelihoods`.

    Sentences are as long as in training, so split weights are gathered as in training. Decoding
    does not gather them, because the activations of one token are smaller than a layer's weights.
    """
    lm, placed = gathering(language), weight_shardings(language)

    @jax.jit
    def of_sentences(params, prefix, tokens, lengths):
        return log_likelihoods(lm, gather_ends(params, placed), prefix, tokens, lengths)

    return functools.partial(of_sentences, language.params)


def weight_shardings(language: Language) -> dict:
    return jax.tree.map(lambda leaf: leaf.sharding, language.params)


def make_predict(
    model, mesh, batch_size: int, streams: int = 0, placed: dict | None = None
) -> Callable:
    """`(variables, x of this host) -> global logits [B, C]`, or [B, S, C] of several streams."""
    logits, clips = jit_predict(model, mesh, streams, placed), sharding.input_sharding(mesh)
    return lambda variables, x: logits(variables, sharding.shard_batch(clips, x, batch_size))


def jit_predict(model, mesh, streams: int = 0, placed: dict | None = None) -> Callable:
    """`(variables, x) -> logits` of global arrays, compiled for the mesh.

    Variables that `placed` splits over 'data' are gathered.
    """
    one = functools.partial(class_logits, model)
    of_all = stream_axis.stacked_predict(one, streams, stream_axis.takes_turns(mesh))
    rows = sharding.batch_sharding(mesh)
    options = compiler_options(mesh.devices.flat[0].platform)

    @functools.partial(jax.jit, out_shardings=rows, compiler_options=options)
    def logits(variables, x):
        variables = sharding.gather(variables, placed) if placed else variables
        return of_all(variables, sharding.spread(mesh, x))

    return logits


def class_logits(model, variables: dict, x: jax.Array) -> jax.Array:
    """Logits [B, C] in test mode, for a model with or without a projector."""
    output = model.apply(variables, x, train=False)
    return output[0] if isinstance(model, HocSLM) else output


def compile_step(run):
    """The compiled train step of a `setup.Run` and its FLOPs (one whole batch, all devices)."""
    tokens = None if run.captions is None else run.captions.tokens.shape[1]
    classes = 0 if run.teacher is None else len(run.store.classes)
    batch = abstract_batch(run.config, run.mesh, run.input_shape, tokens, classes)
    frozen = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, p.dtype, sharding=p.sharding), run.frozen
    )
    lowered = run.train_step.lower(run.abstract_state, frozen, batch)
    compiled = lowered.compile()
    # XLA counts a loop's body once, so it would count only one layer of a language model.
    return compiled, None if run.language else flops_of(lowered)


def abstract_batch(
    config, mesh, input_shape: tuple[int, ...], tokens: int | None, classes: int = 0
) -> dict:
    """Shapes, types and shardings of a training batch.

    Args:
        input_shape: (M, T, V, C), or (S, M, T, V, C) of several streams.
        tokens: length of captions; None without captions.
        classes: number of a teacher's classes; 0 without a teacher.
    """
    size = config.train.batch_size
    like = functools.partial(jax.ShapeDtypeStruct, sharding=sharding.batch_sharding(mesh))
    batch = {
        "x": like((size, *input_shape), np.float32, sharding=sharding.input_sharding(mesh)),
        "label": like((size,), np.int32),
        "mask": like((size,), np.float32),
    }
    if tokens is not None:
        batch["tokens"] = like((size, tokens), np.int32)
        batch["lengths"] = like((size,), np.int32)
    if classes:
        batch["teacher"] = like((size, classes), np.float32)
    return batch


def flops_of(lowered) -> float | None:
    """FLOPs of the program before partitioning, counted by XLA; None if it cannot count them."""
    costs = lowered.cost_analysis()
    return float(costs["flops"]) if costs and "flops" in costs else None
