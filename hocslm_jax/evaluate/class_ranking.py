"""Ranks classes that were never trained, by numbers alone: no network and no language model here.

In: what these say of clips and sentences, as arrays. Out: a score of every clip and class, the
greatest of which is the answer, and counts of right answers. N clips, C classes, K sentences of a
class, D channels.
"""

from collections.abc import Sequence

import numpy as np

STRENGTH = 0.1  # of the ridge, relative to the mean variance of a channel


def calibrated(loglik: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Log-likelihoods [N, C, K] less each sentence's mean over the reference clips [M, C, K].

    Some sentences are likely whatever the clip is, by their words and their length; what is left
    is how much this clip makes the sentence likelier than a clip of a seen class does.
    """
    return loglik - reference.mean(axis=0)


def cosines(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of every row of x [N, D] with every row of y [C, D]: [N, C]; 0 for a row of zeros."""
    return _unit(x) @ _unit(y).T


def _unit(x: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x, float), where=length > 0)


def ridge(x: np.ndarray, y: np.ndarray, strength: float = STRENGTH) -> np.ndarray:
    """The matrix W [D, E] that makes x W nearest to y, with a small W: of x [N, D], y [N, E]."""
    square = x.T @ x  # [D, D]
    penalty = strength * np.trace(square) / len(square)
    return np.linalg.solve(square + (penalty + 1e-12) * np.eye(len(square)), x.T @ y)


def embedding_scores(
    seen: np.ndarray, labels: np.ndarray, clips: np.ndarray, sentences: np.ndarray
) -> np.ndarray:
    """Cosines of clips with sentences, in the space of the sentences' embeddings.

    A visual token is an input of the language model, an embedding of a sentence one of its outputs,
    so the two cannot be compared as they are. The linear map from the one to the other is fitted
    to clips of seen classes and the sentences of these (a ridge regression); both are centred.

    Args:
        seen: visual tokens of training clips, [M, D].
        labels: of these clips, int [M].
        clips: visual tokens to rank, [N, D].
        sentences: of each class, [C, E].

    Returns:
        [N, C].
    """
    centre = seen.mean(axis=0)
    targets = sentences - sentences[np.unique(labels)].mean(axis=0)  # [C, E]
    matrix = ridge(seen - centre, targets[labels])
    return cosines((clips - centre) @ matrix, targets)


def example_scores(
    seen: np.ndarray,
    labels: np.ndarray,
    clips: np.ndarray,
    examples: np.ndarray,
    example_labels: Sequence[int],
    num_classes: int,
) -> np.ndarray:
    """Cosines of clips with one example of each unseen class (one-shot recognition).

    Features are taken less their mean over the training clips. A seen class is represented by the
    mean of its training clips.

    Args:
        seen, labels: features [M, D] and labels [M] of training clips.
        clips: features to rank, [N, D].
        examples, example_labels: features [U, D] and labels [U] of the examples.

    Returns:
        [N, C]; -1 for a class without an example and without training clips.
    """
    centre = seen.mean(axis=0)
    scores = np.full((len(clips), num_classes), -1.0)
    known = np.unique(labels)
    means = np.stack([seen[labels == label].mean(axis=0) for label in known])
    scores[:, known] = cosines(clips - centre, means - centre)
    scores[:, list(example_labels)] = cosines(clips - centre, examples - centre)
    return scores


def draw_examples(labels: np.ndarray, classes: Sequence[int], seed: int) -> np.ndarray:
    """A random place in `labels` [N] of each of the classes, in their order: int [U]."""
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(np.flatnonzero(labels == label)) for label in classes])


def num_right(scores: np.ndarray, labels: np.ndarray, among: Sequence[int]) -> int:
    """Clips whose class has the greatest score [N, C] among some classes; of equals the first."""
    among = np.asarray(among)
    return int((among[scores[:, among].argmax(axis=1)] == labels).sum())


def harmonic_mean(seen: float, unseen: float) -> float:
    """Of the accuracies on clips of seen and of unseen classes; 0 if one of them is."""
    return 2 * seen * unseen / (seen + unseen) if seen and unseen else 0.0
