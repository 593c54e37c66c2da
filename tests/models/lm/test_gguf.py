"""GGUF files against gguf's own numbers: types, the order of q and k, sizes, and refusals."""

import dataclasses
import struct

import jax
import numpy as np
import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm import LMConfig, RopeScaling, load_params, param_shapes, read_config
from hocslm_jax.models.lm.gguf_file import SUFFIX
from hocslm_jax.models.lm.rope import rope_frequencies
from hocslm_jax.models.lm.tensor_table import parameters

gguf = pytest.importorskip("gguf")
fuzz_gguf = pytest.importorskip("benchmarks.fuzz_gguf")

SIZES = LMConfig(32, 256, 256, 2, 4, 2, 64, 1e4, 1e-5, False, 64, (2,), "llama")
# Where a block of a K type holds float16 scales; other bytes may be anything.
SCALES = {"Q4_K": (144, [0, 2]), "Q6_K": (210, [208])}


def encoded(shape, kind, rng):
    """Rows of a tensor in the file's type."""
    values = rng.normal(size=shape).astype(np.float32)
    if kind not in SCALES:
        return gguf.quantize(values, gguf.GGMLQuantizationType[kind])
    size, places = SCALES[kind]
    blocks = rng.integers(0, 256, (shape[0], shape[1] // 256, size), dtype=np.uint8)
    for place in places:
        scale = np.float16(rng.normal(size=blocks.shape[:2])).view(np.uint8)
        blocks[..., place : place + 2] = scale.reshape(*blocks.shape[:2], 2)
    return blocks.reshape(shape[0], -1)


def as_llama_cpp(rows, heads):
    """The rows of q or k as llama.cpp's converter writes them: neighbours form a pair."""
    order = np.arange(len(rows)).reshape(heads, 2, -1).swapaxes(1, 2).ravel()
    return rows[order]


def write(path, config, kind="F32", change=lambda writer: None, leave_out=()):
    """Writes random weights; returns path -> layers of numbers [out, in] as read by gguf."""
    rng, found = np.random.default_rng(0), {}
    writer = gguf.GGUFWriter(path, config.family)
    fuzz_gguf.add_sizes(writer, config)
    change(writer)
    for ours, parameter in parameters(config).items():
        found[ours] = []
        for name in parameter.gguf:
            vector = len(parameter.disk_shape) == 1
            used = gguf.GGMLQuantizationType["F32" if vector else kind]
            if vector:
                rows = rng.normal(size=parameter.disk_shape).astype(np.float32)
            else:
                rows = encoded(parameter.disk_shape, kind, rng)
            found[ours].append(gguf.dequantize(rows, used))
            heads = {"attn_q.weight": config.num_heads, "attn_k.weight": config.num_kv_heads}
            count = heads.get(name.split(".", 2)[-1])
            if count and config.family == "llama":
                rows = as_llama_cpp(rows, count)
            if name not in leave_out:
                writer.add_tensor(name, rows, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found


KINDS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_of_gguf(kind, tmp_path):
    path = tmp_path / f"model{SUFFIX}"
    want = write(path, SIZES, kind)
    assert read_config(path) == SIZES
    params = load_params(path, SIZES)
    assert jax.tree.map(lambda a: a.shape, params) == jax.tree.map(
        lambda a: a.shape, param_shapes(SIZES)
    )
    assert kind == "F32" or np.abs(want["blocks/up/kernel"][0]).max() > 0.5
    for ours, layers in want.items():
        got = params
        for key in ours.split("/"):
            got = got[key]
        got = np.asarray(got) if ours.startswith("blocks/") else np.asarray(got)[None]
        for one, numbers in zip(got, layers, strict=True):
            turned = numbers.T if ours.endswith("kernel") else numbers
            np.testing.assert_array_equal(one.reshape(turned.shape), turned)


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(SIZES, family="qwen2", tie_embeddings=True),
        dataclasses.replace(SIZES, family="qwen3", num_layers=1),
    ],
)
def test_other_families_keep_their_order(config, tmp_path):
    path = tmp_path / "model.GGUF"
    want = write(path, config)
    assert read_config(path) == config
    kernel = load_params(path, config)["blocks"]["q"]["kernel"]
    np.testing.assert_array_equal(
        np.asarray(kernel[0]).reshape(256, -1), want["blocks/q/kernel"][0].T
    )


def test_llama_3_rope_scaling_is_read(tmp_path):
    scaled = dataclasses.replace(
        SIZES, rope_theta=5e5, rope_scaling=RopeScaling(32.0, 1.0, 4.0, 8192)
    )
    plain = dataclasses.replace(scaled, rope_scaling=None)
    factors = np.asarray(rope_frequencies(plain) / rope_frequencies(scaled))
    path, other = tmp_path / "model.gguf", tmp_path / "other.gguf"
    write(path, plain, change=lambda writer: writer.add_tensor("rope_freqs.weight", factors))
    assert read_config(path) == scaled
    assert load_params(path, scaled)["norm"]["scale"].shape == (256,)
    write(other, plain, change=lambda w: w.add_tensor("rope_freqs.weight", factors[::-1].copy()))
    with pytest.raises(UserError, match="rope_freqs"):
        read_config(other)


def test_unsupported_or_damaged_files_give_one_line(tmp_path):
    def refused(message, config=SIZES, **how):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.gguf"
        write(path, config, **how)
        with pytest.raises(UserError, match=message) as caught:
            load_params(path, read_config(path))
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
        return path

    refused("model_type is 'gemma3'", dataclasses.replace(SIZES, family="llama"), change=gemma)
    refused("mixture of experts", change=lambda writer: writer.add_expert_count(8))
    refused("sliding-window", change=lambda writer: writer.add_sliding_window(64))
    yarn = gguf.RopeScalingType.YARN
    refused("RoPE scaling 'yarn'", change=lambda writer: writer.add_rope_scaling_type(yarn))
    path = refused(r"missing layers\.1\.mlp\.up_proj\.weight", leave_out=("blk.1.ffn_up.weight",))
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(UserError, match="damaged"):
        read_config(path)
    path.write_bytes(b"version https://example")
    with pytest.raises(UserError, match="damaged"):
        read_config(path)
    with pytest.raises(UserError, match="no GGUF file"):
        read_config(tmp_path / "no.gguf")


def gemma(writer):
    writer.kv_data[0]["general.architecture"].value = "gemma3"


@pytest.mark.parametrize("count", [2**40, 2**63])
def test_metadata_beyond_the_end_of_the_file_is_refused_at_once(count, tmp_path):
    path = tmp_path / "model.gguf"
    key = b"general.tags"
    array = struct.pack("<IIQ", gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT8, count)
    header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    path.write_bytes(header + struct.pack("<Q", len(key)) + key + array)
    with pytest.raises(UserError, match="is damaged"):
        read_config(path)
