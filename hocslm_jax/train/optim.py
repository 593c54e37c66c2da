"""Optimiser and learning-rate schedule, both functions of the step.

In: `config.optim`, an `Optimizer`, and the number of steps in an epoch. Out: an Optax
transformation and a schedule `step -> learning rate`. SGD is PyTorch's: weight decay is added to
the gradient of every parameter, v <- mu v + g, p <- p - lr (g + mu v) (CTR-GCN protocol).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from hocslm_jax.errors import UserError
from hocslm_jax.sharding import path_name

Schedule = Callable[[jax.Array | int], jax.Array]


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """`config.optim`: the optimiser of stages that train from scratch; CTR-GCN's by default.

    Attributes:
      name: "sgd" (with Nesterov momentum) or "adamw".
      lr: learning rate after the warm-up.
      momentum: of SGD.
      weight_decay: of every parameter, or with `decay_mask` of the matrices in `DECAYED` alone.
      warmup_epochs: epochs in which the learning rate rises.
      schedule: "step" (multiplied by `gamma` at each of `milestones`, in epochs) or "cosine" (down
        to 0).
      ema: decay of the averaged weights, which are then used in evaluation; 0 = off.
      clip_norm: bound of the gradient's norm; 0 = off.
      encoder_scale: factor on the learning rate of the encoder.
    """

    name: str = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_epochs: int = 5
    schedule: str = "step"
    milestones: tuple[int, ...] = (50,)
    gamma: float = 0.1
    decay_mask: bool = False
    ema: float = 0.0
    clip_norm: float = 0.0
    encoder_scale: float = 1.0


@dataclasses.dataclass(frozen=True)
class Finetune:
    """`config.finetune`: the optimiser of stages that start from trained weights or use language.

    The fields are those of `Optimizer`, and `epochs`. The paper states only the weight decay.
    """

    name: str = "adamw"
    lr: float = 3e-4
    weight_decay: float = 0.01
    warmup_epochs: int = 5
    schedule: str = "cosine"
    decay_mask: bool = True
    clip_norm: float = 1.0
    encoder_scale: float = 0.3
    epochs: int = 85


def step_schedule(lr, warmup_epochs, milestones, gamma, steps_per_epoch) -> Schedule:
    """CTR-GCN's schedule: lr (e + 1) / warmup in warm-up epoch e, times gamma at each milestone.

    Constant within an epoch; epochs count from 0.
    """

    def schedule(step):
        epoch = step // steps_per_epoch
        passed = sum((epoch >= m).astype(jnp.float32) for m in map(jnp.int32, milestones))
        warm = (epoch + 1) / max(warmup_epochs, 1)
        return lr * jnp.where(epoch < warmup_epochs, warm, gamma**passed).astype(jnp.float32)

    return schedule


def cosine_schedule(lr, warmup_epochs, epochs, steps_per_epoch) -> Schedule:
    """Linear warm-up by step, then half a cosine down to zero at the last step."""
    warmup, total = warmup_epochs * steps_per_epoch, epochs * steps_per_epoch

    def schedule(step):
        done = (step - warmup) / max(total - warmup, 1)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(done, 0, 1)))
        return lr * jnp.where(step < warmup, (step + 1) / max(warmup, 1), falling)

    return schedule


def make_schedule(optim, epochs: int, steps_per_epoch: int) -> Schedule:
    """The schedule that `config.optim` names. Raises UserError for an unknown name."""
    if optim.schedule == "step":
        args = (optim.lr, optim.warmup_epochs, tuple(optim.milestones), optim.gamma)
        return step_schedule(*args, steps_per_epoch)
    if optim.schedule == "cosine":
        return cosine_schedule(optim.lr, optim.warmup_epochs, epochs, steps_per_epoch)
    raise UserError(f"optim.schedule={optim.schedule!r} is unknown: use 'step' or 'cosine'")


# Matrices that multiply features, by the last word of their names. Other parameters start at
# meaningful values and should not decay to 0: scales and biases, gates and weights of sums, the
# skeleton's graph, the prompt.
DECAYED = ("kernel", "embedding", "query", "key", "value", "distance", "energy", "gate", "expand")


def decay_mask(params) -> dict:
    """True for the matrices of `DECAYED`, of any shape; False for the rest."""
    return jax.tree.map_with_path(
        lambda path, _: path_name(path).rpartition("/")[2] in DECAYED, params
    )


def encoder_mask(params) -> dict:
    """True for the parameters of the encoder."""
    return jax.tree.map_with_path(lambda path, _: path_name(path).startswith("encoder/"), params)


def make_optimizer(optim, schedule: Schedule) -> optax.GradientTransformation:
    """SGD with Nesterov momentum or AdamW. Raises UserError for an unknown name.

    The gradient norm is clipped before weight decay, like `clip_grad_norm_` before PyTorch's step.
    """
    mask = decay_mask if optim.decay_mask else None
    clip = optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity()
    slow = optax.identity()
    if optim.encoder_scale != 1:
        slow = optax.masked(optax.scale(optim.encoder_scale), encoder_mask)
    if optim.name == "sgd":
        decay = optax.add_decayed_weights(optim.weight_decay, mask)
        sgd = optax.sgd(schedule, optim.momentum, nesterov=True)
        return optax.chain(clip, decay, sgd, slow)
    if optim.name == "adamw":
        adamw = optax.adamw(schedule, weight_decay=optim.weight_decay, mask=mask)
        return optax.chain(clip, adamw, slow)
    raise UserError(f"optim.name={optim.name!r} is unknown: use 'sgd' or 'adamw'")
