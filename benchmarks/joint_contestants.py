"""The contestants of `benchmarks.joint_speed`: our joint train step (strategy T3) and PyTorch's.

In: a `Case`. Out: the input of `encoder.measure`: a train step ready to be timed, no inference, and
facts from two steps. Weights, clips and captions are random; both sides get the same sizes and
inputs.
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import ntu60_xsub
from hocslm_jax.graph import NTU25
from hocslm_jax.models.lm import LMConfig, init_params
from hocslm_jax.plan.planned_step import Step, build_step, traced_flops
from hocslm_jax.train import environment
from hocslm_jax.train.stages import read_stages, stage_config

CLASSES, PROMPT = 60, 8  # NTU RGB+D 60; "Describe the action performed by the person:"
# Contestants of this package are named after their encoder. remat: the language model's layers are
# recomputed in the backward pass, as in training; compile: `torch.compile`.
CONTESTANTS = (
    "ctrgcn",
    "ctrgcn+remat",
    "hglnet",
    "hglnet+remat",
    "torch",
    "torch+remat",
    "torch+compile",
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A contestant and its input."""

    contestant: str
    lm: LMConfig
    batch: int
    tokens: int
    frames: int = 64
    width: int = 64
    stages: tuple[int, ...] = (4, 3, 3)
    dtype: str = "float32"

    @property
    def encoder(self) -> str:
        name = self.contestant.partition("+")[0]
        return "ctrgcn" if name == "torch" else name

    @property
    def remat(self) -> bool:
        return self.contestant.endswith("+remat")

    @property
    def config(self):
        config = ntu60_xsub.get_config(f"batch_size={self.batch},encoder={self.encoder}")
        config.model.update(width=self.width, stages=self.stages, dtype=self.dtype)
        config.data.frames = self.frames
        config.lm.update(max_tokens=self.tokens, dtype=self.dtype)
        return config

    def step(
        self, device: jax.Device, losses: tuple[str, ...] = ("cls", "gen"), attention=None
    ) -> Step:
        """The second stage of T3, with language, on one device."""
        config = stage_config(self.config, 1)
        config.lm.remat = self.remat
        stage = dataclasses.replace(read_stages(config)[1], losses=losses)
        return build_step(config, [device], self.lm, stage, attention)


def needed_flops(case: Case, device: jax.Device) -> float:
    """FLOPs of one step without recomputation, as in the definition of MFU.

    Frozen weights have no gradient, so their products cost two passes instead of three.
    """
    encoder = traced_flops(case.step(device, ("cls",), "xla"))
    lm, positions = case.lm, case.batch * (PROMPT + case.tokens)
    heads, groups = lm.num_heads * lm.head_dim, lm.num_kv_heads * lm.head_dim
    width = 2 * heads + 2 * groups + 3 * lm.intermediate_size
    linear = 2.0 * positions * lm.num_layers * lm.hidden_size * width
    attention = 4.0 * positions * lm.num_layers * (PROMPT + case.tokens) * heads
    head = 2.0 * case.batch * case.tokens * lm.vocab_size * lm.hidden_size
    return encoder + 2 * (linear + head) + 3 * attention


def random_batch(case: Case) -> dict[str, np.ndarray]:
    """x [B, M, T, V, 3], labels, and captions of full length."""
    rng, clips = np.random.default_rng(0), case.batch
    shape = (clips, 2, case.frames, NTU25.num_joints, 3)
    return {
        "x": rng.standard_normal(shape, np.float32),
        "label": rng.integers(CLASSES, size=clips, dtype=np.int32),
        "mask": np.ones(clips, np.float32),
        "tokens": rng.integers(case.lm.vocab_size, size=(clips, case.tokens), dtype=np.int32),
        "lengths": np.full(clips, case.tokens, np.int32),
    }


def random_weights(made: Step):
    """(state, language model) for a step, with its shardings."""

    def fill(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jnp.zeros(leaf.shape, leaf.dtype)

    state, rng = jax.tree.map(fill, made.state), np.random.default_rng(1)
    draw = lambda leaf: jnp.asarray(0.1 * rng.standard_normal(leaf.shape, np.float32))  # noqa: E731
    language = jax.jit(
        functools.partial(init_params, made.lm, dtype=made.config.lm.dtype),
        out_shardings=jax.tree.map(lambda leaf: leaf.sharding, made.frozen["lm"]),
    )
    return state.replace(params=jax.tree.map(draw, state.params)), language(jax.random.key(0))


def compile_step(case: Case) -> tuple[Step, jax.stages.Compiled]:
    """The step of this package on the first device, compiled as in training."""
    made = case.step(jax.devices()[0])
    return made, made.lower().compile()


def build_ours(case: Case):
    """(train step, a placeholder, facts)."""
    environment.keep_memory()
    start = time.perf_counter()
    made, compiled = compile_step(case)
    state, language = random_weights(made)
    box, batch = [state], jax.device_put(random_batch(case))

    def train():
        box[0], _, finite = compiled(box[0], {"lm": language}, batch)
        finite.block_until_ready()

    train()
    first = time.perf_counter() - start
    train()
    return train, nothing, known(first, jax.devices()[0].device_kind)


def build_theirs(case: Case):
    """The same of PyTorch: eager, or with `torch.compile`."""
    import torch

    from benchmarks import torch_joint

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, which is JAX's default
    start, config = time.perf_counter(), stage_config(case.config, 1)
    blocks = torch_joint.stages(case.width, case.stages)
    net = torch_joint.CTRGCN(NTU25, CLASSES, 2, stages=blocks)
    model = torch_joint.Joint(net, config.lm.projector_width, case.lm.hidden_size, PROMPT)
    language = torch_joint.random_language(case.lm, case.dtype, device)
    language = torch_joint.freeze(language, case.remat)
    if case.contestant.endswith("+compile"):
        model.compile()
        language.compile()
    batch = torch_joint.to_torch(random_batch(case), device)
    step = torch_joint.make_step(model.to(device), language, batch, config)

    def train():
        step()
        torch_joint.finish(device)

    train()
    first = time.perf_counter() - start
    train()
    if device == "cpu":
        return train, nothing, known(first, device)
    peak = torch.cuda.max_memory_allocated()
    return train, nothing, known(first, torch.cuda.get_device_name(), peak)


def nothing() -> None:
    """Placeholder for the inference that `encoder.measure` also times."""


def known(first: float, device: str, peak: int | None = None) -> dict:
    """Facts about a contestant after two steps."""
    peak = environment.peak_memory_bytes() if peak is None else peak
    return {"first_step_s": first, "device": device, "peak_bytes": peak}


def build(case: Case):
    """A contestant, or the reason why it cannot run: no PyTorch, or too little memory."""
    theirs = case.contestant.startswith("torch")
    try:
        return (build_theirs if theirs else build_ours)(case)
    except ImportError as error:
        reason = f"{error}: pip install torch transformers" if theirs else str(error)
    except RuntimeError as error:  # out of memory, in either framework
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return nothing, nothing, {"error": reason}
