"""DecoderLM parameters -> Hugging Face safetensors, which `load.py` and transformers read."""

import math
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors.numpy import save_file

from hocslm_jax.files.atomic import write_json
from hocslm_jax.models.lm.config import LMConfig, to_hf
from hocslm_jax.models.lm.load import INDEX, transpose
from hocslm_jax.models.lm.tensor_table import Parameter, parameters, published_name


def save_params(
    params: dict, config: LMConfig, folder: str | Path, max_shard_bytes: int = 5 * 10**9
) -> None:
    """Writes a folder that `load_params` and `transformers` read: safetensors and config.json.

    There are several files and an index if the tensors exceed `max_shard_bytes`; the host holds one
    file's tensors at a time. config.json is written last, so that an unfinished folder is not
    mistaken for a complete one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in ("config.json", INDEX):
        (folder / stale).unlink(missing_ok=True)
    tensors, arrays = {}, flatten_dict(params, sep="/")
    for path, parameter in parameters(config).items():
        for layer, name in enumerate(parameter.names):
            tensors[published_name(name)] = (arrays[path], parameter, layer)
    split = split_state_dict_into_shards_factory(
        tensors,
        get_storage_size=lambda at: math.prod(at[1].disk_shape) * at[0].dtype.itemsize,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=max_shard_bytes,
    )
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / INDEX, index, indent=2)
    for file, names in split.filename_to_tensors.items():
        save_file({name: _fetch(*tensors[name]) for name in names}, folder / file, {"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors makes files that only their owner can read
    dtype = str(params["embed"]["embedding"].dtype)
    write_json(folder / "config.json", to_hf(config) | {"torch_dtype": dtype}, indent=2)


def _fetch(array: jax.Array, parameter: Parameter, layer: int) -> np.ndarray:
    """One tensor as it is on disk."""
    one, shape = np.asarray(array[layer] if parameter.stacked else array), parameter.disk_shape
    return transpose(one.reshape(shape[::-1])) if parameter.transposed else one.reshape(shape)
