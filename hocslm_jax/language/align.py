"""Initialises the projector so that visual tokens resemble the words of their clips' captions.

The language model is frozen, so a visual token means something to it only if it lies where its
words lie. A random projector needs many steps to get there, since a caption's loss is mostly about
grammar and hardly about the clip. Here the projector's last layer solves a least-squares problem,
so that training begins with tokens near the mean embedding of their captions' words.

In: what the projector reads of some training clips, and their captions. Out: its parameters.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hocslm_jax import sharding
from hocslm_jax.data.captions import CaptionTable
from hocslm_jax.language.open import Language

CLIPS = 4096  # at most so many training clips are fitted
RIDGE = 1e-3  # of the mean square of the hidden units
FLOOR = 0.1  # least spread of an input, as a share of the mean spread


def word_targets(language: Language, table: CaptionTable, rows: np.ndarray, mesh) -> np.ndarray:
    """What sets the words of each row's captions apart: float32 [N, H] with a mean square of 1.

    The mean embedding of the words of all its sentences, less the mean over the rows. Zeros where
    nothing is left, as if all have the same caption.
    """
    spans = [(table.start[row], table.start[row] + table.count[row]) for row in rows]
    used = np.unique(np.concatenate([np.arange(*span) for span in spans]))  # [S], sentences
    words = np.unique(table.tokens[used])  # [W]

    # Jitted and replicated, because a host need not hold the whole table.
    @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def embedding(every):
        return every[words].astype(jnp.float32)

    embedded = np.asarray(embedding(language.params["embed"]["embedding"]))  # [W, H]
    sentences = (table.tokens[s, : table.lengths[s] - 1] for s in used)  # without EOS
    means = np.stack([embedded[np.searchsorted(words, ids)].mean(axis=0) for ids in sentences])
    places = np.searchsorted(used, spans)  # [N, 2]; a row's sentences follow each other
    targets = np.stack([means[first:last].mean(axis=0) for first, last in places])  # [N, H]
    targets -= targets.mean(axis=0)
    size = np.sqrt(np.square(targets).mean(axis=1, keepdims=True))
    return np.divide(targets, size, out=np.zeros_like(targets), where=size > 1e-6 * size.max())


def fitted(inputs: np.ndarray, targets: np.ndarray, params: dict) -> dict:
    """The projector's parameters, whose tokens before the LayerNorm are nearest to the targets.

    The first layer reads inputs with a mean of 0 and a spread of 1; its directions stay random.

    Args:
        inputs: [N, D], what the projector reads.
        targets: [N, H].
        params: random parameters {"up", "out", "norm"}.
    """
    inputs = inputs.astype(np.float64)
    mean, spread = inputs.mean(axis=0), inputs.std(axis=0)
    spread += FLOOR * spread.mean() + 1e-8
    kernel = np.asarray(params["up"]["kernel"], np.float64) / spread[:, None]  # [D, W]
    bias = np.asarray(params["up"]["bias"], np.float64) - mean @ kernel
    hidden = np.maximum(inputs @ kernel + bias, 0)
    hidden = np.concatenate([hidden, np.ones((len(hidden), 1))], axis=1)  # [N, W + 1]
    penalty = RIDGE * np.square(hidden).sum() / hidden.shape[1]
    gram = hidden.T @ hidden + penalty * np.eye(hidden.shape[1])
    out = np.linalg.solve(gram, hidden.T @ targets)
    layers = {"up": {"kernel": kernel, "bias": bias}, "out": {"kernel": out[:-1], "bias": out[-1]}}
    return jax.tree.map(np.float32, layers) | {"norm": params["norm"]}
