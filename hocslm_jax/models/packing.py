"""Packs several captions into one row, so that the language model computes less padding.

In: prefixes [B, 1 + P, H] and captions [B, C] with their lengths, and a `Grid` with fewer
positions than B padded rows. Out: the hidden states at the captions' words, equal to those of
`hocslm.caption_states`. An example keeps its own positions and does not attend to its neighbours,
so that packing only changes time and memory. Every device of the 'data' axis packs its own part
of the batch.

Axes: S shards, b examples of a shard, G positions of a shard's grid, T positions that predict a
word.
"""

import dataclasses
import math
import statistics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

ROW_EXAMPLES = 3  # row length in longest examples; shorter rows leave gaps, longer ones cost time
MISFITS = 0.002  # tolerated share of batches that exceed the grid
MAX_SHARE = 0.9  # of the padded positions; above it, packing does not pay for its gathers


@dataclasses.dataclass(frozen=True)
class Grid:
    """Size of a packed batch: each of its `shards` equal parts has `rows` rows of `length`."""

    shards: int
    rows: int
    length: int

    @property
    def size(self) -> int:
        """Positions of a shard."""
        return self.rows * self.length


class Packed(NamedTuple):
    """The language model's hidden states at the T positions that predict a caption's token."""

    hidden: jax.Array  # [S, T, H]
    tokens: jax.Array  # int32 [S, T], targets
    example: jax.Array  # int32 [S, T], 0 to b - 1
    real: jax.Array  # bool [S, T]; the others are padding


def choose_grid(
    sizes: np.ndarray, weights: np.ndarray, examples: int, shards: int, whole: int
) -> Grid | None:
    """A grid that holds nearly every batch, or None if there is too little padding to save.

    Args:
        sizes: [N], positions of each example of the dataset.
        weights: [N], how often each is drawn.
        examples: examples per shard.
        whole: positions of the longest example.
    """
    mean = np.average(sizes, weights=weights)
    spread = math.sqrt(np.average((sizes - mean) ** 2, weights=weights) * examples)
    need = examples * mean + statistics.NormalDist().inv_cdf(1 - MISFITS / shards) * spread
    rows = max(1, round(need / (ROW_EXAMPLES * whole)))
    gaps = mean / 4 if rows > 1 else 0.0  # at the end of a row, where no example fits
    length = max(whole, math.ceil((need / rows + gaps) / 8) * 8)
    return Grid(shards, rows, length) if rows * length < MAX_SHARE * examples * whole else None


def first_fit(sizes: jax.Array, grid: Grid) -> jax.Array:
    """Where each example of a shard begins in its flattened grid: int32 [b], -1 if it has no room.

    Examples are placed in order of decreasing length, each into the first row with room.

    Args:
        sizes: int32 [b], positions of each example.
    """

    def put(used, size):  # used [rows]
        room = used + size <= grid.length
        row = jnp.argmax(room)
        place = jnp.where(room[row], row * grid.length + used[row], -1)
        return used.at[row].add(size * room[row]), place

    order = jnp.argsort(-sizes)
    _, places = jax.lax.scan(put, jnp.zeros(grid.rows, jnp.int32), sizes[order])
    return jnp.zeros_like(sizes).at[order].set(places)


def assign(lengths: jax.Array, before: int, grid: Grid) -> jax.Array:
    """`first_fit` of every shard, [S, b]; an example has `before` positions and its caption."""
    sizes = before + lengths.reshape(grid.shards, -1)
    return jax.vmap(lambda sizes: first_fit(sizes, grid))(sizes)


def packed_states(
    lm: nn.Module,
    params: dict,
    prefix: jax.Array,
    tokens: jax.Array,
    lengths: jax.Array,
    places: jax.Array,
    grid: Grid,
) -> Packed:
    """`hocslm.caption_states` where examples share rows.

    Args:
        lm: `lm.DecoderLM`.
        places: int32 [S, b], of `assign`, all with room.
    """
    before = prefix.shape[1] - 1  # positions ahead of the one that predicts the first word
    # [S, b, ...] each
    prefix, tokens, lengths = (
        a.reshape(grid.shards, -1, *a.shape[1:]) for a in (prefix, tokens, lengths)
    )
    layout = jax.vmap(lambda sizes, places: _layout(sizes, places, grid.size))
    owner, offset, used = layout(before + lengths, places)  # [S, G]

    def rows_of(prefix, tokens, owner, offset):  # [b, 1 + P, H], [b, C], [G], [G]
        word = tokens[owner, jnp.maximum(offset - before - 1, 0)]
        words = lm.apply({"params": params}, word, method="embed")  # [G, H]
        ahead = prefix.astype(words.dtype)[owner, jnp.minimum(offset, before)]
        return jnp.where((offset <= before)[:, None], ahead, words)

    read = jax.vmap(rows_of)(prefix, tokens, owner, offset)  # [S, G, H]
    segments = jnp.where(used, owner, -1)
    rows = (grid.shards * grid.rows, grid.length)
    inputs = (a.reshape(*rows, *a.shape[2:]) for a in (read, offset, segments))
    hidden = lm.apply({"params": params}, *inputs).reshape(read.shape)  # [S, G, H]
    room = max(1, grid.size - places.shape[1] * before)  # for words, once the prefixes are in

    def words_of(hidden, tokens, owner, offset, used):
        predicts = used & (offset >= before)
        at = jnp.nonzero(predicts, size=room, fill_value=0)[0]  # [T]
        real = jnp.arange(room) < predicts.sum()
        target = tokens[owner[at], jnp.maximum(offset[at] - before, 0)]
        return Packed(hidden[at], target, owner[at], real)

    return jax.vmap(words_of)(hidden, tokens, owner, offset, used)


def _layout(sizes, places, size):
    """Per position of a grid [G]: its example, its index in the example, and whether it is used."""
    here = jnp.arange(size)
    inside = (here >= places[:, None]) & (here < (places + sizes)[:, None])  # [b, G]
    owner, used = inside.argmax(axis=0), inside.any(axis=0)
    return owner, jnp.where(used, here - places[owner], 0), used
