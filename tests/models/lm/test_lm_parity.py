"""Every family against transformers: logits, gradients of the inputs, texts. Needs PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lm_reference import (
    LAYOUTS,
    LENGTHS,
    inputs,
    reference_logits,
    reference_model,
    reference_texts,
)

from hocslm_jax.models.lm import DecoderLM, generate, load_params, read_config
from hocslm_jax.models.lm.model import RMSNorm

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=LAYOUTS)
def pair(request, tmp_path_factory):
    """(layout, transformers' model, our model, our parameters) of one checkpoint."""
    layout = LAYOUTS[request.param]
    reference = reference_model(layout)
    folder = tmp_path_factory.mktemp("checkpoint")
    reference.save_pretrained(folder)
    config = read_config(folder)
    return layout, reference, DecoderLM(config, "float32"), load_params(folder, config)


def logits_and_gradient(model, params, embeddings, weights):
    @jax.jit
    def run(params, embeddings):
        def scalar(embeddings):
            hidden = model.apply({"params": params}, embeddings)
            logits = model.apply({"params": params}, hidden, method="logits")
            return jnp.sum(logits * weights), logits

        gradient, logits = jax.grad(scalar, has_aux=True)(embeddings)
        return logits, gradient

    return run(params, embeddings)


def test_logits_and_input_gradients_of_a_ragged_batch(pair):
    layout, reference, model, params = pair
    embeddings, mask, weights = inputs(layout)
    want, want_gradient = reference_logits(reference, embeddings, mask, weights)
    got, gradient = logits_and_gradient(model, params, embeddings, weights)
    assert got.dtype == jnp.float32
    assert np.std(want[mask]) > 0.5  # logits are not trivial
    np.testing.assert_allclose(got[mask], want[mask], atol=1e-4, rtol=0)
    np.testing.assert_allclose(gradient[mask], want_gradient[mask], atol=1e-4, rtol=1e-4)
    assert not np.any(gradient[~mask])  # no gradient in the padding
    worst = np.abs(got - want)[mask].max(), np.abs(gradient - want_gradient)[mask].max()
    print(f"largest difference: logits {worst[0]:.1e}, gradients {worst[1]:.1e}")


def test_greedy_texts_of_ragged_prefixes_token_for_token(pair):
    layout, reference, model, params = pair
    embeddings, _, _ = inputs(layout)
    texts = reference_texts(reference, embeddings, LENGTHS, max_new_tokens=16)
    tokens, lengths = generate(
        model, params, embeddings, max_new_tokens=16, eos_ids=(), pad_id=0, prefix_lengths=LENGTHS
    )
    assert tokens.tolist() == texts
    assert lengths.tolist() == [16] * len(LENGTHS)
    assert len({token for text in texts for token in text}) > 8  # not a single repeated token


def test_embedded_tokens_match(pair):
    layout, reference, model, params = pair
    import torch

    tokens = np.random.default_rng(3).integers(layout["vocab_size"], size=(2, 5))
    ours = model.apply({"params": params}, tokens, method="embed")
    theirs = reference.get_input_embeddings()(torch.tensor(tokens))
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_the_text_part_of_a_vision_language_model(tmp_path):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
    layout = LAYOUTS["grouped"] | {"rope_parameters": rope | {"mrope_interleaved": True}}
    tied = {"tie_word_embeddings": layout.pop("tie_word_embeddings")}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    vision |= {"out_hidden_size": 32, "deepstack_visual_indexes": [0]}
    values = transformers.Qwen3VLConfig(text_config=layout, vision_config=vision, **tied)
    reference = transformers.Qwen3VLForConditionalGeneration(values).float().eval()
    reference.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    params, model = load_params(tmp_path, config), DecoderLM(config, "float32")
    tokens = np.random.default_rng(3).integers(8, 50, size=(2, 9))
    with torch.no_grad():
        want = reference(input_ids=torch.tensor(tokens)).logits.numpy()
    embeddings = model.apply({"params": params}, tokens, method="embed")
    hidden = jax.jit(model.apply)({"params": params}, embeddings)
    got = model.apply({"params": params}, hidden, method="logits")
    np.testing.assert_allclose(got, want, atol=1e-5, rtol=0)
    assert np.std(want) > 0.01


def test_bfloat16_stays_near_transformers_bfloat16(tmp_path):
    import torch

    layout = LAYOUTS["grouped"]
    reference = reference_model(layout).to(torch.bfloat16)
    reference.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    params = load_params(tmp_path, config)
    embeddings, _, _ = inputs(layout)
    with torch.no_grad():
        given = torch.tensor(embeddings).to(torch.bfloat16)
        want = reference(inputs_embeds=given).logits.float().numpy()
    model = DecoderLM(config)
    hidden = jax.jit(model.apply)({"params": params}, embeddings)
    got = model.apply({"params": params}, hidden, method="logits")
    assert hidden.dtype == jnp.bfloat16
    assert np.linalg.norm(got - want) < 0.03 * np.linalg.norm(want)


def test_the_norm_rounds_before_scaling():
    """In bfloat16 the order matters: the other one rounds a third of the numbers differently."""
    import torch
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(50, 64))).to(torch.bfloat16)
    theirs = Qwen3RMSNorm(64, 1e-6).to(torch.bfloat16)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(1 + 0.3 * rng.normal(size=64)))
        want = theirs(x).float().numpy()
    scale = jnp.asarray(theirs.weight.detach().float().numpy(), jnp.bfloat16)
    values = jnp.asarray(x.float().numpy(), jnp.bfloat16)
    got = RMSNorm(1e-6).apply({"params": {"scale": scale}}, values)
    assert got.dtype == jnp.bfloat16
    assert np.mean(np.asarray(got, np.float32) != want) < 0.01


def test_rows_stop_at_their_own_end_of_text(tmp_path):
    layout = LAYOUTS["grouped"]
    reference = reference_model(layout, seed=5)
    reference.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    embeddings, _, _ = inputs(layout, seed=6)
    free = reference_texts(reference, embeddings, LENGTHS, max_new_tokens=12)
    eos = free[0][4]  # ends the first row at its fifth token at the latest, maybe others too
    stopped = reference_texts(reference, embeddings, LENGTHS, max_new_tokens=12, eos_id=eos)
    tokens, lengths = generate(
        DecoderLM(config, "float32"),
        load_params(tmp_path, config),
        embeddings,
        max_new_tokens=12,
        eos_ids=(eos, 60),
        pad_id=0,
        prefix_lengths=LENGTHS,
    )
    want = [text[: text.index(60) + 1] if 60 in text else text for text in stopped]
    assert tokens.tolist() == [text + [0] * (12 - len(text)) for text in want]
    assert lengths.tolist() == [len(text) - (text[-1] in (eos, 60)) for text in want]
    assert min(lengths) < 5
