"""Hugging Face safetensors <-> Qwen3 parameters, without PyTorch.

In: a folder with `config.json` and `model.safetensors`, or its shards and their index, in float32,
bfloat16 or float16. Out: the parameter tree of `Qwen3` on its devices, and the way back. `LAYOUT`
says once where each parameter lies on disk. Each device's shard is read on its own, so that the
host holds one stacked shard of one parameter at a time.
"""

import contextlib
import functools
import gc
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hocslm_jax.errors import UserError, few
from hocslm_jax.files.atomic import write_json
from hocslm_jax.files.checksums import SUMS
from hocslm_jax.files.text import read_json
from hocslm_jax.models.qwen3.config import Qwen3Config, to_hf

# Our path: (name on disk, axes on disk, our axes). V vocabulary, D width, F MLP, N heads, K
# key-value heads, H head channels; disk axes written together are one. Ours have a layer axis in
# front where the name has a layer number.
LAYOUT: dict[str, tuple[str, tuple[str, ...], str]] = {
    "embed/embedding": ("model.embed_tokens.weight", ("V", "D"), "VD"),
    "blocks/q/kernel": ("model.layers.{}.self_attn.q_proj.weight", ("NH", "D"), "DNH"),
    "blocks/k/kernel": ("model.layers.{}.self_attn.k_proj.weight", ("KH", "D"), "DKH"),
    "blocks/v/kernel": ("model.layers.{}.self_attn.v_proj.weight", ("KH", "D"), "DKH"),
    "blocks/o/kernel": ("model.layers.{}.self_attn.o_proj.weight", ("D", "NH"), "NHD"),
    "blocks/q_norm/scale": ("model.layers.{}.self_attn.q_norm.weight", ("H",), "H"),
    "blocks/k_norm/scale": ("model.layers.{}.self_attn.k_norm.weight", ("H",), "H"),
    "blocks/gate/kernel": ("model.layers.{}.mlp.gate_proj.weight", ("F", "D"), "DF"),
    "blocks/up/kernel": ("model.layers.{}.mlp.up_proj.weight", ("F", "D"), "DF"),
    "blocks/down/kernel": ("model.layers.{}.mlp.down_proj.weight", ("D", "F"), "FD"),
    "blocks/input_norm/scale": ("model.layers.{}.input_layernorm.weight", ("D",), "D"),
    "blocks/post_norm/scale": ("model.layers.{}.post_attention_layernorm.weight", ("D",), "D"),
    "norm/scale": ("model.norm.weight", ("D",), "D"),
    "lm_head/kernel": ("lm_head.weight", ("V", "D"), "DV"),
}
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_INDEX = "model.safetensors.index.json"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve(name_or_path: str | Path) -> Path:
    """The folder of a checkpoint: an existing one, or a Hugging Face id, fetched or cached.

    Raises:
        UserError: neither a folder nor an id that can be had.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if not _HUB_ID.fullmatch(str(name_or_path)):
        raise UserError(f"{name_or_path} is neither a folder nor a hub id like Qwen/Qwen3-0.6B")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"{name_or_path} is no folder here: `pip install huggingface_hub` to fetch it"
        ) from None
    try:
        kinds = ["*.safetensors", "*.json", f"*{SUMS}"]
        folder = snapshot_download(str(name_or_path), allow_patterns=kinds)
    except Exception as error:  # whatever the network and the hub come up with
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"cannot fetch {name_or_path} ({type(error).__name__}: {reason}): check the id and the "
            "connection, or download it elsewhere and give the folder"
        ) from None
    return Path(folder)


def load_params(folder: str | Path, config: Qwen3Config, shardings=None, dtype=None) -> dict:
    """The parameters of a checkpoint folder, read straight to where they belong.

    Args:
        folder: see `resolve`; `read_config` gives its config.
        shardings: one `jax.sharding.Sharding` for all, or a tree of them like the parameters;
            default the first device.
        dtype: to cast to while reading; default what is on disk.

    Raises:
        UserError: a file is absent or damaged, or tensors are missing, unexpected, of another shape
            or type than the config says; all of these are listed in one message.
    """
    shardings = SingleDeviceSharding(jax.local_devices()[0]) if shardings is None else shardings
    with contextlib.ExitStack() as stack:
        tensors = _open(Path(folder), stack)
        _check(tensors, config, folder)
        params: dict = {}
        for path in _paths(config):
            where = shardings if isinstance(shardings, Sharding) else _at(shardings, path)
            *parents, leaf = path.split("/")
            branch = functools.reduce(lambda tree, key: tree.setdefault(key, {}), parents, params)
            branch[leaf] = _place(*_reader(tensors, config, path, dtype), where)
        return params


def save_params(
    params: dict, config: Qwen3Config, folder: str | Path, max_shard_bytes: int = 5 * 10**9
) -> None:
    """Writes a folder that `load_params` and `transformers` read: safetensors and config.json.

    Several files and an index where all of it exceeds `max_shard_bytes`; the host holds one file's
    tensors at a time, which may be sharded over its own devices. config.json comes last, so that an
    unfinished folder is not taken for whole.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in ("config.json", _INDEX):
        (folder / stale).unlink(missing_ok=True)
    shards: list[list[tuple[str, Callable]]] = [[]]
    size = total = 0
    for name, nbytes, value in _disk_tensors(params, config):
        if shards[-1] and size + nbytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((name, value))
        size, total = size + nbytes, total + nbytes
    names = ["model.safetensors"]
    if len(shards) > 1:
        count = len(shards)
        names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
        files = {name: file for file, shard in zip(names, shards, strict=True) for name, _ in shard}
        index = {"metadata": {"total_size": total}, "weight_map": files}
        write_json(folder / _INDEX, index, indent=2)
    for file, shard in zip(names, shards, strict=True):
        save_file({name: value() for name, value in shard}, folder / file, {"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors makes a file for its owner alone
    dtype = str(params["embed"]["embedding"].dtype)
    write_json(folder / "config.json", to_hf(config) | {"torch_dtype": dtype}, indent=2)


def _open(folder: Path, stack: contextlib.ExitStack) -> dict:
    """Every tensor of a checkpoint as a lazy slice: name -> slice; nothing is read but headers."""
    index = folder / _INDEX
    files = ["model.safetensors"]
    if index.exists():
        try:
            files = sorted(set(read_json(index)["weight_map"].values()))
            if any(Path(name).name != name for name in files):
                raise ValueError("a file of another folder")
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
    return tensors


def _check(tensors: dict, config: Qwen3Config, folder: str | Path) -> None:
    expected = {name: shape for path in _paths(config) for name, shape in _names(config, path)}
    ignored = {"lm_head.weight"} if config.tie_embeddings else set()  # a copy of the embedding
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in sorted(set(tensors) - set(expected) - ignored)]
    for name in expected.keys() & tensors.keys():
        shape, dtype = tuple(tensors[name].get_shape()), tensors[name].get_dtype()
        if shape != expected[name]:
            problems.append(f"{name} is {shape} instead of {expected[name]}")
        if dtype not in _DTYPES:
            problems.append(f"{name} has the unsupported type {dtype}")
    if problems:
        raise UserError(
            f"{folder} does not hold the Qwen3 of its config.json: {len(problems)} tensors are "
            f"wrong, {few(sorted(problems), '; ', 3)}"
        )


def _paths(config: Qwen3Config) -> list[str]:
    return [path for path in LAYOUT if path != "lm_head/kernel" or not config.tie_embeddings]


def _sizes(config: Qwen3Config) -> dict[str, int]:
    return {
        "V": config.vocab_size,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "N": config.num_heads,
        "K": config.num_kv_heads,
        "H": config.head_dim,
    }


def _names(config: Qwen3Config, path: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) on disk of a parameter, one for each layer where it is stacked."""
    name, disk, _ = LAYOUT[path]
    sizes = _sizes(config)
    shape = tuple(math.prod(sizes[axis] for axis in group) for group in disk)
    for layer in range(config.num_layers if "{}" in name else 1):
        yield name.format(layer), shape


def _reader(tensors: dict, config: Qwen3Config, path: str, dtype):
    """(shape, read) of a parameter: `read(index)` takes one block of it from disk."""
    name, disk, ours = LAYOUT[path]
    sizes, stacked = _sizes(config), "{}" in name
    shape = (config.num_layers,) * stacked + tuple(sizes[axis] for axis in ours)
    names = [key for key, _ in _names(config, path)]
    dtype = jnp.dtype(dtype or _DTYPES[tensors[names[0]].get_dtype()])

    def read(index: tuple[slice, ...]) -> np.ndarray:
        bounds = [part.indices(size)[:2] for part, size in zip(index, shape, strict=True)]
        first, last = bounds.pop(0) if stacked else (0, 1)
        span = dict(zip(ours, bounds, strict=True))
        if not stacked:  # the embedding is large: no second copy
            return _read_one(tensors[name], disk, ours, span, sizes).astype(dtype, copy=False)
        block = np.empty((last - first, *(stop - start for start, stop in bounds)), dtype)
        for row, key in enumerate(names[first:last]):
            block[row] = _read_one(tensors[key], disk, ours, span, sizes)
        return block

    return shape, read


def _read_one(tensor, disk, ours: str, span: dict, sizes: dict) -> np.ndarray:
    """One layer's block in our axes. Of heads x channels whole heads are read, then cut."""
    rows = []
    for group in disk:
        inner = math.prod(sizes[axis] for axis in group[1:])
        rows.append(slice(span[group[0]][0] * inner, span[group[0]][1] * inner))
    block = tensor[tuple(rows)]
    if _is_transposed(disk, ours):
        block = _transposed(block)
    leading = {group[0] for group in disk}
    block = block.reshape([span[a][1] - span[a][0] if a in leading else sizes[a] for a in ours])
    return block[tuple(slice(None) if a in leading else slice(*span[a]) for a in ours)]


def _is_transposed(disk: tuple[str, ...], ours: str) -> bool:
    """Linear layers are [out, in] on disk and [in, out] here; other tensors are alike."""
    return "".join(disk) != ours


def _transposed(matrix: np.ndarray) -> np.ndarray:
    """A contiguous transpose, some rows at a time: ten times as fast as NumPy's copy."""
    out = np.empty(matrix.shape[::-1], matrix.dtype)
    for start in range(0, len(matrix), 32):
        out[:, start : start + 32] = matrix[start : start + 32].T
    return out


def _place(shape: tuple[int, ...], read: Callable, sharding: Sharding) -> jax.Array:
    """A global array whose blocks are read one after the other, each once per host."""
    devices: dict[tuple, list] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        key = tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
        devices.setdefault(key, []).append(device)
    arrays = []
    for bounds, holders in devices.items():
        block = read(tuple(slice(*pair) for pair in bounds))
        copies = [jax.device_put(block, device) for device in holders]
        arrays += jax.block_until_ready(copies)  # or the transfers pile up on the host
        del block, copies
        gc.collect(0)  # JAX lets go of the host's block when Python collects
    return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def _disk_tensors(params: dict, config: Qwen3Config) -> Iterator[tuple[str, int, Callable]]:
    """(name, bytes, function that fetches it) of all tensors in the order they are written."""
    for path in _paths(config):
        array = _at(params, path)
        template, disk, ours = LAYOUT[path]
        stacked, turned = "{}" in template, _is_transposed(disk, ours)

        def value(layer, shape, array=array, stacked=stacked, turned=turned):
            one = np.asarray(array[layer] if stacked else array)
            return _transposed(one.reshape(shape[::-1])) if turned else one.reshape(shape)

        for layer, (name, shape) in enumerate(_names(config, path)):
            nbytes = math.prod(shape) * array.dtype.itemsize
            yield name, nbytes, functools.partial(value, layer, shape)


def _at(tree: dict, path: str):
    for key in path.split("/"):
        tree = tree[key]
    return tree
