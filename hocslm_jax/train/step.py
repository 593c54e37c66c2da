"""One update of the weights. Edit this file to add a training objective.

An objective is `(params, batch_stats, frozen, batch, rng) -> (loss, (batch_stats, metrics))`; the
step differentiates it only with respect to the trained groups of `params`. `frozen` holds the
language model, or is `{}`. All functions are pure and run under one `jit`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from hocslm_jax import losses
from hocslm_jax.models import packing
from hocslm_jax.models.hocslm import caption_states
from hocslm_jax.models.lm import DecoderLM, head_matrix
from hocslm_jax.models.packing import Grid
from hocslm_jax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """`config.loss`.

    Attributes:
      cls, gen: weights of the two losses (eq. 14); the paper gives no values. The caption
        loss is a mean over words, most of which follow from the words before, so that its gradient
        at the encoder is the smaller one even at gen=1: compare `train/grad_norm_gen` with
        `train/grad_norm_cls` in metrics.jsonl.
      smoothing: share of the target that is spread over all classes (label smoothing).
      mixup: alpha of mixup's Beta(alpha, alpha); 0 = off. Captions cannot be mixed.
    """

    cls: float = 1.0
    gen: float = 1.0
    smoothing: float = 0.0
    mixup: float = 0.0


def classify(
    model: nn.Module,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    distill: float = 0.0,
    temperature: float = 1.0,
    *,
    train_encoder: bool = True,
) -> Callable:
    """Strategy T0: cross-entropy on the class logits.

    Args:
        smoothing: label smoothing, see `losses.classification`.
        mixup: alpha of `losses.mixup`; 0 = off.
        distill: share of the loss that is to follow the batch's `teacher`, whose probabilities are
            of this temperature; 0 = off.
        train_encoder: False keeps the BatchNorm statistics and turns dropout off.
    """

    def objective(params, batch_stats, frozen, batch, rng):
        del frozen
        x, label, mixed, teacher = batch["x"], batch["label"], None, None
        if distill:
            teacher = losses.Teacher(batch["teacher"], temperature, distill)
        if mixup:
            rng, key = jax.random.split(rng)
            x, mixed = losses.mixup(key, x, label, mixup)
        variables = {"params": params, "batch_stats": batch_stats}
        logits, updated = model.apply(
            variables, x, train=train_encoder, mutable=["batch_stats"], rngs={"dropout": rng}
        )
        loss, metrics = losses.classification(
            logits, label, batch["mask"], smoothing, mixed, teacher
        )
        return loss, (updated.get("batch_stats", {}), metrics)

    return objective


def describe(
    model: nn.Module,
    lm: DecoderLM,
    weights: Mapping[str, float],
    *,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    train_encoder: bool = True,
    chunk: int = 16,
    grid: Grid | None = None,
    place: Callable | None = None,
) -> Callable:
    """The strategies with a language model: L = cls L_cls + gen L_gen (eq. 14).

    Args:
        model: a `HocSLM`.
        lm: the language model with the parameters `frozen["lm"]`, which get no gradient.
        weights: weights of "cls" and "gen"; a loss with weight 0 is not computed.
        smoothing, mixup: as in `classify`; mixup is for stages without "gen", since captions cannot
            be blended.
        train_encoder: False keeps the BatchNorm statistics and turns dropout off.
        chunk: number of caption positions whose logits are in memory at a time.
        grid: the layout of examples packed into shared rows; None gives each its own row.
        place: constrains the sharding of the prefixes [B, 1 + P, H] before the language model.
    """

    mixup = mixup if weights["cls"] and not weights["gen"] else 0.0

    def objective(params, batch_stats, frozen, batch, rng):
        x, label, mixed = batch["x"], batch["label"], None
        if mixup:
            rng, key = jax.random.split(rng)
            x, mixed = losses.mixup(key, x, label, mixup)
        variables = {"params": params, "batch_stats": batch_stats}
        (logits, prefix), updated = model.apply(
            variables | ({"meters": batch["meters"]} if "meters" in batch else {}),
            x,
            train=train_encoder,
            mutable=["batch_stats"],
            rngs={"dropout": rng},
        )
        total, metrics = jnp.float32(0), {}
        if weights["cls"]:
            loss, metrics = losses.classification(logits, label, batch["mask"], smoothing, mixed)
            total += weights["cls"] * loss
        if weights["gen"]:
            prefix = place(prefix) if place else prefix
            loss, more = caption_loss(lm, frozen["lm"], prefix, batch, chunk, grid)
            total, metrics = total + weights["gen"] * loss, metrics | more
        return total, (updated.get("batch_stats", {}), metrics)

    return objective


def caption_loss(
    lm: DecoderLM, params: dict, prefix: jax.Array, batch: dict, chunk: int, grid=None
):
    """`losses.caption` of a batch's captions after prefixes [B, 1 + P, H]; see `describe`.

    A batch that does not fit the grid, which is rare, is processed unpacked, so nothing is left
    out. With a grid, only the gradient with respect to `prefix` exists, and it is always computed.
    """
    tokens, lengths, head = batch["tokens"], batch["lengths"], head_matrix(params)

    def whole(prefix):
        counts = jnp.arange(tokens.shape[1]) < lengths[:, None]  # [B, L], EOS counts too
        hidden = caption_states(lm, params, prefix, tokens)
        return losses.caption(hidden, head, tokens, counts * batch["mask"][:, None], chunk)

    if grid is None:
        return whole(prefix)
    places = packing.assign(lengths, prefix.shape[1] - 1, grid)
    fits = (places >= 0).all()

    def packed(prefix):
        read = packing.packed_states(lm, params, prefix, tokens, lengths, places, grid)
        clips = batch["mask"].reshape(grid.shards, -1)
        mask = jnp.take_along_axis(clips, read.example, axis=1) * read.real
        # As many logits at a time as unpacked, in equal parts.
        parts = -(-mask.shape[1] // (chunk * places.shape[1]))
        return losses.caption(read.hidden, head, read.tokens, mask, -(-mask.shape[1] // parts))

    # Each branch computes its own gradient; otherwise each would reserve memory for the residuals
    # of the other. The last term is 0 and passes the gradient on.
    branches = (jax.value_and_grad(way, has_aux=True) for way in (packed, whole))
    here = jax.lax.stop_gradient(prefix)
    (loss, metrics), slope = jax.lax.cond(fits, *branches, here)
    metrics |= {"packed": (fits.astype(jnp.float32), jnp.float32(1))}
    return loss + jnp.vdot(slope, prefix - here), metrics


def make_train_step(
    objective: Callable,
    tx: optax.GradientTransformation,
    ema_decay: float = 0.0,
    meters: Sequence[str] = (),
) -> Callable:
    """`(state, frozen, batch) -> (state, metrics, finite)`.

    Args:
        meters: losses of `hocslm.METERS` whose gradient at the encoder's features is logged: the
            norm over the batch, including the loss's weight, as `grad_norm_NAME`.

    `metrics` are (sum, count) pairs on the device. If the loss or a gradient is not finite,
    `finite` is False and the new state must not be used.
    """

    def train_step(state: TrainState, frozen: dict, batch: dict):
        rng = jax.random.fold_in(state.rng, state.step)

        def loss_of(params, zeros):
            seen = batch | ({"meters": zeros} if meters else {})
            return objective({**state.fixed, **params}, state.batch_stats, frozen, seen, rng)

        differentiated = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        zeros = dict.fromkeys(meters, jnp.float32(0))
        (loss, (batch_stats, metrics)), (grads, squares) = differentiated(state.params, zeros)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            mean = optax.incremental_update(params, ema["params"], 1 - ema_decay)
            # Averaged weights need their own BatchNorm statistics, since their activations differ
            # from those of the trained weights. This costs a forward pass per step.
            seen = objective({**state.fixed, **mean}, ema["batch_stats"], frozen, batch, rng)
            ema = {"params": mean, "batch_stats": seen[1][0]}
        grad_norm = optax.tree.norm(grads)
        norms = {"": grad_norm} | {f"_{name}": jnp.sqrt(squares[name]) for name in meters}
        metrics |= {f"grad_norm{name}": (norm, jnp.float32(1)) for name, norm in norms.items()}
        state = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=ema,
        )
        return state, metrics, jnp.isfinite(loss) & jnp.isfinite(grad_norm)

    return train_step
