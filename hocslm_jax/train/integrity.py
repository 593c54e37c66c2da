"""Detects damaged checkpoints with checksums, and finds the newest intact one.

In: the folder `checkpoints/` of a run, in which another process may be writing. Out: the result of
a reader for the newest checkpoint whose `meta` and arrays match their checksums. Damaged ones are
reported and skipped. An array's checksum is the same on every mesh and any number of hosts: each
element's bits are multiplied by an odd number that depends on its index, and summed. So any single
flipped bit changes the sum, and shards can be summed where they are.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from hocslm_jax import hosts
from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import read_json
from hocslm_jax.sharding import path_name

FORMAT = 1  # format of a checkpoint; newer formats are refused
ATTEMPTS = 5  # attempts, since a running training changes the list of checkpoints

_ODD = np.uint32(0x9E3779B1)
_MASK = 0xFFFFFFFF


class Damaged(Exception):
    """A checkpoint that cannot be read, with the reason."""


def latest(folder: Path, read: Callable[[int, dict], tuple[Any, Any]]) -> Any:
    """Reads the newest intact checkpoint; None if there are no checkpoints.

    A running training deletes older checkpoints, so the list is read again if it has changed.
    Skipped checkpoints are printed.

    Args:
        read: maps `(step, meta)` to the result, and the arrays in it to verify.

    Raises:
        UserError: raised by `read`, or none of the existing checkpoints can be read.
    """
    failed: dict[int, str] = {}
    for _ in range(ATTEMPTS):
        found, failed = hosts.on_first(lambda: steps(folder)), {}
        for step in found:
            value, reason = _read_one(folder, step, read)
            if not reason:
                for bad, why in failed.items():
                    _warn(f"checkpoint {bad} in {folder} is damaged ({why}): taking {step}")
                return value
            failed[step] = reason
        if found == hosts.on_first(lambda: steps(folder)):
            break
    if not failed:
        return None
    step, reason = next(iter(failed.items()))
    raise UserError(
        f"checkpoint {step} in {folder} is damaged or does not fit this model: {reason}; "
        "use another --workdir"
    )


def _read_one(folder: Path, step: int, read: Callable) -> tuple[Any, str]:
    """The result of `read` for one checkpoint, and "" or why it is skipped, on all processes."""
    meta, reason = hosts.on_first(lambda: _look(folder, step))
    if reason:
        return None, reason
    hosts.wait_to_see(folder / str(step), inside=True)
    value = arrays = None
    try:
        value, arrays = read(step, meta)
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore raise dozens of types
        reason = str(error).strip().partition("\n")[0][:120] or repr(error)
    if hosts.any_process(bool(reason)):  # before the steps that need all processes
        return None, reason or "another process cannot read it"
    return value, _changes(arrays, meta)


def steps(folder: Path) -> list[int]:
    """The steps of the complete checkpoints, the newest first."""
    names = [path.name for path in Path(folder).iterdir()] if Path(folder).is_dir() else []
    return sorted((int(name) for name in names if name.isdecimal()), reverse=True)


def _look(folder: Path, step: int) -> tuple[dict, str]:
    """`meta` of one checkpoint, and "" or why it cannot be used."""
    try:
        return _read_meta(folder, step), ""
    except Damaged as error:
        return {}, str(error)


def _read_meta(folder: Path, step: int) -> dict:
    """`meta` of one checkpoint, verified. Raises Damaged, or UserError for a newer format."""
    try:
        meta = read_json(folder / str(step) / "meta" / "metadata", "train again")
    except UserError as error:
        raise Damaged(str(error).partition(": ")[0]) from None
    if {"format", "sums", "checksum"} & set(meta):
        if meta.get("checksum") != digest(meta):
            raise Damaged("its meta has changed since it was written")
        if meta["format"] > FORMAT:
            raise UserError(
                f"checkpoint {step} in {folder} is of format {meta['format']}: update hocslm_jax"
            )
    elif meta.get("step") != step or not isinstance(meta.get("config"), dict):
        raise Damaged("its meta is incomplete")
    return meta


def _changes(arrays, meta: dict) -> str:
    """How restored arrays differ from the saved ones, in words; "" if they are equal."""
    if jax.tree.leaves(arrays) and "sums" not in meta:
        _warn(f"step {meta['step']} was saved without checksums by an older version: not verified")
        return ""
    found = sums(arrays) if jax.tree.leaves(arrays) else {}
    wrong = [name for name, value in found.items() if meta["sums"].get(name) != value]
    return f"{len(wrong)} arrays have changed since they were written, {wrong[0]}" if wrong else ""


def set_aside(manager: ocp.CheckpointManager, step: int) -> None:
    """Moves the damaged checkpoints after `step` to another folder."""
    folder = Path(manager.directory)

    def move() -> int:
        newer = [other for other in steps(folder) if other > step]
        aside = folder.parent / "damaged"
        for other in newer:
            aside.mkdir(exist_ok=True)
            shutil.rmtree(aside / str(other), ignore_errors=True)
            (folder / str(other)).rename(aside / str(other))
        return len(newer)

    if hosts.on_first(move):
        manager.reload()


def _warn(text: str) -> None:
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


def digest(meta: dict) -> str:
    """sha256 of a JSON object without its own "checksum"."""
    rest = {key: value for key, value in meta.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def sums(tree) -> dict[str, int]:
    """The checksum of every leaf; all hosts must call it together."""
    leaves = jax.tree.leaves_with_path(tree)
    found = np.array([_sum_of(leaf) for _, leaf in leaves], np.uint64)
    if jax.process_count() > 1:
        halves = np.stack([found >> 16, found & 0xFFFF]).astype(np.uint32)  # JAX lacks 64 bits
        halves = multihost_utils.process_allgather(halves).astype(np.uint64).sum(axis=0)
        found = (halves[0] << np.uint64(16)) + halves[1]
    return {path_name(path): int(one) & _MASK for (path, _), one in zip(leaves, found, strict=True)}


def _sum_of(leaf: jax.Array) -> int:
    """The sum over this host's part of a leaf; replicas are counted once."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    total = sum(
        _weighted(np.asarray(shard.data), shard.index, leaf.shape)
        for shard in leaf.addressable_shards
        if shard.replica_id == 0
    )
    return total & _MASK


def _weighted(block: np.ndarray, index: tuple[slice, ...], shape: tuple[int, ...]) -> int:
    """The sum over a block at `index` in an array of that shape."""
    place = np.zeros((), np.uint32)  # in the whole array, flattened
    for part, size in zip(index, shape, strict=True):
        along = np.arange(*part.indices(size), dtype=np.uint32)
        place = place[..., None] * np.uint32(size) + along
    words = np.atleast_1d(block).view(f"u{block.dtype.itemsize}").astype(np.uint32)
    weights = np.atleast_1d(place) * _ODD | np.uint32(1)
    return int((words * weights).sum(dtype=np.uint64)) & _MASK
