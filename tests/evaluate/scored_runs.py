"""Scores of made-up models, and the folders of their runs."""

import json

import numpy as np

from hocslm_jax.evaluate.scores import Scores, save_scores

CLASSES = ("throw", "carry", "sit down")
COUNT = 30  # clips


def make_scores(seed, skill=1.0, prefix="clip", count=COUNT, classes=CLASSES):
    """Noise, and the truth with some skill."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 3
    logits = rng.normal(size=(count, 3)) + skill * np.eye(3)[labels]
    ids = tuple(f"{prefix}{row:02d}" for row in range(count))
    return Scores(ids, labels, logits.astype(np.float32), classes)


def make_run(folder, scores, stream="joint", seed=0):
    folder.mkdir(parents=True)
    save_scores(folder / "scores.npz", scores)
    config = {"data": {"stream": stream}, "seed": seed}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def shuffled(scores, seed=5):
    order = np.random.default_rng(seed).permutation(scores.total)
    ids = tuple(scores.ids[row] for row in order)
    return Scores(ids, scores.labels[order], scores.logits[order], scores.classes)
