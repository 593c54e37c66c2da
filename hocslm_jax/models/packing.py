"""Several examples of language in one row, so that the language model does not compute padding.

In: prefixes [B, 1 + P, H] and captions [B, C] with their lengths, and a `Grid` of fewer positions
than B whole rows have. Out: the hidden states at the caption's words, as those of
`hocslm.caption_states`. An example keeps its own positions and sees nothing of its neighbours, so
nothing but time and memory depends on the packing. Every device of the 'data' axis packs its own
part of the batch.
"""

import dataclasses
import math
import statistics
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

ROW = 3  # whole examples long is a row, about; more would cost attention, fewer leave gaps
RARE = 0.002  # share of the batches whose examples may be too long for the grid
WORTH = 0.9  # of the positions, beyond which packing is not worth its gathers


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where a batch is packed: each of `shards` equal parts of it into `rows` x `length`."""

    shards: int
    rows: int
    length: int

    @property
    def size(self) -> int:
        """Positions of a shard."""
        return self.rows * self.length


class Packed(NamedTuple):
    """What the language model read, at the positions that predict a caption's token.

    Of S shards of b examples each, and T positions, more than there are words.
    """

    hidden: jax.Array  # [S, T, H]
    tokens: jax.Array  # int32 [S, T], to be predicted
    example: jax.Array  # int32 [S, T], 0 to b - 1
    real: jax.Array  # bool [S, T]; the rest is filling


def choose_grid(
    sizes: np.ndarray, weights: np.ndarray, examples: int, shards: int, whole: int
) -> Grid | None:
    """A grid that holds nearly every batch, or None where padding is too little to be worth it.

    Args:
        sizes: [N] positions of each example that there is, and `weights` [N] of it being drawn.
        examples: of a shard.
        whole: positions of the longest example.
    """
    mean = np.average(sizes, weights=weights)
    spread = math.sqrt(np.average((sizes - mean) ** 2, weights=weights) * examples)
    need = examples * mean + statistics.NormalDist().inv_cdf(1 - RARE / shards) * spread
    rows = max(1, round(need / (ROW * whole)))
    gaps = mean / 4 if rows > 1 else 0.0  # at the end of a row, where no example fits
    length = max(whole, math.ceil((need / rows + gaps) / 8) * 8)
    return Grid(shards, rows, length) if rows * length < WORTH * examples * whole else None


def first_fit(sizes: jax.Array, grid: Grid) -> jax.Array:
    """Where each example of a shard begins in its flattened grid, -1 without room: int32 [b].

    The longest goes first, each into the first row with room.
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
    """`first_fit` of every shard, [S, b]; `before` positions stand ahead of a caption's last."""
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
        lm: `qwen3.Qwen3`.
        places: int32 [S, b], of `assign`, all with room.
    """
    before = prefix.shape[1] - 1  # ahead of the position that predicts the first word
    split = lambda a: a.reshape(grid.shards, -1, *a.shape[1:])  # noqa: E731
    parts = split(prefix), split(tokens), split(lengths), places
    owner, offset, used = jax.vmap(lambda n, p: _layout(before + n, p, grid.size))(*parts[2:])

    def rows_of(prefix, tokens, owner, offset):  # [b, 1 + P, H], [b, C], [G], [G]
        word = tokens[owner, jnp.maximum(offset - before - 1, 0)]
        words = lm.apply({"params": params}, word, method="embed")  # [G, H]
        ahead = prefix.astype(words.dtype)[owner, jnp.minimum(offset, before)]
        return jnp.where((offset <= before)[:, None], ahead, words)

    read = jax.vmap(rows_of)(*parts[:2], owner, offset)  # [S, G, H]
    in_rows = lambda a: a.reshape(grid.shards * grid.rows, grid.length, *a.shape[2:])  # noqa: E731
    segments = jnp.where(used, owner, -1)
    hidden = lm.apply(
        {"params": params}, in_rows(read), in_rows(offset), in_rows(segments)
    ).reshape(read.shape)
    room = max(1, grid.size - places.shape[1] * before)  # for words, once the prefixes are in

    def words_of(hidden, tokens, owner, offset, used):
        says = used & (offset >= before)
        at = jnp.nonzero(says, size=room, fill_value=0)[0]  # [T]
        real = jnp.arange(room) < says.sum()
        target = tokens[owner[at], jnp.maximum(offset[at] - before, 0)]
        return Packed(hidden[at], target, owner[at], real)

    return jax.vmap(words_of)(hidden, parts[1], owner, offset, used)


def _layout(sizes, places, size):
    """Whose each position of a shard's grid is, which of its own, and whether anybody's: [G]."""
    here = jnp.arange(size)
    inside = (here >= places[:, None]) & (here < (places + sizes)[:, None])  # [b, G]
    owner, used = inside.argmax(axis=0), inside.any(axis=0)
    return owner, jnp.where(used, here - places[owner], 0), used
