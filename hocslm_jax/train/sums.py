"""Checksums of arrays by their values, the same on every mesh and on any number of hosts.

In: a pytree of JAX arrays. Out: {path: 32-bit number}. Each element's bits are multiplied by an odd
number that depends on its place, and added up; so any single flipped bit changes the sum, and
shards can be summed where they lie.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils

from hocslm_jax.sharding import path_name

_ODD = np.uint32(0x9E3779B1)
_MASK = 0xFFFFFFFF


def sums(tree) -> dict[str, int]:
    """The checksum of every leaf; call it on all hosts at once."""
    leaves = jax.tree.leaves_with_path(tree)
    found = np.array([_own(leaf) for _, leaf in leaves], np.uint64)
    if jax.process_count() > 1:
        halves = np.stack([found >> 16, found & 0xFFFF]).astype(np.uint32)  # JAX has no 64 bits
        halves = multihost_utils.process_allgather(halves).astype(np.uint64).sum(axis=0)
        found = (halves[0] << np.uint64(16)) + halves[1]
    return {path_name(path): int(one) & _MASK for (path, _), one in zip(leaves, found, strict=True)}


def _own(leaf: jax.Array) -> int:
    """The sum over this host's part of a leaf; what several devices hold is counted once."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    total = sum(
        _weighted(np.asarray(shard.data), shard.index, leaf.shape)
        for shard in leaf.addressable_shards
        if shard.replica_id == 0
    )
    return total & _MASK


def _weighted(block: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    """The sum over a block that lies at `index` of an array of that shape."""
    place = np.zeros((), np.uint32)  # in the whole array, flattened
    for part, size in zip(index, shape, strict=True):
        along = np.arange(*part.indices(size), dtype=np.uint32)
        place = place[..., None] * np.uint32(size) + along
    words = np.atleast_1d(block).view(f"u{block.dtype.itemsize}").astype(np.uint32)
    weights = np.atleast_1d(place) * _ODD | np.uint32(1)
    return int((words * weights).sum(dtype=np.uint64)) & _MASK
