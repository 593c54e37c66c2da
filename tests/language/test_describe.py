"""Sentences and likelihoods of a batch equal those of one clip and one sentence at a time."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax.data.caption_bank import ClassText
from hocslm_jax.data.tokenizer import train_tokenizer
from hocslm_jax.errors import UserError
from hocslm_jax.language import describe
from hocslm_jax.models.lm import DecoderLM, LMConfig, head_matrix, param_shapes

TEXTS = {
    "wave": ClassText(("waves",), ("A person waves.", "Someone waves a hand.")),
    "kick": ClassText(("kicks",), ("A person kicks the ball far away.",)),
}


@pytest.fixture(scope="module")
def language():
    tokenizer = train_tokenizer([c for t in TEXTS.values() for c in t.captions], 280)
    config = LMConfig(tokenizer.size, 16, 32, 2, 2, 1, 8, eos_token_ids=(tokenizer.eos_id,))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(0.1 * rng.normal(size=leaf.shape), "float32"), param_shapes(config)
    )
    return types.SimpleNamespace(
        model=DecoderLM(config, "float32"), params=params, tokenizer=tokenizer
    )


@pytest.fixture(scope="module")
def prefix():
    """[B, 1 + P, H]; the tests share its shape, and so what is compiled."""
    return jax.random.normal(jax.random.key(1), (4, 2, 16))


def test_class_sentences_are_padded_to_one_shape(language):
    tokens, lengths = describe.class_sentences(language, TEXTS, 2, 48)
    assert tokens.shape[:2] == lengths.shape == (2, 2) and lengths[1, 1] == 0
    for row, label, place in (("wave", 0, 1), ("kick", 1, 0)):
        ids = tokens[label, place, : lengths[label, place]]
        assert ids[-1] == language.tokenizer.eos_id
        assert language.tokenizer.decode(ids) == TEXTS[row].captions[place]


def test_likelihoods_are_the_mean_over_each_sentences_tokens(language, prefix):
    tokens, lengths = describe.class_sentences(language, TEXTS, 2, 48)
    flat = (tokens.reshape(4, -1), lengths.reshape(4))
    got = describe.log_likelihoods(language.model, language.params, prefix, *flat)
    assert got.shape == (4, 4) and np.isnan(got[:, 3]).all()
    table = language.params["embed"]["embedding"]
    read = jax.jit(lambda z: language.model.apply({"params": language.params}, z))
    for s in (0, 2):
        ids = flat[0][s, : flat[1][s]]
        words = jnp.broadcast_to(table[ids[:-1]], (4, len(ids) - 1, 16))
        states = read(jnp.concatenate([prefix, words], axis=1))
        logits = states[:, 1:] @ head_matrix(language.params).T
        logp = jax.nn.log_softmax(logits)[:, np.arange(len(ids)), ids]
        np.testing.assert_allclose(got[:, s], logp.mean(axis=1), rtol=1e-4)


def test_descriptions_do_not_depend_on_the_batch(language, prefix):
    decoding = describe.Decoding(max_new_tokens=6)
    together = describe.describe(language, prefix, decoding)
    assert together == describe.describe(language, prefix[::-1], decoding)[::-1]
    assert len(set(together)) > 1
    drawn = [
        describe.describe(language, prefix, describe.Decoding(6, 1.0, seed=seed))
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_padding_is_not_described(language, prefix):
    tokens = describe.class_sentences(language, TEXTS, 2, 48)
    batches = [{"row": np.array([5, 0, 1, -1])}, {"row": np.array([2, 3, -1, -1])}]
    decoding = describe.Decoding(max_new_tokens=6)
    prefixes = lambda batch: (prefix, batch["row"])  # noqa: E731
    score = functools.partial(describe.log_likelihoods, language.model, language.params)
    rest = (decoding, tokens, score)
    said, likelihood = describe.describe_clips(language, prefixes, batches, *rest)
    assert set(said) == set(likelihood) == {0, 1, 2, 3, 5}
    assert said[5] == said[2] and likelihood[2].shape == (2, 2)
    with pytest.raises(UserError, match="no test clips"):
        describe.describe_clips(language, prefixes, [], *rest)


def test_the_summary_counts_names_and_likelihoods():
    store = types.SimpleNamespace(
        name="toy", ids=("a", "b", "c"), labels=np.array([0, 1, 1]), classes=("wave", "kick")
    )
    said = {0: "Someone waves a hand.", 2: "A person waves."}
    likelihood = {0: np.array([[-1.0], [-2.0]]), 2: np.array([[-3.0], [-2.0]])}
    truth = {0: ("A person waves.",), 2: ("A person kicks.",)}
    rows, scores = describe.summarise(store, said, likelihood, truth.__getitem__)
    assert [row["id"] for row in rows] == ["a", "c"]
    assert scores["clips"] == 2 and scores["likelihood_correct"] == 2
    assert [row["truth"] for row in rows] == ["wave", "kick"]
