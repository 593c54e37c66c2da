"""A small GGUF file and the parser of such files, for `benchmarks.fuzz`.

In: nothing. Out: bytes of a language model of one layer, and a function that reads all of a file.
"""

import tempfile
from pathlib import Path

import gguf
import numpy as np

from hocslm_jax.language.gguf_tokenizer import gguf_tokenizer
from hocslm_jax.models.lm.config import LMConfig, from_hf
from hocslm_jax.models.lm.gguf_file import read_gguf_config, read_metadata
from hocslm_jax.models.lm.load import load_params
from hocslm_jax.models.lm.tensor_table import parameters

_SIZES = {
    "model_type": "llama",
    "vocab_size": 4,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 16,
    "eos_token_id": 3,
}


def read(path: Path) -> None:
    """Sizes, tokenizer and weights. Raises UserError."""
    config = read_gguf_config(path)
    gguf_tokenizer(read_metadata(path), path)
    load_params(path, config)


def seed() -> bytes:
    """A valid file."""
    config = from_hf(_SIZES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.gguf")
        writer = gguf.GGUFWriter(path, config.family)
        add_sizes(writer, config)
        _add_tokenizer(writer)
        for parameter in parameters(config).values():
            for name in parameter.gguf:
                writer.add_tensor(name, np.ones(parameter.disk_shape, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def add_sizes(writer: gguf.GGUFWriter, config: LMConfig) -> None:
    """Writes the metadata with the model's sizes."""
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_layers)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_context_length(config.max_positions)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_eos_token_id(config.eos_token_ids[0])


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(["a", "b", "ab", "<end>"])
    writer.add_token_merges(["a b"])
    writer.add_token_types([1, 1, 1, 3])
