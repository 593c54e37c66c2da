"""A checkpoint of Qwen3-0.6B's full size, written by transformers with random weights in shards."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from hocslm_jax.models.qwen3 import SIZES, Qwen3, load_params, read_config, to_hf

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(folder, transformers' model in bfloat16); 1.2 GB, deleted when the tests are over."""
    folder = tmp_path_factory.mktemp("full_size")
    values = to_hf(SIZES["0.6B"])
    with torch.device("meta"):
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**values))
    model = model.to(torch.bfloat16).to_empty(device="cpu").eval()
    model.tie_weights()
    _fill(model)
    model.save_pretrained(folder, max_shard_size="500MB")
    yield folder, model
    shutil.rmtree(folder)


def _fill(model):
    """Random weights, cheaply: one random sequence of an odd length, over and over."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((1 << 20) + 997, generator=generator).to(torch.bfloat16)
    matrix_noise = 0.03 * noise
    with torch.no_grad():
        for n, weight in enumerate(model.parameters()):
            flat = weight.view(-1)
            if weight.ndim == 1:
                flat.copy_(1 + 0.1 * noise[n * 300 : n * 300 + len(flat)])
                continue
            shifted = matrix_noise.roll(n)
            for part in flat.split(len(noise)):
                part.copy_(shifted[: len(part)])
    rotary = model.model.rotary_emb  # not a parameter, so still empty
    rotary.inv_freq = rotary.compute_default_rope_parameters(model.config)[0]


def test_logits_of_the_full_size_checkpoint(checkpoint):
    folder, reference = checkpoint
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    config = read_config(folder)
    assert config == SIZES["0.6B"]

    params = load_params(folder, config)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    tokens = np.random.default_rng(0).integers(config.vocab_size, size=(2, 6))
    tokens[1, 4:] = 0
    mask = np.array([[1] * 6, [1] * 4 + [0] * 2])
    model = Qwen3(config, "float32")

    @jax.jit
    def run(params, tokens):
        embeddings = model.apply({"params": params}, tokens, method="embed")
        hidden = model.apply({"params": params}, embeddings)
        return model.apply({"params": params}, hidden, method="logits")

    got = np.asarray(run(params, tokens))
    with torch.no_grad():
        want = reference.float()(
            input_ids=torch.tensor(tokens), attention_mask=torch.tensor(mask)
        ).logits.numpy()
    valid = mask.astype(bool)
    scale = np.abs(want[valid]).max()
    worst = np.abs(got - want)[valid].max() / scale
    print(f"largest difference {worst:.1e} of the largest logit {scale:.1f}")
    assert np.std(want[valid]) > 0.1
    assert worst <= 1e-4


def test_the_float32_copy_is_the_same_numbers(checkpoint):
    folder, _ = checkpoint
    config = read_config(folder)
    params = load_params(folder, config, dtype="float32")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    files = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    layer, kernel = 17, params["blocks"]["k"]["kernel"]  # [L, D, K, H]
    name = f"model.layers.{layer}.self_attn.k_proj.weight"
    with safe_open(folder / files[name], "numpy") as file:
        stored = file.get_tensor(name).astype(np.float32)  # [K * H, D]
    np.testing.assert_array_equal(np.asarray(kernel[layer]).reshape(stored.shape[::-1]), stored.T)
