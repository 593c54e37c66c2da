"""The joint train step (strategy T3) as a compiled program: its bytes, its FLOPs, its promises.

In: a config, a language model's sizes and a device, which need not be here. Out: numbers of one
variant. Nothing runs and no weight exists: the step that training uses is lowered for shapes.
"""

import dataclasses
import functools
import math
import re
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies

from hocslm_jax import losses, sharding
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25
from hocslm_jax.models import build_model
from hocslm_jax.models.hocslm import caption_states
from hocslm_jax.models.qwen3 import Qwen3, Qwen3Config, head_matrix, param_shapes
from hocslm_jax.train import checkpoint, optim, setup, state, step
from hocslm_jax.train.language import Language, fusion_config
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

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return sharding.make_mesh(1, 1, [self.device])

    def on(self, device: jax.Device) -> "Case":
        return dataclasses.replace(self, device=device)

    def batch(self) -> dict:
        data, rows = self.config.data, self.config.train.batch_size
        placed = sharding.batch_sharding(self.mesh)
        like = functools.partial(jax.ShapeDtypeStruct, sharding=placed)
        return {
            "x": like((rows, data.num_persons, data.frames, NTU25.num_joints, 3), np.float32),
            "label": like((rows,), np.int32),
            "mask": like((rows,), np.float32),
            "tokens": like((rows, self.config.lm.max_tokens), np.int32),
            "lengths": like((rows,), np.int32),
        }

    def language(self, remat: bool, lm) -> Language:
        """The model without weights: shapes in their places."""
        shapes = param_shapes(self.lm, "bfloat16")
        placed = sharding.tree_shardings(shapes, self.mesh, sharding.lm_rules(lm.fsdp))
        params = checkpoint.abstract(shapes, placed)
        prompt = np.zeros((PROMPT, self.lm.hidden_size), np.float32)
        return Language("shapes only", Qwen3(self.lm, remat=remat), params, None, prompt, 1.0)

    def lower(self, remat: bool, chunk: int, terms: tuple[str, ...] = ("cls", "gen")):
        """(lowered step, abstract state, abstract frozen), built as `setup.build_run` builds."""
        if self.part == "language":
            return self.lower_language(remat, chunk)
        config = stage_config(self.config, 1)
        config.lm.update(remat=remat, chunk=chunk)
        stage = dataclasses.replace(read_stages(config)[1], losses=terms)
        language = self.language(remat, config.lm)
        fusion = fusion_config(config.lm, language, stage.classify_on)
        model = build_model(config.model, graph=NTU25, num_classes=CLASSES, fusion=fusion)
        tx = optim.make_optimizer(config.optim, optim.make_schedule(config.optim, 1, 1))
        batch = self.batch()
        init = state.make_init(model, tx, batch["x"].shape[1:], ema=False, train=stage.train)
        update = step.make_train_step(setup.make_objective(config, stage, model, language), tx)
        with mock.patch.object(
            jax, "default_backend", lambda: "cpu" if self.target == "cpu" else "tpu"
        ):
            abstract = jax.eval_shape(init, jax.random.key(0), {})
            placed = sharding.tree_shardings(abstract, self.mesh)
            abstract = checkpoint.abstract(abstract, placed)
            frozen = {"lm": language.params}
            jitted = setup.jit_step(update, placed, self.mesh, language)
            return jitted.lower(abstract, frozen, batch), abstract, frozen

    def lower_language(self, remat: bool, chunk: int):
        """What the language model adds to the step: the gradient that the projector receives."""
        batch, language = self.batch(), self.language(remat, self.config.lm)
        shape = (*batch["label"].shape, 1 + PROMPT)
        prefix = jax.ShapeDtypeStruct(
            (*shape, self.lm.hidden_size), np.float32, sharding=batch["x"].sharding
        )
        captions = {name: batch[name] for name in ("tokens", "lengths")}

        def gradient(prefix, frozen, captions):
            tokens, lengths = captions["tokens"], captions["lengths"]
            mask = jnp.arange(tokens.shape[1]) < lengths[:, None]

            def loss(prefix):
                hidden = caption_states(language.model, frozen["lm"], prefix, tokens)
                return losses.caption(hidden, head_matrix(frozen["lm"]), tokens, mask, chunk)

            return jax.grad(loss, has_aux=True)(prefix)

        frozen = {"lm": language.params}
        return jax.jit(gradient).lower(prefix, frozen, captions), prefix, frozen


def measure(case: Case, name: str, effort: float = 0.0) -> dict:
    """One variant: sizes, times and promises; without a memory analysis where it does not fit."""
    remat, chunked = VARIANTS[name]
    tokens = case.config.lm.max_tokens
    chunk = case.config.lm.chunk if chunked else tokens
    start = time.perf_counter()
    lowered, trained, frozen = case.lower(remat, chunk)
    outputs, inputs = (
        {sharding.path_name(path) for path, _ in jax.tree.leaves_with_path(tree)}
        for tree in (lowered.out_info[0], trained)
    )
    row = {"variant": name, "remat": remat, "chunk": chunk}
    row["bytes"] = {"state": nbytes(trained), "frozen": nbytes(frozen)}
    row["bytes"]["batch"] = nbytes(case.batch())
    row["flops"] = flops(case, remat, chunk)
    row["promises"] = {
        "only_the_state_comes_out": outputs == inputs,
        "no_gradient_of_frozen_weights": row["flops"]["lm_passes_but_remat"] < 2.5,
    }
    traced = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options(case.target, effort))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"Used [\d.]+\w of [\d.]+\w hbm", str(error))
        return row | {"does_not_fit": used.group() if used else str(error)[:200]}
    row["seconds"] = {"trace": traced - start, "compile": time.perf_counter() - traced}
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


def nbytes(tree) -> int:
    """Of shapes; a key counts as its words."""
    words = lambda leaf: 8 if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else 0  # noqa: E731
    return sum(words(x) or math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def memory(compiled) -> dict:
    """Bytes on the device; the peak is arguments, results that replace none, and temporaries."""
    stats = compiled.memory_analysis()
    arguments, outputs = stats.argument_size_in_bytes, stats.output_size_in_bytes
    shared, temporaries = stats.alias_size_in_bytes, stats.temp_size_in_bytes
    return {
        "arguments": arguments,
        "outputs": outputs,
        "outputs_in_donated": shared,
        "temporaries": temporaries,
        "peak": arguments + outputs - shared + temporaries,
    }


def has_logits(program: str, vocabulary: int, positions: int) -> bool:
    """Whether any float32 value of the compiled text has a word axis and all positions."""
    for dims in set(re.findall(r"f32\[([\d,]+)\]", program)):
        shape = [int(size) for size in dims.split(",")]
        if vocabulary in shape and math.prod(shape) == vocabulary * positions:
            return True
    return False


def flops(case: Case, remat: bool, chunk: int) -> dict:
    """XLA's count and the formula's. XLA counts the body of a loop once, so loops are unrolled."""
    case = case.on(jax.devices("cpu")[0])  # counted before any compilation
    scan = jax.lax.scan
    unrolled = mock.patch.object(
        jax.lax, "scan", lambda *args, **kwargs: scan(*args, **(kwargs | {"unroll": True}))
    )
    with unrolled:
        total, encoder = float(case.lower(remat, chunk)[0].cost_analysis()["flops"]), 0.0
        if case.part == "joint":
            encoder = float(case.lower(remat, chunk, ("cls",))[0].cost_analysis()["flops"])
    part = lm_flops(case.lm, case.config.train.batch_size, case.config.lm.max_tokens)
    forward = part["linear"] + part["attention"] + part["head"]
    # The gradient makes no `down` product again: nothing in the block depends on it.
    again = remat * (part["linear"] - part["down"] + part["attention"])
    lm = 2 * part["linear"] + 3 * part["attention"] + 3 * part["head"] + again
    return {
        "xla": total,
        "formula": lm + encoder,
        "encoder_xla": encoder,
        "lm_forward": forward,
        "lm_passes": (total - encoder) / forward,
        "lm_passes_but_remat": (total - encoder - again - part["head"]) / forward,
    }


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


def open_device(target: str) -> jax.Device:
    """The CPU, or the first chip of a topology such as v5p:1x1x1 that need not be here."""
    if target == "cpu":
        return jax.devices("cpu")[0]
    sides = target.partition(":")[2].split("x")
    try:
        bounds = [int(side) for side in sides] + [1] * (3 - len(sides))
        options = {"chips_per_host_bounds": tuple(bounds)}
        return topologies.get_topology_desc(target, "tpu", **options).devices[0]
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"--target {target}: {said}; give cpu or a TPU like v5e:1x1") from None
