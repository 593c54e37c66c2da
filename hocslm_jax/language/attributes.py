"""Attributes of a clip beyond its class in generated sentences: side, count, size, body part.

In: sentences, and the captions of clips, which give the true values. Out: for each attribute the
number of generated sentences with the true value, and two baselines: the training clips' most
frequent value, and a linear classifier on the visual token.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from hocslm_jax.data.caption_bank import words

_PART = "hand|arm|forearm|elbow|wrist|fist|palm|finger|shoulder|leg|knee|thigh|ankle|heel"
_LEGS = (
    r"foot|feet|legs?|knees?|steps?|stepping|walk\w*|runs?|running|jump\w*|kick\w*|squat\w*|"
    r"crouch\w*|stoop\w*|kneel\w*|sits? down|sitting down|stands? up|standing up|seat"
)
_UPPER = r"hands?|forearms?|arms?|elbows?|wrists?|fists?|palms?|shoulders?|head|trunk|upper body"
_MOTION = "swing|kick|jump|bow|step|motion|movement|gesture"
# Attribute -> value -> pattern in lower-case text without punctuation. The pace is excluded: every
# clip is resized to the same number of frames, so no model can know it.
ATTRIBUTES = {
    "side": {
        side: rf"{side} (\w+ )?(({_PART})s?|foot|feet)(?! side)" for side in ("left", "right")
    },
    "count": {
        "once": "once|one time",
        "twice": "twice|two times",
        "three times": "three times|thrice",
        "four times": "four times",
        "five times": "five times",
    },
    "size": {
        "small": f"(small|slight|tiny) ({_MOTION})",
        "moderate": f"(moderate|medium) ({_MOTION})",
        "big": f"(big|large|huge|wide) ({_MOTION})",
    },
    # A sentence that names the legs is about the whole body, even if it also names other parts.
    "body": {"whole": _LEGS, "upper": rf"^(?!.*\b({_LEGS})\b).*\b({_UPPER})"},
}
_BOTH = re.compile(r"\b(left|right)( \w+)? (and|or)( the)? (left|right)\b")
PROBED = 2000  # most training clips of the linear classifier


def read_attributes(text: str) -> dict[str, str]:
    """The value of each attribute of which a sentence names exactly one value.

    "The left and right hands" names neither side.
    """
    plain, named = _BOTH.sub("both", words(text)), {}
    for attribute, values in _patterns().items():
        found = [value for value, pattern in values.items() if pattern.search(plain)]
        if len(found) == 1:
            named[attribute] = found[0]
    return named


def reword(text: str, rng: np.random.Generator) -> str:
    """Replaces each attribute value in a sentence by a random one.

    So the value cannot be guessed from the other words: "Someone waves the left hand twice."
    becomes "Someone waves the right hand four times."
    """
    for attribute, value in read_attributes(text).items():
        other = str(rng.choice(list(ATTRIBUTES[attribute])))
        changed = re.sub(rf"\b{value}\b", other, text)
        if read_attributes(changed).get(attribute) == other:
            text = changed
    return text


def read_facts(captions: Mapping[int, Iterable[str]]) -> dict[int, dict[str, str]]:
    """The attribute values of each clip on which all captions that name one agree."""
    facts = {}
    for row, sentences in captions.items():
        named = [read_attributes(text).items() for text in sentences]
        pairs = {pair for items in named for pair in items}
        times = Counter(attribute for attribute, _ in pairs)
        facts[row] = {attribute: value for attribute, value in pairs if times[attribute] == 1}
    return facts


def score_attributes(
    descriptions: Mapping[int, str],
    facts: Mapping[int, Mapping[str, str]],
    tokens: Mapping[int, np.ndarray],
    train: Iterable[int],
) -> dict[str, dict[str, int]]:
    """Counts the described clips whose sentence names the true value of each attribute.

    Args:
      descriptions: row of a described clip -> its sentence.
      facts: from `read_facts`; rows without an entry are not counted.
      tokens: row -> its visual token [H], for the described clips and those in `train`.
      train: rows of training clips, on which the baselines are fitted.

    Returns:
      For each attribute with at least two values among the training clips and one among the
      described clips: `total`, the described clips whose value is known; of these, the sentences
      that are `correct`, `wrong` or `unnamed` (no value, or several); the clips of `majority`, the
      training clips' most frequent value; and the clips that `probe`, the linear classifier, gets
      right.
    """
    scores = {}
    for attribute in ATTRIBUTES:
        known = [row for row in train if attribute in facts.get(row, {})]
        described = [row for row in descriptions if attribute in facts.get(row, {})]
        values = Counter(facts[row][attribute] for row in known)
        if not described or len(values) < 2:
            continue
        truth = [facts[row][attribute] for row in described]
        named = [read_attributes(descriptions[row]).get(attribute) for row in described]
        names, labels = np.unique([facts[row][attribute] for row in known], return_inverse=True)
        seen, new = (np.stack([tokens[row] for row in rows]) for rows in (known, described))
        guessed = names[linear_probe(seen, labels, new)]
        correct, unnamed = sum(map(str.__eq__, truth, (n or "" for n in named))), named.count(None)
        scores[attribute] = {
            "correct": correct,
            "wrong": len(described) - correct - unnamed,
            "unnamed": unnamed,
            "total": len(described),
            "majority": truth.count(max(values, key=values.get)),
            "probe": int((guessed == np.array(truth)).sum()),
        }
    return scores


def linear_probe(seen: np.ndarray, labels: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Ridge regression of one-hot labels on the features, in closed form.

    Args:
      seen: [N, H], and `labels`: int [N] in 0 ... C - 1, all of them.
      new: [M, H].

    Returns:
      int [M], the likeliest label of each. Leave-one-out accuracy on `seen` chooses the penalty.
    """
    seen, new = np.asarray(seen, np.float64), np.asarray(new, np.float64)
    mean, scale = seen.mean(axis=0), seen.std(axis=0) + 1e-8
    left, size, right = np.linalg.svd((seen - mean) / scale, full_matrices=False)
    target = np.eye(labels.max() + 1)[labels]  # [N, C]
    offset = target.mean(axis=0)
    onto = left.T @ (target - offset)  # [R, C]

    def left_out(penalty: float) -> int:
        shrink = size**2 / (size**2 + penalty)
        own = (left**2 * shrink).sum(axis=1, keepdims=True) + 1 / len(seen)  # [N, 1], leverage
        fitted = offset + left @ (shrink[:, None] * onto)
        rest = (target - fitted) / np.maximum(1 - own, 1e-8)
        return int(((target - rest).argmax(axis=1) == labels).sum())

    best = max(len(seen) * 10.0 ** np.arange(1, -5, -1), key=left_out)
    weights = right.T @ ((size / (size**2 + best))[:, None] * onto)  # [H, C]
    return (offset + (new - mean) / scale @ weights).argmax(axis=1)


def summary_line(scores: Mapping[str, Mapping[str, int]]) -> str:
    """The scores of `score_attributes` as text."""
    return "; ".join(
        f"{name} {s['correct']} of {s['total']} right, {s['wrong']} wrong, "
        f"{s['unnamed']} not named (majority {s['majority']}, probe {s['probe']})"
        for name, s in scores.items()
    )


@functools.cache
def _patterns() -> dict[str, dict[str, re.Pattern]]:
    return {
        attribute: {value: re.compile(rf"\b({form})\b") for value, form in values.items()}
        for attribute, values in ATTRIBUTES.items()
    }
