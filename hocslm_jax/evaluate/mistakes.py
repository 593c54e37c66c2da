"""The clips that a classifier gets wrong: which, taken for what, and how narrowly.

In: `Scores`, and the members of the ensemble they come from. Out: a plain dict for JSON, and the
same as Markdown.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from hocslm_jax.evaluate.classification import Scores
from hocslm_jax.evaluate.score_files import Member


def mistakes(scores: Scores, members: Sequence[Member] = ()) -> dict:
    """Wrong clips and, by frequency, which class was taken for which.

    Returns:
        {"clips": [{"clip", "true", "predicted", "rank", "probability", "members_right"}],
        "confusions": [{"true", "predicted", "clips", "of"}]}. `rank` is the place of the true
        class, 2 being the second; `probability` the true class's, the mean over the members (over
        `scores` where there are none); `of` the number of clips of the true class.
    """
    names = class_names(scores)
    wrong = np.flatnonzero(scores.ranks > 0)
    parts = [member.scores for member in members] or [scores]
    shares = np.mean([softmax(one.logits[wrong].astype(float), axis=1) for one in parts], axis=0)
    right = np.array([member.scores.ranks < 1 for member in members], bool)
    predictions, clips, confusions = scores.predictions, [], {}
    for row, share in zip(wrong, shares, strict=True):
        true, predicted = int(scores.labels[row]), int(predictions[row])
        clip = {
            "clip": scores.ids[row],
            "true": names[true],
            "predicted": names[predicted],
            "rank": int(scores.ranks[row]) + 1,
            "probability": round(float(share[true]), 4),
        }
        if members:
            clip["members_right"] = int(right[:, row].sum())
        clips.append(clip)
        confusions.setdefault((true, predicted), []).append(scores.ids[row])
    ordered = sorted(confusions.items(), key=lambda item: (-len(item[1]), item[0]))
    totals = np.bincount(scores.labels, minlength=len(names))
    table = [
        {
            "true": names[true],
            "predicted": names[predicted],
            "clips": ids,
            "of": int(totals[true]),
        }
        for (true, predicted), ids in ordered
    ]
    return {"clips": clips, "confusions": table}


def markdown(found: dict, members: int = 0, most: int = 20) -> list[str]:
    """Two tables: confusions by frequency, and the `most` wrong clips least narrowly missed."""
    lines = ["| true class | taken for | clips | of |", "| --- | --- | ---: | ---: |"]
    for row in found["confusions"]:
        lines.append(f"| {row['true']} | {row['predicted']} | {len(row['clips'])} | {row['of']} |")
    worst = sorted(found["clips"], key=lambda row: row["probability"])
    head = ["clip", "true class", "taken for", "true class ranks", "its mean probability"]
    if members:
        head.append(f"members right, of {members}")
    lines += ["", "| " + " | ".join(head) + " |", "| --- " * 3 + "| ---: " * (len(head) - 3) + "|"]
    for row in worst[:most]:
        cells = [row["clip"], row["true"], row["predicted"], f"{row['rank']}."]
        cells += [f"{row['probability']:.2f}"]
        cells += [str(row["members_right"])] if members else []
        lines.append("| " + " | ".join(cells) + " |")
    if len(worst) > most:
        lines.append(f"\n{len(worst) - most} more wrong clips are not listed.")
    return lines


def class_names(scores: Scores) -> tuple[str, ...]:
    """The classes' names, or their numbers where these are not known."""
    return scores.classes or tuple(f"class {label}" for label in range(scores.logits.shape[1]))
