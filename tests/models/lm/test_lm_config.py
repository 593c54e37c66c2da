"""config.json of each family: read, written, and refused if a feature is unsupported."""

import dataclasses
import json

import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm import (
    SIZES,
    LMConfig,
    RopeScaling,
    from_hf,
    num_params,
    read_config,
    to_hf,
)

TINY = LMConfig(61, 32, 40, 3, 4, 2, 16, 1e4, 1e-5, False, 64, (7, 8))
LLAMA = dataclasses.replace(TINY, family="llama", rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16))
QWEN2 = dataclasses.replace(TINY, family="qwen2", head_dim=8)


# Exact parameter counts of the released checkpoints.
@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("0.6B", 596_049_920),
        ("1.7B", 1_720_574_976),
        ("4B", 4_022_468_096),
        ("8B", 8_190_735_360),
        ("14B", 14_768_307_200),
        ("32B", 32_762_123_264),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(size, count):
    assert num_params(SIZES[size]) == count


@pytest.mark.parametrize("config", [TINY, LLAMA, QWEN2, *SIZES.values()])
def test_written_configs_read_back(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_hf(config)))
    assert read_config(tmp_path) == config


def test_transformers_reads_the_written_config():
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Qwen3Config(**to_hf(TINY))
    assert theirs.head_dim == 16 and theirs.num_key_value_heads == 2
    assert theirs.rope_parameters["rope_theta"] == 1e4
    assert theirs.eos_token_id == [7, 8]
    assert from_hf(json.loads(theirs.to_json_string(use_diff=False))) == TINY


@pytest.mark.parametrize("config", [LLAMA, QWEN2])
def test_transformers_reads_the_written_config_of_other_families(config):
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    values = to_hf(config)
    theirs = transformers.AutoConfig.for_model(**values)
    assert from_hf(json.loads(theirs.to_json_string(use_diff=False))) == config


def test_derived_sizes_may_be_omitted():
    for config in (LLAMA, QWEN2):
        values = to_hf(dataclasses.replace(config, head_dim=8, num_kv_heads=4, rope_theta=1e4))
        for key in ("head_dim", "num_key_value_heads", "rope_theta"):
            del values[key]
        got = from_hf(values)
        assert (got.head_dim, got.num_kv_heads, got.rope_theta) == (8, 4, 1e4)


def test_the_text_tower_of_a_vision_language_model():
    text = to_hf(TINY) | {"model_type": "qwen3_vl_text", "tie_word_embeddings": None}
    text["rope_scaling"] = {"rope_type": "default", "mrope_section": [4, 2, 2]}
    values = {"model_type": "qwen3_vl", "text_config": text, "tie_word_embeddings": False}
    assert from_hf(values) == TINY
    assert from_hf(values | {"tie_word_embeddings": True}).tie_embeddings
    with pytest.raises(UserError, match=r"quantised weights \(fp8\)"):
        from_hf(values | {"quantization_config": {"quant_method": "fp8"}})


@pytest.mark.parametrize(("eos", "ids"), [(None, ()), (5, (5,)), ([6, 5], (6, 5))])
def test_end_of_text_may_be_one_id_several_or_none(eos, ids):
    assert from_hf(to_hf(TINY) | {"eos_token_id": eos}).eos_token_ids == ids


def test_the_token_that_begins_a_text():
    assert from_hf(to_hf(TINY)).bos_token_id is None
    assert from_hf(to_hf(dataclasses.replace(TINY, bos_token_id=3))).bos_token_id == 3


def test_both_spellings_of_the_rope_base():
    values = to_hf(TINY) | {"rope_theta": None}
    nested = {"rope_theta": 5e5, "rope_type": "default"}
    assert from_hf(values | {"rope_parameters": nested}).rope_theta == 5e5
    assert from_hf(values | {"rope_theta": 5e5}).rope_theta == 5e5


YARN = {"rope_type": "yarn", "factor": 4.0}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "qwen3_moe", "num_experts": 128}, "model_type is 'qwen3_moe'"),
        ({"model_type": None}, "model_type is None"),
        ({"num_experts": 8}, "mixture of experts"),
        ({"rope_scaling": YARN}, "RoPE scaling 'yarn'"),
        ({"rope_parameters": YARN | {"rope_theta": 1e6}}, "RoPE scaling 'yarn'"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding-window"),
        (
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "sliding-window",
        ),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantised weights (unknown)"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised weights (gptq)"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"partial_rotary_factor": 0.5}, "RoPE on part of"),
        ({"dual_chunk_attention_config": {"chunk_size": 8}}, "dual-chunk"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "'llama3' without positive"),
        ({"head_dim": None}, "no positive head_dim"),
        ({"head_dim": 5}, "head_dim 5 is odd"),
        ({"num_hidden_layers": "3"}, "no positive num_hidden_layers"),
        ({"num_key_value_heads": 3}, "4 attention heads are not a multiple of 3"),
        ({"rope_theta": None}, "no rope_theta"),
        ({"rope_theta": 10**400}, "too large a number"),
    ],
)
def test_unsupported_features_are_refused_by_name(change, reason):
    with pytest.raises(UserError, match=r"config\.json") as caught:
        from_hf(to_hf(TINY) | change)
    assert reason in str(caught.value)


def test_an_unused_sliding_window_is_fine():
    unused = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
    late = {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 28}
    assert from_hf(to_hf(TINY) | unused) == from_hf(to_hf(TINY) | late) == TINY


@pytest.mark.parametrize("content", [None, "{", "[1]", b"\xff\xfe"])
def test_an_unreadable_config_file_is_named(content, tmp_path):
    path = tmp_path / "config.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"config\.json"):
        read_config(tmp_path)
