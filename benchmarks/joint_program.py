"""The joint train step (strategy T3) as a compiled program: its bytes, its FLOPs, its promises.

In: a config, a language model's sizes and a device, which need not be here. Out: numbers of one
variant. Nothing runs and no weight exists: the step that training uses is lowered for shapes.
"""

import dataclasses
import math
import re
import time

import jax
import jax.numpy as jnp
import numpy as np

from hocslm_jax import losses, sharding
from hocslm_jax.models.hocslm import caption_states
from hocslm_jax.models.qwen3 import Qwen3Config, head_matrix
from hocslm_jax.plan.step import (
    Step,
    build_step,
    compile_lowered,
    memory,
    nbytes,
    shapes_of,
    traced_flops,
)
from hocslm_jax.train.stages import read_stages, stage_config

CLASSES, PROMPT = 60, 8  # NTU RGB+D 60; "Describe the action performed by the person:"
VARIANTS = {  # rematerialised, chunked
    "plain": (False, False),
    "chunk": (False, True),
    "remat": (True, False),
    "remat+chunk": (True, True),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """The stage of T3 that trains with language, as shapes on one device."""

    config: object
    lm: Qwen3Config
    device: jax.Device
    target: str
    part: str = "joint"  # or "language": the caption loss and its gradient in the prefix

    def step(
        self,
        remat: bool,
        chunk: int,
        terms: tuple[str, ...] = ("cls", "gen"),
        attention: str | None = None,
    ) -> Step:
        config = stage_config(self.config, 1)
        config.lm.update(remat=remat, chunk=chunk)
        if self.part == "language":
            return language_step(self, config, attention)
        stage = dataclasses.replace(read_stages(config)[1], losses=terms)
        return build_step(config, [self.device], self.lm, stage, attention)


def language_step(case: Case, config, attention: str | None) -> Step:
    """What the language model adds to the step: the gradient that the projector receives.

    In the place of the state stands the prefix, in that of its update the prefix's gradient.
    """
    mesh = sharding.make_mesh(1, 1, [case.device])
    rows = sharding.batch_sharding(mesh)
    language = shapes_of(config.lm, case.lm, mesh, attention)
    size, tokens = config.train.batch_size, config.lm.max_tokens
    like = lambda *a: jax.ShapeDtypeStruct(*a, sharding=rows)  # noqa: E731
    captions = {"tokens": like((size, tokens), np.int32), "lengths": like((size,), np.int32)}

    def gradient(prefix, frozen, captions):
        tokens, lengths = captions["tokens"], captions["lengths"]
        mask = jnp.arange(tokens.shape[1]) < lengths[:, None]

        def loss(prefix):
            hidden = caption_states(language.model, frozen["lm"], prefix, tokens)
            head = head_matrix(frozen["lm"])
            return losses.caption(hidden, head, tokens, mask, config.lm.chunk)

        return jax.grad(loss, has_aux=True)(prefix)

    prefix = like((size, 1 + PROMPT, case.lm.hidden_size), np.float32)
    frozen = {"lm": language.params}
    return Step(config, mesh, None, case.lm, jax.jit(gradient), prefix, frozen, captions)


def measure(case: Case, name: str, effort: float = 0.0) -> dict:
    """One variant: sizes, times and promises; without a memory analysis where it does not fit."""
    remat, chunked = VARIANTS[name]
    tokens = case.config.lm.max_tokens
    chunk = case.config.lm.chunk if chunked else tokens
    start = time.perf_counter()
    step = case.step(remat, chunk)
    lowered = step.lower()
    outputs, inputs = (
        {sharding.path_name(path) for path, _ in jax.tree.leaves_with_path(tree)}
        for tree in (lowered.out_info[0], step.state)
    )
    row = {"variant": name, "remat": remat, "chunk": chunk}
    row["bytes"] = {"state": nbytes(step.state), "frozen": nbytes(step.frozen)}
    row["bytes"]["batch"] = nbytes(step.batch)
    row["flops"] = flops(case, remat, chunk)
    row["promises"] = {
        "only_the_state_comes_out": outputs == inputs,
        "no_gradient_of_frozen_weights": row["flops"]["lm_passes_but_remat"] < 2.5,
    }
    traced = time.perf_counter() - start
    compiled, seconds = compile_lowered(lowered, compiler_options(case.target, effort))
    if isinstance(compiled, str):
        return row | {"does_not_fit": compiled}
    row["seconds"] = {"trace": traced, "compile": seconds}
    row["bytes"] |= memory(compiled)
    row["flops"]["xla_compiled_loops_once"] = float(compiled.cost_analysis()["flops"])
    whole = has_logits(
        compiled.as_text(), case.lm.vocab_size, case.config.train.batch_size * tokens
    )
    row["whole_logits_in_program"] = whole
    row["promises"]["whole_logits_only_unchunked"] = whole == (chunk >= tokens)
    return row


def compiler_options(target: str, effort: float) -> dict:
    """Shorter compilations: of a CPU's code, not its buffers, and of a TPU's as asked for."""
    if target == "cpu":
        return {"xla_backend_optimization_level": 0}
    return {"exec_time_optimization_effort": effort} if effort else {}


def has_logits(program: str, vocabulary: int, positions: int) -> bool:
    """Whether any float32 value of the compiled text has a word axis and all positions."""
    for dims in set(re.findall(r"f32\[([\d,]+)\]", program)):
        shape = [int(size) for size in dims.split(",")]
        if vocabulary in shape and math.prod(shape) == vocabulary * positions:
            return True
    return False


def flops(case: Case, remat: bool, chunk: int) -> dict:
    """Of the products as they are written, and by the formula."""
    total, encoder = traced_flops(case.step(remat, chunk, attention="xla")), 0.0
    if case.part == "joint":
        encoder = traced_flops(case.step(remat, chunk, ("cls",), "xla"))
    part = lm_flops(case.lm, case.config.train.batch_size, case.config.lm.max_tokens)
    forward = part["linear"] + part["attention"] + part["head"]
    # The gradient makes no `down` product again: nothing in the block depends on it.
    again = remat * (part["linear"] - part["down"] + part["attention"])
    lm = 2 * part["linear"] + 3 * part["attention"] + 3 * part["head"] + again
    return {
        "products": total,
        "formula": lm + encoder,
        "encoder": encoder,
        "lm_forward": forward,
        "lm_passes": (total - encoder) / forward,
        "lm_passes_but_remat": (total - encoder - again - part["head"]) / forward,
    }


def needed_flops(case: Case) -> float:
    """Of one step without anything computed twice, which is what MFU counts.

    Of frozen weights there is no gradient, so a product with one costs two passes and not three.
    """
    encoder = traced_flops(case.step(False, case.config.lm.chunk, ("cls",), "xla"))
    part = lm_flops(case.lm, case.config.train.batch_size, case.config.lm.max_tokens)
    return encoder + 2 * (part["linear"] + part["head"]) + 3 * part["attention"]


def lm_flops(lm: Qwen3Config, rows: int, tokens: int) -> dict[str, float]:
    """Products of one forward pass, a multiply and an add each; attention over the full square."""
    length = PROMPT + tokens  # the visual token for the last word, which is only a target
    width, heads = lm.hidden_size, lm.num_heads * lm.head_dim
    groups, mlp = lm.num_kv_heads * lm.head_dim, lm.intermediate_size
    positions = rows * length * lm.num_layers
    return {
        "linear": 2.0 * positions * width * (2 * heads + 2 * groups + 3 * mlp),
        "attention": 4.0 * positions * length * heads,
        "down": 2.0 * positions * width * mlp,
        "head": 2.0 * rows * tokens * lm.vocab_size * width,
    }
