"""Qwen3 against stored results of transformers (see make_golden.py); runs without PyTorch."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from hocslm_jax.models.lm import DecoderLM, generate, load_params, read_config

FILE = Path(__file__).with_name("golden_qwen3.npz")


@pytest.fixture(scope="module", params=["grouped", "narrow heads"])
def golden(request, tmp_path_factory):
    """(stored arrays, our model, our parameters), with the checkpoint loaded as usual."""
    with np.load(FILE) as file:
        prefix = f"{request.param}/"
        arrays = {k.removeprefix(prefix): file[k] for k in file.files if k.startswith(prefix)}
    folder = tmp_path_factory.mktemp("golden")
    (folder / "config.json").write_text(str(arrays["config"]))
    tensors = {k.removeprefix("tensor/"): v for k, v in arrays.items() if k.startswith("tensor/")}
    save_file(tensors, folder / "model.safetensors")
    config = read_config(folder)
    return arrays, DecoderLM(config, "float32"), load_params(folder, config)


def test_logits_and_input_gradients(golden):
    arrays, model, params = golden
    mask = np.arange(arrays["logits"].shape[1]) < arrays["lengths"][:, None]

    @jax.jit
    def run(embeddings):
        def scalar(embeddings):
            hidden = model.apply({"params": params}, embeddings)
            logits = model.apply({"params": params}, hidden, method="logits")
            return jnp.sum(logits * arrays["weights"]), logits

        return jax.grad(scalar, has_aux=True)(embeddings)

    gradient, logits = run(arrays["embeddings"])
    np.testing.assert_allclose(logits[mask], arrays["logits"][mask], atol=1e-4, rtol=0)
    np.testing.assert_allclose(gradient, arrays["gradient"], atol=1e-4, rtol=1e-4)


def test_greedy_texts(golden):
    arrays, model, params = golden
    tokens, _ = generate(
        model,
        params,
        arrays["embeddings"],
        max_new_tokens=arrays["texts"].shape[1],
        eos_ids=(),
        pad_id=0,
        prefix_lengths=arrays["lengths"],
    )
    np.testing.assert_array_equal(tokens, arrays["texts"])
