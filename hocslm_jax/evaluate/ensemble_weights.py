"""Weights of an ensemble's members, and the weighted sum itself.

In: members with matched clips. Out: one weight each, and fused `Scores`. The published ensembles
sum raw logits, so that is the default; softmax first makes models with other scales comparable.
Presets are fixed in advance; `fit` learns weights on clips that no member was trained on and that
are not scored.
"""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.classification import Scores
from hocslm_jax.evaluate.score_files import Member

# (weight of a pose stream, weight of a motion stream).
# ctrgcn: 0.6 joint, 0.6 bone, 0.4 of either motion, and 1 : 1 for joint and bone alone, as in
#   ensemble.py of CTR-GCN's repository; it has no second-order streams.
# infogcn: 1.5 for each pose, 1 for each velocity of the six k-modes of NTU60 X-Sub, as in
#   ensemble.py of InfoGCN's repository.
PRESETS = {"equal": (1.0, 1.0), "ctrgcn": (0.6, 0.4), "infogcn": (1.5, 1.0)}
SPACES = ("logits", "softmax")
RIDGE = 1e-3  # keeps the scale finite where the held-out clips are all classified right


def preset_weights(preset: str, members: Sequence[Member]) -> np.ndarray:
    """A published rule's weight for each member [S], by its stream.

    Raises:
        UserError: a member of unknown stream, where the preset tells streams apart.
    """
    pose, motion = PRESETS[preset]
    if pose != motion and (unknown := [m.name for m in members if not m.stream]):
        raise UserError(
            f"preset {preset} weighs by stream, and that of {unknown[0]} is not known: write "
            f"joint={unknown[0]} or the like, or use --preset equal"
        )
    return np.array([motion if m.stream.endswith("_motion") else pose for m in members])


def fuse(members: Sequence[Member], weights: Sequence[float], space: str = "logits") -> Scores:
    """Scores of the weighted sum of the members' logits or probabilities."""
    first = members[0].scores
    total = np.tensordot(np.asarray(weights, np.float64), _stack(members, space), axes=1)
    return Scores(first.ids, first.labels, total.astype(np.float32), first.classes)


def fit_weights(held_out: Sequence[Member], space: str = "logits") -> np.ndarray:
    """Non-negative weights [S] of mean 1 that minimise the cross-entropy on held-out clips.

    The sum is taken for logits in both spaces; the loss is convex, its minimum unique.
    """
    stack, labels = _stack(held_out, space), held_out[0].scores.labels  # [S, N, C], [N]
    members, count, _ = stack.shape
    truth = stack[:, np.arange(count), labels]  # [S, N]

    def loss(weights):
        logits = np.tensordot(weights, stack, axes=1)  # [N, C]
        logs = log_softmax(logits, axis=1)
        value = -logs[np.arange(count), labels].mean() + RIDGE * (weights**2).sum()
        slope = (np.exp(logs) * stack).sum(axis=2).mean(axis=1) - truth.mean(axis=1)
        return value, slope + 2 * RIDGE * weights

    found = minimize(loss, np.ones(members), jac=True, bounds=[(0, None)] * members)
    return found.x / found.x.mean() if found.x.any() else np.ones(members)


def check_held_out(members: Sequence[Member], held_out: Sequence[Member]) -> None:
    """Refuses weights fitted on what they are scored on, or to other members.

    Raises:
        UserError: another number or order of streams, or a clip that is also scored.
    """
    if len(members) != len(held_out):
        raise UserError(
            f"--fit-on names {len(held_out)} sets of scores for {len(members)} members: give one "
            "for each, in the same order"
        )
    for member, held in zip(members, held_out, strict=True):
        if member.stream and held.stream and member.stream != held.stream:
            raise UserError(
                f"--fit-on {held.name} is of the stream {held.stream}, but {member.name} in its "
                f"place of {member.stream}: give both in the same order"
            )
    if both := set(members[0].scores.ids) & set(held_out[0].scores.ids):
        raise UserError(
            f"--fit-on {held_out[0].name} holds {len(both)} of the clips that are scored, the "
            f"first {min(both)}: fit on held-out training clips, e.g. runs of protocol=xview_val"
        )


def _stack(members: Sequence[Member], space: str) -> np.ndarray:
    """float64 [S, N, C]."""
    logits = np.stack([member.scores.logits for member in members]).astype(np.float64)
    return softmax(logits, axis=2) if space == "softmax" else logits
