"""Opening language models, and the token that ends their captions."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from tokenizers import AddedToken

from hocslm_jax.data.tokenizer import save_tokenizer, train_tokenizer
from hocslm_jax.errors import UserError
from hocslm_jax.language.open import open_language, open_without_weights, read_language
from hocslm_jax.models.lm import LMConfig, param_shapes, save_params
from hocslm_jax.sharding import make_mesh
from hocslm_jax.train.check_settings import check_used
from hocslm_jax.train.experiment import apply, defaults


def saved(folder, ends):
    """A model that names `ends`, with a tokenizer that ends a text with <|endoftext|>, id 0."""
    tokenizer = train_tokenizer(["A person waves."], 280)
    tokenizer.backend.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    tokenizer = dataclasses.replace(tokenizer, size=tokenizer.size + 1)
    config = LMConfig(512, 8, 16, 1, 2, 1, 4, eos_token_ids=ends)
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), param_shapes(config))
    save_params(params, config, folder)
    save_tokenizer(tokenizer, folder)
    return tokenizer.size - 1


def test_a_base_model_ends_captions_with_its_own_token_and_stops_at_both(tmp_path):
    chat = saved(tmp_path / "first", (0,))
    config, tokenizer = read_language(tmp_path / "first")
    assert (tokenizer.eos_id, config.eos_token_ids) == (0, (0,))
    saved(tmp_path / "second", (chat,))
    config, tokenizer = read_language(tmp_path / "second")
    assert (tokenizer.eos_id, config.eos_token_ids) == (chat, (chat, 0))
    assert tokenizer.decode([*tokenizer.encode("A person"), chat, 5]) == "A person"


def test_ordinary_word_as_end_token_is_refused(tmp_path):
    saved(tmp_path, (40,))
    with pytest.raises(UserError, match="use the tokenizer of the same model"):
        read_language(tmp_path)


def test_weights_in_few_bits_are_opened_or_refused_by_name(tmp_path):
    saved(tmp_path, (0,))
    lm = defaults().lm
    lm.update(init="load", name=str(tmp_path), weights="int8")
    language = open_language(lm, make_mesh(devices=jax.devices()[:1]), tmp_path)
    block = language.params["blocks"]
    assert block["up"]["kernel"].dtype == "int8" and block["up"]["scale"].dtype == "float32"
    assert (
        block["q_norm"]["scale"].dtype == language.params["embed"]["embedding"].dtype == "bfloat16"
    )
    assert language.model.weights == "int8"
    lm.weights = "int4"
    with pytest.raises(
        UserError, match=r"weights=int4 needs multiples of 8, but this model's head_"
    ):
        open_without_weights(lm, tmp_path)


@pytest.mark.parametrize("arguments", ["strategy=T3", "strategy=T0,llm=Qwen/Qwen3-0.6B"])
def test_few_bits_without_a_loaded_model_are_refused(arguments):
    config = apply(defaults(), f"{arguments},lm.weights=int8")
    with pytest.raises(UserError, match=r"lm\.weights=int8 would change nothing"):
        check_used(config, ["lm.weights"])


def test_the_published_pair_of_a_base_model(shared, tmp_path):
    cases = shared / "cases/qwen3_base_eos"
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((cases / name).read_bytes())
    vocabulary = shared / "data/qwen3_tokenizer/tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(vocabulary.read_bytes())
    config, tokenizer = read_language(tmp_path)
    assert tokenizer.eos_id == 151643 and config.eos_token_ids == (151643, 151645)
