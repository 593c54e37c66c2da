"""Losses: pure functions from a model's outputs to the objective and the logged metrics.

In: logits or hidden states, the batch's targets and mask. Out: `(scalar, {name: (sum, count)})`;
sums and counts add up over steps and hosts, and are divided only when a metric is shown.
`L = cls * classification + gen * caption` is eq. 14 of HocSLM.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Metrics = dict[str, tuple[jax.Array, jax.Array]]


class Mixed(NamedTuple):
    """How `mixup` blended a batch: the weight of each original clip (a scalar), and the labels [B]
    of the clips mixed in."""

    share: jax.Array
    label: jax.Array


class Teacher(NamedTuple):
    """Another model's output for a batch: probabilities [B, C] of its logits / `temperature`.

    The loss term is T^2 KL(teacher || student), both at temperature T; T^2 keeps the scale of its
    gradient independent of T (Hinton et al. 2015, section 2). In a mixed batch, the
    probabilities are blended like the clips.
    """

    probabilities: jax.Array
    temperature: float
    share: float  # weight of its term in the loss


def classification(
    logits: jax.Array,
    label: jax.Array,
    mask: jax.Array,
    smoothing: float = 0.0,
    mixed: Mixed | None = None,
    teacher: Teacher | None = None,
) -> tuple[jax.Array, Metrics]:
    """Mean cross-entropy over the real clips of a batch (CTR-GCN's only loss).

    With a teacher: (1 - share) * cross-entropy + share * the teacher's term.

    Args:
        logits: float32 [B, C].
        label: int32 [B].
        mask: float32 [B]; 1 for a clip, 0 for padding.
        smoothing: share of the target distribution that is uniform over all classes.
        mixed: how `mixup` blended the batch; `top1` then uses the label of the larger part.

    Returns:
        The mean, and the metrics `loss`, `top1` and, with a teacher, `teacher` as (sum, count).
    """
    logits = logits.astype(jnp.float32)
    losses = _cross_entropy(logits, label, smoothing)
    if mixed is not None:
        other = _cross_entropy(logits, mixed.label, smoothing)
        losses = mixed.share * losses + (1 - mixed.share) * other
    count, metrics = mask.sum(), {}
    if teacher is not None:
        distance = _distance(logits, teacher, mixed)
        losses = (1 - teacher.share) * losses + teacher.share * distance
        metrics["teacher"] = ((distance * mask).sum(), count)
    total = (losses * mask).sum()
    correct = ((logits.argmax(-1) == label) * mask).sum()
    metrics |= {"loss": (total, count), "top1": (correct, count)}
    return total / jnp.maximum(count, 1.0), metrics


def mixup(rng: jax.Array, x: jax.Array, label: jax.Array, alpha: float) -> tuple[jax.Array, Mixed]:
    """Mixes the clips of a batch with those of the reversed batch (Zhang et al. 2018).

    The weight of the original clip is drawn from Beta(alpha, alpha) once per batch, and is at least
    0.5. Batches are in random order, so the reversed batch gives random partners without a gather
    between devices.
    """
    share = jax.random.beta(rng, alpha, alpha)
    share = jnp.maximum(share, 1 - share).astype(x.dtype)
    return _blend(share, x), Mixed(share, label[::-1])


def _blend(share: jax.Array, a: jax.Array) -> jax.Array:
    return share * a + (1 - share) * a[::-1]


def _distance(logits: jax.Array, teacher: Teacher, mixed: Mixed | None) -> jax.Array:
    """T^2 KL(teacher || student) of each clip [B]."""
    target, temperature = teacher.probabilities, teacher.temperature
    if mixed is not None:
        target = _blend(mixed.share, target)
    import optax  # in functions, since prediction does not need it

    student = jax.nn.log_softmax(logits / temperature)
    return temperature**2 * optax.losses.kl_divergence(student, target)


def _cross_entropy(logits: jax.Array, label: jax.Array, smoothing: float) -> jax.Array:
    import optax

    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    if not smoothing:
        return losses
    return (1 - smoothing) * losses - smoothing * jax.nn.log_softmax(logits).mean(-1)


def caption(
    hidden: jax.Array, head: jax.Array, tokens: jax.Array, mask: jax.Array, chunk: int
) -> tuple[jax.Array, Metrics]:
    """Mean cross-entropy over the caption tokens and EOS of a batch (L_gen of eq. 14).

    The paper sums over the tokens; a mean makes the weight independent of their number.

    Args:
        hidden: [B, L, H]; the state at position t predicts token t.
        head: [V, H], the language model's output matrix.
        tokens: int32 [B, L], right-padded.
        mask: float32 [B, L]; 1 for a token that counts.
        chunk: positions whose logits are in memory at the same time.

    Returns:
        The mean, and `caption_loss` and `caption_top1` as (sum, count).
    """
    nll, correct = token_scores(hidden, head, tokens, chunk)
    total, count = (nll * mask).sum(), mask.sum()
    metrics = {"caption_loss": (total, count), "caption_top1": ((correct * mask).sum(), count)}
    return total / jnp.maximum(count, 1.0), metrics


def token_scores(
    hidden: jax.Array, head: jax.Array, tokens: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """-log p of every token, and whether it was the likeliest: two float32 [B, L].

    The B x L x V logits are never in memory at once: a scan computes `chunk` positions at a time,
    and the backward pass recomputes them. Chunks are cut along L and not along the
    flattened B * L, so that each holds a share of every device's clips, without any gather.
    """
    batch, length, width = hidden.shape
    chunk = min(chunk, length) or length
    steps = -(-length // chunk)
    spare = steps * chunk - length
    hidden = jnp.pad(hidden, ((0, 0), (0, spare), (0, 0)))
    padded = jnp.pad(tokens, ((0, 0), (0, spare)))

    @jax.checkpoint
    def scores(hidden, tokens):
        logits = word_logits(hidden, head.astype(hidden.dtype))
        target = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
        nll = jax.nn.logsumexp(logits, axis=-1) - target
        return nll, jax.lax.stop_gradient(logits.max(axis=-1) <= target).astype(jnp.float32)

    parts = (
        hidden.reshape(batch, steps, chunk, width).swapaxes(0, 1),
        padded.reshape(batch, steps, chunk).swapaxes(0, 1),
    )
    scan = jax.lax.scan(lambda _, part: (None, scores(*part)), None, parts)[1]  # [steps, B, chunk]
    nll, correct = (a.swapaxes(0, 1).reshape(batch, -1)[:, :length] for a in scan)
    return nll, correct


@jax.custom_vjp
def word_logits(hidden: jax.Array, words: jax.Array) -> jax.Array:
    """hidden [B, T, H] and words [V, H] of one type -> float32 logits [B, T, V].

    The gradient of the logits is rounded to that type as well: in float32, both gradients would be
    slow float32 products, and need a float32 copy of the vocabulary.
    """
    return jnp.einsum("bth,vh->btv", hidden, words, preferred_element_type=jnp.float32)


def _word_logits_forward(hidden, words):
    return word_logits(hidden, words), (hidden, words)


def _word_logits_backward(saved, grad):
    hidden, words = saved
    grad = grad.astype(hidden.dtype)
    return jnp.einsum("btv,vh->bth", grad, words), jnp.einsum("btv,bth->vh", grad, hidden)


word_logits.defvjp(_word_logits_forward, _word_logits_backward)
