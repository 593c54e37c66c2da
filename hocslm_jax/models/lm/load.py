"""Hugging Face safetensors -> DecoderLM parameters, without PyTorch; `save.py` is the way back.

In: a folder with `config.json` and `model.safetensors`, or its shards and their index, in float32,
bfloat16 or float16, or a GGUF file. Out: the parameter tree of `DecoderLM` on its devices.
`tensor_table.py` gives the place of each parameter on disk. Each device's shard is read separately,
so that the host holds one stacked shard of one parameter at a time; with quantised matrices, one
stacked parameter in few bits.
"""

import contextlib
import dataclasses
import functools
import gc
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding, SingleDeviceSharding
from safetensors import SafetensorError, safe_open

from hocslm_jax.errors import UserError, few
from hocslm_jax.files.checksums import SUMS
from hocslm_jax.files.text import read_json
from hocslm_jax.models.lm.config import LMConfig, from_hf
from hocslm_jax.models.lm.gguf_file import find_gguf, is_gguf, open_gguf, read_gguf_config
from hocslm_jax.models.lm.quantise import check_sizes, quantise, quantised
from hocslm_jax.models.lm.tensor_table import (
    EMBEDDING,
    HEAD,
    Parameter,
    parameters,
    without_prefix,
)

_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
ROWS = 4096  # rows of a matrix that are transposed together
INDEX = "model.safetensors.index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a checkpoint, given as a folder or a Hugging Face id, which is downloaded.

    For a GGUF file, the file itself, see `find_gguf`.

    Raises:
        UserError: it is neither a folder nor an id that can be downloaded.
    """
    if is_gguf(name_or_path):
        return find_gguf(name_or_path)
    path = Path(os.path.expanduser(name_or_path))
    if path.is_dir():
        return path
    if not _HUB_ID.fullmatch(str(name_or_path)):
        raise UserError(f"{name_or_path} is neither a folder nor a hub id like Qwen/Qwen3-0.6B")
    try:
        kinds = ["*.safetensors", "*.json", f"*{SUMS}"]
        return Path(huggingface_hub.snapshot_download(str(name_or_path), allow_patterns=kinds))
    except Exception as error:  # the network and the hub raise many types
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"{name_or_path} is not a local folder, and cannot be fetched from the hub "
            f"({type(error).__name__}: {reason}): check the path, or the id and the connection"
        ) from None


def read_config(source: str | Path) -> LMConfig:
    """The config of a checkpoint folder or GGUF file.

    If it declares tied embeddings, but the checkpoint has a different output matrix, they are not
    tied, as in transformers.

    Raises:
        UserError: it is missing or damaged, or has unsupported features.
    """
    if is_gguf(source):
        return read_gguf_config(Path(source))
    path = Path(source) / "config.json"
    try:
        config = from_hf(read_json(path, "a language model's folder needs it"), str(path))
    except (TypeError, ValueError, AttributeError, OverflowError, KeyError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch the checkpoint again") from None
    if config.tie_embeddings and _has_other_head(Path(source)):
        return dataclasses.replace(config, tie_embeddings=False)
    return config


def _has_other_head(folder: Path) -> bool:
    """Whether the output matrix is stored and is not a copy of the embedding.

    False if the weights cannot be read, which `load_params` reports.
    """
    try:
        with contextlib.ExitStack() as stack:
            tensors = _open(folder, stack)
            if not {EMBEDDING, HEAD} <= tensors.keys():
                return False
            table, head = tensors[EMBEDDING], tensors[HEAD]
            shape = table.get_shape()
            if shape != head.get_shape():
                return True
            starts = range(0, shape[0], ROWS)
            parts = [slice(start, min(start + ROWS, shape[0])) for start in starts]
            return not all(np.array_equal(table[part], head[part]) for part in parts)
    except (UserError, TypeError):  # TypeError: a type that NumPy does not have
        return False


def load_params(
    folder: str | Path, config: LMConfig, shardings=None, dtype=None, weights: str = ""
) -> dict:
    """The parameters of a checkpoint folder, read directly onto their devices.

    Args:
        folder: a folder or GGUF file, see `resolve`; `read_config` gives its config.
        shardings: one `jax.sharding.Sharding` for all, or a tree of them like the parameters;
            default the first device.
        dtype: type to cast to while reading; default the type on disk.
        weights: "", "int8" or "int4", as in `DecoderLM`: matrices are quantised on the first
            device, one layer of one parameter at a time.

    Raises:
        UserError: a file is missing or damaged; tensors are missing, unexpected or have the wrong
            shape or type (lists the first of them); or a size that cannot be quantised.
    """
    check_sizes(config, weights)
    shardings = SingleDeviceSharding(jax.local_devices()[0]) if shardings is None else shardings
    same = isinstance(shardings, Sharding)
    each = {} if same else flatten_dict(shardings, sep="/")
    with contextlib.ExitStack() as stack:
        path = Path(folder)
        tensors = open_gguf(path, config) if is_gguf(path) else _open(path, stack)
        if config.tie_embeddings and HEAD in tensors:  # the file may store either
            tensors.setdefault(EMBEDDING, tensors.pop(HEAD))
        _check(tensors, config, folder)
        params, kernels = {}, quantised(config) if weights else {}
        for path, parameter in parameters(config).items():
            try:
                arrays = {path: _lazy(tensors, parameter, dtype)}
                if path in kernels:
                    arrays = _quantised(tensors, path, parameter, weights, kernels[path])
                for name, (shape, read) in arrays.items():
                    params[name] = _place(shape, read, shardings if same else each[name])
            except FloatingPointError as error:
                raise UserError(f"{folder}: {error}: fetch the checkpoint again") from None
    return unflatten_dict(params, sep="/")


def _open(folder: Path, stack: contextlib.ExitStack) -> dict:
    """Every tensor of a checkpoint as a lazy slice: name -> slice; reads only headers."""
    index = folder / INDEX
    files = ["model.safetensors"]
    if index.exists():
        try:
            files = sorted(set(read_json(index)["weight_map"].values()))
            if any(Path(name).name != name for name in files):
                raise ValueError("it names a file outside the folder")
        except (UserError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{index} is damaged: fetch the checkpoint again") from None
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        raise UserError(f"{folder} lacks {few(absent)}: fetch the checkpoint again, as safetensors")
    tensors = {}
    for name in files:
        try:
            file = stack.enter_context(safe_open(folder / name, "numpy"))
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"{folder / name} is damaged ({error}): fetch the checkpoint again"
            ) from None
        tensors |= {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
    known = without_prefix(tensors, folder)
    return {known[name]: tensor for name, tensor in tensors.items() if name in known}


def _check(tensors: dict, config: LMConfig, folder: str | Path) -> None:
    """Raises UserError if the tensors are not those of the config."""
    expected = {n: p.disk_shape for p in parameters(config).values() for n in p.names}
    problems = [f"missing {name}" for name in sorted(expected.keys() - tensors.keys())]
    problems += [f"unexpected {name}" for name in sorted(tensors.keys() - expected.keys())]
    for name in sorted(expected.keys() & tensors.keys()):
        shape, dtype = tuple(tensors[name].get_shape()), tensors[name].get_dtype()
        if shape != expected[name]:
            problems.append(f"{name} is {shape} instead of {expected[name]}")
        if dtype not in _DTYPES:
            problems.append(f"{name} has the unsupported type {dtype}")
    if problems:
        raise UserError(
            f"{folder} does not hold the {config.family} model of its config: {len(problems)} "
            f"tensors are wrong, {few(problems, '; ', 3)}"
        )


def _lazy(tensors: dict, parameter: Parameter, dtype) -> tuple[tuple[int, ...], Callable]:
    """A parameter as stored on disk: its shape, and a function that reads a block."""
    dtype = jnp.dtype(dtype or _DTYPES[tensors[parameter.names[0]].get_dtype()])
    return parameter.shape, functools.partial(_read, tensors, parameter, dtype=dtype)


def _quantised(tensors: dict, path: str, parameter: Parameter, kind: str, inputs: int) -> dict:
    """A kernel of all layers, quantised: path -> (shape, a function that slices a block)."""
    whole = [(0, size) for size in parameter.shape[1:]]  # a scale needs all inputs
    layers = []
    for name in parameter.names:
        kernel = jnp.asarray(_read_one(tensors, name, parameter, whole))
        layers.append(jax.device_get(quantise(kernel, kind, inputs)))
    stem, found = path.removesuffix("kernel"), {}
    for name in list(layers[0]):
        stacked = np.stack([layer.pop(name) for layer in layers])
        found[stem + name] = (stacked.shape, functools.partial(_cut, stacked))
    return found


def _cut(array: np.ndarray, bounds: tuple) -> np.ndarray:
    return array[tuple(slice(*one) for one in bounds)]


def _place(shape: tuple[int, ...], read: Callable, sharding: Sharding) -> jax.Array:
    """A global array, read block by block, each once per host."""
    devices: dict[tuple, list] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        bounds = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        devices.setdefault(bounds, []).append(device)
    arrays = []
    for bounds, holders in devices.items():
        block = read(bounds)
        copies = [jax.device_put(block, device) for device in holders]
        arrays += jax.block_until_ready(copies)  # otherwise transfers pile up on the host
        del block, copies
        gc.collect(0)  # JAX releases the host's block when Python collects garbage
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def _read(tensors: dict, parameter: Parameter, bounds: tuple, dtype) -> np.ndarray:
    """The block between `bounds`, which are (start, stop) for each axis here."""
    if not parameter.stacked:  # the embedding is large, so it is not copied
        block = _read_one(tensors, parameter.names[0], parameter, bounds)
        return block.astype(dtype, copy=False)
    (first, last), *bounds = bounds
    block = np.empty((last - first, *(stop - start for start, stop in bounds)), dtype)
    for row, name in enumerate(parameter.names[first:last]):
        block[row] = _read_one(tensors, name, parameter, bounds)
    return block


def _read_one(tensors: dict, name: str, parameter: Parameter, bounds) -> np.ndarray:
    """One tensor's block. Along an axis of heads x channels, whole heads are read, then sliced."""
    disk, ours, sizes = parameter.disk, parameter.ours, parameter.sizes
    span = dict(zip(ours, bounds, strict=True))
    rows = []
    for axes in disk:
        inner = math.prod(sizes[axis] for axis in axes[1:])
        rows.append(slice(span[axes[0]][0] * inner, span[axes[0]][1] * inner))
    block = tensors[name][tuple(rows)]
    if not all(np.isfinite(block[n : n + ROWS]).all() for n in range(0, len(block), ROWS)):
        raise FloatingPointError(f"{name} has values that are NaN or infinite")
    if parameter.transposed:
        block = transpose(block)
    leading = {axes[0] for axes in disk}
    block = block.reshape([span[a][1] - span[a][0] if a in leading else sizes[a] for a in ours])
    return block[tuple(slice(None) if a in leading else slice(*span[a]) for a in ours)]


def transpose(matrix: np.ndarray) -> np.ndarray:
    """A contiguous transpose, a block of rows at a time; ten times as fast as NumPy's copy."""
    out = np.empty(matrix.shape[::-1], matrix.dtype)
    for start in range(0, len(matrix), 32):
        out[:, start : start + 32] = matrix[start : start + 32].T
    return out
