"""Ensembles of models: weights, the weighted sum, and the rows of the paper's Table 7.

In: `Member`s whose clips are matched (`score_files`). Out: `Scores` of an ensemble, weights, or a
count per ensemble and seed. Published ensembles sum raw logits, so that is the default. Summing
probabilities (softmax) makes models whose logits differ in scale comparable.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import scipy  # loads scipy.optimize on first use
from scipy.special import log_softmax, logsumexp, softmax

from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.score_files import Member
from hocslm_jax.evaluate.scores import Scores

# (weight of joint, bone and k2; weight of a motion stream).
# ctrgcn: 0.6 for joint and bone, 0.4 for their motions (ensemble.py of CTR-GCN's repository).
# infogcn: 1.5 for joint, bone and k2, 1 for their motions (ensemble.py of InfoGCN's repository,
#   NTU60 X-Sub).
PRESETS = {"equal": (1.0, 1.0), "ctrgcn": (0.6, 0.4), "infogcn": (1.5, 1.0)}
SPACES = ("logits", "softmax")
RIDGE = 1e-3  # keeps fitted weights finite if all held-out clips are correct
ENSEMBLES = {
    "2 streams": ("joint", "bone"),
    "4 streams": ("joint", "bone", "joint_motion", "bone_motion"),
    "6 streams": PAPER_STREAMS,
}
SINGLES = {stream: (stream,) for stream in PAPER_STREAMS}


def preset_weights(preset: str, members: Sequence[Member]) -> np.ndarray:
    """The weights [S] that a preset gives the members, by their streams.

    Raises:
        UserError: the stream of a member is unknown, and the preset depends on it.
    """
    still, motion = PRESETS[preset]
    if still != motion and (unknown := [m.name for m in members if not m.stream]):
        raise UserError(
            f"preset {preset} depends on the stream, and that of {unknown[0]} is unknown: write "
            f"e.g. joint={unknown[0]}, or use --preset equal"
        )
    return np.array([motion if m.stream.endswith("_motion") else still for m in members])


def fuse(members: Sequence[Member], weights: Sequence[float], space: str = "logits") -> Scores:
    """Scores of the weighted sum of the members' logits or probabilities."""
    total = np.tensordot(np.asarray(weights, np.float64), _stack(members, space), axes=1)
    return dataclasses.replace(members[0].scores, logits=total.astype(np.float32), parts={})


def average_views(views: Sequence[Scores]) -> Scores:
    """Test-time augmentation: the log of the mean probability over several views of each clip.

    All views must have the same clips in the order of `collect_scores`.
    """
    if any(view.ids != views[0].ids for view in views):
        raise ValueError("the views differ in their clips or their order")
    logs = log_softmax(np.stack([view.logits for view in views]).astype(np.float64), axis=-1)
    mean = logsumexp(logs, axis=0) - np.log(len(views))
    return dataclasses.replace(views[0], logits=mean.astype(np.float32), parts={})


def fit_weights(held_out: Sequence[Member], space: str = "logits") -> np.ndarray:
    """Non-negative weights [S] of mean 1 that minimise the cross-entropy on held-out clips.

    In both spaces the sum is used as logits. The loss is convex, so its minimum is unique.
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

    found = scipy.optimize.minimize(loss, np.ones(members), jac=True, bounds=[(0, None)] * members)
    return found.x / found.x.mean() if found.x.any() else np.ones(members)


def check_held_out(members: Sequence[Member], held_out: Sequence[Member]) -> None:
    """Refuses fitted weights if they used scored clips, or belong to other members.

    Raises:
        UserError: another number or order of streams, or a fitted clip is also scored.
    """
    if len(members) != len(held_out):
        raise UserError(
            f"--fit-on gives {len(held_out)} sets of scores for {len(members)} members: give one "
            "for each, in the same order"
        )
    for member, held in zip(members, held_out, strict=True):
        if member.stream and held.stream and member.stream != held.stream:
            raise UserError(
                f"--fit-on {held.name} has stream {held.stream}, but {member.name} in its place "
                f"has {member.stream}: give both in the same order"
            )
    if both := set(members[0].scores.ids) & set(held_out[0].scores.ids):
        raise UserError(
            f"--fit-on {held_out[0].name} contains {len(both)} of the scored clips, the first "
            f"{min(both)}: fit on held-out training clips, e.g. runs of protocol=xview_val"
        )


def stream_rows(
    members: Sequence[Member], preset: str = "equal", space: str = "logits"
) -> list[dict]:
    """Rows {"row", "seeds", "correct", "total"} of streams and ensembles (the paper's Table 7).

    "correct" has one count per seed. Raises UserError as `stream_scores`.
    """
    return [
        {
            "row": name,
            "seeds": list(by_seed),
            "correct": [scores.correct for scores in by_seed.values()],
            "total": members[0].scores.total,
        }
        for name, by_seed in stream_scores(members, preset, space).items()
    ]


def stream_scores(
    members: Sequence[Member], preset: str = "equal", space: str = "logits"
) -> dict[str, dict[int, Scores]]:
    """{stream or ensemble: {seed: scores}}, for all that the members allow.

    Raises:
        UserError: the stream of a member is unknown, or occurs twice with the same seed.
    """
    found: dict[str, dict[int, Scores]] = {}
    for seed, own in members_by_seed(members).items():
        for name, streams in (SINGLES | ENSEMBLES).items():
            if set(streams) <= set(own):
                parts = [own[stream] for stream in streams]
                fused = fuse(parts, preset_weights(preset, parts), space)
                found.setdefault(name, {})[seed] = fused
    return {name: found[name] for name in SINGLES | ENSEMBLES if name in found}


def add_scores(scores: Iterable[Scores]) -> Scores:
    """Scores of the sum of the logits; the clips must be matched."""
    members = [Member("", one) for one in scores]
    return fuse(members, np.ones(len(members)))


def members_by_seed(members: Sequence[Member]) -> dict[int, dict[str, Member]]:
    """{seed: {stream: member}}, an unknown seed being 0. Raises UserError as `stream_scores`."""
    seeds: dict[int, dict[str, Member]] = {}
    for member in members:
        if member.stream not in PAPER_STREAMS:
            raise UserError(
                f"the stream of {member.name} is {member.stream or 'unknown'}: a table needs one "
                f"of {', '.join(PAPER_STREAMS)}; write e.g. joint={member.name}"
            )
        own = seeds.setdefault(member.seed or 0, {})
        if member.stream in own:
            raise UserError(
                f"{member.name} and {own[member.stream].name} have the same stream and seed: make "
                "one table per model"
            )
        own[member.stream] = member
    return dict(sorted(seeds.items()))


def _stack(members: Sequence[Member], space: str) -> np.ndarray:
    """Logits or probabilities, float64 [S, N, C]."""
    logits = np.stack([member.scores.logits for member in members]).astype(np.float64)
    return softmax(logits, axis=2) if space == "softmax" else logits
