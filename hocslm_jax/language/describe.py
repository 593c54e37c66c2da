"""Describes clips with a trained model, and classifies them by the language model's likelihoods.

In: batches of clips, a function from clips to prefixes [v; P] (eq. 13), a language model. Out: a
sentence for each clip, the log-likelihoods of each class's sentences, and scores of both. It runs
after training only; classification does not need it.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from hocslm_jax.data.caption_bank import ClassText, bank, named_class
from hocslm_jax.data.store import Store
from hocslm_jax.data.tokenizer import encode_caption
from hocslm_jax.errors import UserError
from hocslm_jax.language.description_scores import class_from_likelihood, score_descriptions
from hocslm_jax.losses import token_scores
from hocslm_jax.models.hocslm import caption_states
from hocslm_jax.models.lm import generate, head_matrix


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How sentences are decoded; temperature 0 takes the likeliest token (greedy)."""

    max_new_tokens: int = 48
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0


def describe(language, prefix: jax.Array, decoding: Decoding = Decoding()) -> list[str]:
    """One sentence for each row of prefix [B, 1 + P, H]."""
    tokenizer, config = language.tokenizer, language.model.config
    tokens, lengths = generate(
        language.model,
        language.params,
        prefix,
        max_new_tokens=decoding.max_new_tokens,
        eos_ids=tuple({tokenizer.eos_id, *config.eos_token_ids}),
        pad_id=tokenizer.pad_id,
        temperature=decoding.temperature,
        top_k=decoding.top_k,
        top_p=decoding.top_p,
        key=jax.random.key(decoding.seed),
    )
    tokens, lengths = multihost_utils.process_allgather((tokens, lengths), tiled=True)
    return [tokenizer.decode(row[:n]).strip() for row, n in zip(tokens, lengths, strict=True)]


def class_sentences(
    language, texts: Mapping[str, ClassText], count: int, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` sentences of every class: ids int32 [C, K, L] and lengths int32 [C, K].

    A class with fewer sentences is padded with lengths of 0.
    """
    encoded = [
        [encode_caption(language.tokenizer, caption, limit)[0] for caption in text.captions[:count]]
        for text in texts.values()
    ]
    longest = max(len(ids) for sentences in encoded for ids in sentences)
    tokens = np.zeros((len(encoded), count, longest), np.int32)
    lengths = np.zeros((len(encoded), count), np.int32)
    for label, sentences in enumerate(encoded):
        for place, ids in enumerate(sentences):
            tokens[label, place, : len(ids)], lengths[label, place] = ids, len(ids)
    return tokens, lengths


@functools.partial(jax.jit, static_argnums=(0, 5))
def log_likelihoods(lm, params, prefix, tokens, lengths, chunk: int = 16) -> jax.Array:
    """Mean log-probability per token of each sentence [S, L] after each prefix: [B, S].

    One sentence at a time for the whole batch, so that B x S x L hidden states are never in memory.
    """

    def one(sentence):
        ids, length = sentence
        ids = jnp.broadcast_to(ids, (len(prefix), len(ids)))
        hidden = caption_states(lm, params, prefix, ids)
        nll, _ = token_scores(hidden, head_matrix(params), ids, chunk)  # [B, L]
        real = jnp.arange(ids.shape[1]) < length
        return -(nll * real).sum(axis=1) / length  # NaN for padding

    return jax.lax.map(one, (tokens, lengths)).T


@functools.partial(jax.jit, static_argnums=0)
def sentence_embeddings(lm, params, tokens, lengths) -> jax.Array:
    """The mean of the last hidden states over the words of each sentence [S, L]: [S, H].

    The language model reads the sentence without a prefix; EOS is left out. NaN for an empty one.
    """

    def one(sentence):
        ids, length = sentence
        words = lm.apply({"params": params}, ids[None], method="embed")  # [1, L, H]
        hidden = lm.apply({"params": params}, words)[0].astype(jnp.float32)  # [L, H]
        real = jnp.arange(len(ids)) < length - 1
        return (hidden * real[:, None]).sum(axis=0) / real.sum()

    return jax.lax.map(one, (tokens, lengths))


def describe_clips(
    language,
    prefixes: Callable[[dict], jax.Array],
    batches: Iterable[dict[str, np.ndarray]],
    decoding: Decoding,
    sentences: tuple[np.ndarray, np.ndarray],
    likelihoods: Callable,
) -> tuple[dict[int, str], dict[int, np.ndarray]]:
    """Row of the store -> its sentence, and -> its log-likelihoods [C, K].

    Args:
        prefixes: maps a batch of this host to the global prefixes [B, 1 + P, H] and rows [B].
        sentences: from `class_sentences`.
        likelihoods: `log_likelihoods` with this language model, given the rest of its arguments.
    """
    tokens, lengths = sentences
    flat = (tokens.reshape(-1, tokens.shape[-1]), lengths.reshape(-1))
    descriptions, likelihood = {}, {}
    for batch in batches:
        prefix, rows = prefixes(batch)
        texts = describe(language, prefix, decoding)
        loglik = likelihoods(prefix, *flat)
        rows, loglik = multihost_utils.process_allgather((rows, loglik), tiled=True)
        for row, text, values in zip(rows.tolist(), texts, loglik, strict=True):
            if row >= 0:
                descriptions[row] = text
                likelihood[row] = values.reshape(lengths.shape)
    if not descriptions:
        raise UserError("nothing to describe: there are no test clips")
    return descriptions, likelihood


def by_row(
    outputs: Callable[[dict], tuple[jax.Array, jax.Array]], batches: Iterable[dict[str, np.ndarray]]
) -> dict[int, np.ndarray]:
    """Row of the store -> the output for its clip.

    Args:
        outputs: maps a batch of this host to the global outputs [B, …] and rows [B].
    """
    found = {}
    for batch in batches:
        values, rows = outputs(batch)
        pair = multihost_utils.process_allgather((rows, values), tiled=True)
        found |= {int(row): value for row, value in zip(*pair, strict=True) if row >= 0}
    return found


def summarise(
    store: Store, descriptions: Mapping[int, str], likelihood: Mapping[int, np.ndarray], references
) -> tuple[list[dict], dict]:
    """Rows for `write_descriptions`, and the scores of all of them.

    Args:
        descriptions, likelihood: from `describe_clips`.
        references: row of the store -> one or more reference sentences.
    """
    texts, order = bank(store.classes, store.name), sorted(descriptions)
    named = functools.cache(lambda text: named_class(text, texts))  # many clips, few sentences
    wanted = [references(row) for row in order]
    rows = [
        {
            "id": store.ids[row],
            "truth": store.classes[store.labels[row]],
            "generated": descriptions[row],
            "reference": sentences[0],
            "named": named(descriptions[row]),
        }
        for row, sentences in zip(order, wanted, strict=True)
    ]
    guessed = class_from_likelihood(np.stack([likelihood[row] for row in order]))
    correct = int((guessed == store.labels[order]).sum())
    counts = {"likelihood_correct": correct, "likelihood_total": len(rows)}
    return rows, score_descriptions(rows, wanted) | counts
