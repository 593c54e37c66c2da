"""The clips that a classifier gets wrong, the classes predicted for them, and the margins.

In: `Scores`, and the members of the ensemble they come from. Out: a plain dict for JSON, and tables
in Markdown.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from hocslm_jax.evaluate.results import markdown_table
from hocslm_jax.evaluate.score_files import Member
from hocslm_jax.evaluate.scores import Scores


def mistakes(scores: Scores, members: Sequence[Member] = ()) -> dict:
    """The wrong clips, and how often each class was confused with which other.

    Returns:
        {"clips": [{"clip", "true", "predicted", "rank", "probability", "members_right"}],
        "confusions": [{"true", "predicted", "clips", "of"}]}, the most frequent first. `rank` is
        the rank of the true class, 2 being the second; `probability` the mean probability that the
        members (without any: `scores`) give it; `of` the number of clips of the true class.
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
        clips.append(clip | ({"members_right": int(right[:, row].sum())} if members else {}))
        confusions.setdefault((true, predicted), []).append(scores.ids[row])
    totals = np.bincount(scores.labels, minlength=len(names)).tolist()
    table = [
        {"true": names[true], "predicted": names[predicted], "clips": ids, "of": totals[true]}
        for (true, predicted), ids in sorted(
            confusions.items(), key=lambda item: (-len(item[1]), item[0])
        )
    ]
    return {"clips": clips, "confusions": table}


def confusion_table(found: dict, most: int = 15, listed: int = 8) -> list[str]:
    """Markdown: the `most` frequent confusions, with the first `listed` clips of each."""
    rows = []
    for row in found["confusions"][:most]:
        more = len(row["clips"]) - listed
        ids = ", ".join(row["clips"][:listed]) + (f" and {more} more" if more > 0 else "")
        rows.append([row["true"], row["predicted"], f"{len(row['clips'])} of {row['of']}", ids])
    return markdown_table(("true class", "predicted", "clips", "which"), rows, left=2)


def clip_table(found: dict, members: int) -> list[str]:
    """Markdown: every wrong clip, those with the lowest probability of the true class first."""
    header = ("clip", "true class", "predicted", "rank of true", "probability of true")
    rows = []
    for row in sorted(found["clips"], key=lambda row: row["probability"]):
        cells = [row["clip"], row["true"], row["predicted"], str(row["rank"])]
        rows.append([*cells, f"{row['probability']:.2f}", f"{row['members_right']} of {members}"])
    return markdown_table((*header, "members right"), rows, left=3)


def class_names(scores: Scores) -> tuple[str, ...]:
    """The names of the classes, or their numbers if these are unknown."""
    return scores.classes or tuple(f"class {label}" for label in range(scores.logits.shape[1]))
