"""Generates text after a prefix of embeddings: greedy or sampled, batched, in one compiled loop.

In: `DecoderLM`, its parameters and a prefix [B, P, D], such as a visual token and a prompt. Out:
token ids [B, max_new_tokens] and the number of tokens before the end-of-text token. The loop keeps
a key-value cache and stops when every row has ended.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm.model import DecoderLM, init_cache


class Options(NamedTuple):
    """The static arguments of the compiled loop; temperature and key are traced."""

    max_new_tokens: int
    eos_ids: tuple[int, ...]
    pad_id: int
    greedy: bool
    top_k: int
    top_p: float


def generate(
    model: DecoderLM,
    params: dict,
    prefix: jax.Array,
    *,
    max_new_tokens: int,
    eos_ids: tuple[int, ...],
    pad_id: int,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    key: jax.Array | None = None,
    prefix_lengths: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Continues every row of `prefix` [B, P, D] by up to `max_new_tokens` tokens.

    Args:
        eos_ids: any of these ends a row; `pad_id` fills what follows.
        temperature: 0 takes the likeliest token; otherwise a token is sampled, with `key`, from
            logits / temperature.
        key: one for all rows, so that the result of a row does not depend on its position or the
            other rows; or [B] keys, so that equal rows are sampled differently.
        top_k: sample from the k likeliest tokens; 0 for all.
        top_p: sample from the fewest tokens whose probabilities reach p; after `top_k`.
        prefix_lengths: int32 [B], 1 to P, if rows are right-padded; default P.

    Returns:
        (tokens int32 [B, max_new_tokens] including the end-of-text token, lengths int32 [B] without
        it).

    Raises:
        UserError: an option is out of range, or the text exceeds the model's positions.
    """
    _check(model, prefix.shape[1], max_new_tokens, temperature, top_k, top_p)
    if temperature > 0 and key is None:
        raise ValueError("sampling needs a key")
    options = Options(
        max_new_tokens,
        tuple(eos_ids),
        pad_id,
        greedy=temperature == 0,
        top_k=min(top_k, model.config.vocab_size),
        top_p=top_p,
    )
    if prefix_lengths is None:
        prefix_lengths = jnp.full(prefix.shape[0], prefix.shape[1])
    lengths = jnp.asarray(prefix_lengths, jnp.int32)
    key = jax.random.key(0) if key is None else key
    keys = jnp.broadcast_to(key, prefix.shape[:1])
    return _run(model, options, params, prefix, lengths, keys, jnp.float32(temperature))


def lower_generation(model: DecoderLM, options: Options, params: dict, prefix):
    """The greedy loop of `generate`, lowered for shapes of parameters and prefix [B, P, D]."""
    rows = jax.ShapeDtypeStruct(prefix.shape[:1], jnp.int32, sharding=prefix.sharding)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), prefix.shape[0]))
    return _run.lower(model, options, params, prefix, rows, keys, jnp.float32(0))


def filter_logits(logits: jax.Array, top_k: int = 0, top_p: float = 1.0) -> jax.Array:
    """Logits [B, V] with -inf for tokens outside the `top_k` likeliest, then outside `top_p`."""
    if top_k > 0:
        least = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits < least, -jnp.inf, logits)
    if top_p < 1.0:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        shares = jax.nn.softmax(ordered)
        before = (
            jnp.cumsum(shares, axis=-1) - shares
        )  # total of all likelier tokens; 0 for the first
        least = jnp.min(jnp.where(before < top_p, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < least, -jnp.inf, logits)
    return logits


def _check(model: DecoderLM, prefix: int, new: int, temperature, top_k: int, top_p: float) -> None:
    most = model.config.max_positions
    wrong = {
        f"max_new_tokens={new} must be at least 1": new < 1,
        f"temperature={temperature} must not be negative": temperature < 0,
        f"top_k={top_k} must not be negative": top_k < 0,
        f"top_p={top_p} must be above 0 and at most 1": not 0 < top_p <= 1,
        f"{prefix} prefix tokens and {new} new ones exceed the language model's {most} positions, "
        "ask for fewer": prefix + new > most,
    }
    problems = [problem for problem, is_so in wrong.items() if is_so]
    if problems:
        raise UserError(f"cannot generate: {'; '.join(problems)}")


def _next_token(logits, ended, keys, temperature, options: Options):
    """(token [B], ended [B]) from logits [B, V], rows that had ended before, and keys [B]."""
    if options.greedy:
        token = jnp.argmax(logits, axis=-1)
    else:
        logits = filter_logits(logits / temperature, options.top_k, options.top_p)
        token = jax.vmap(jax.random.categorical)(keys, logits)
    token = jnp.where(ended, options.pad_id, token.astype(jnp.int32))
    return token, ended | jnp.isin(token, jnp.array(options.eos_ids, jnp.int32))


@functools.partial(jax.jit, static_argnames=("model", "options"))
def _run(model: DecoderLM, options: Options, params, prefix, starts, keys_of_rows, temperature):
    """(tokens [B, max_new_tokens], lengths [B]); `starts` [B] are the lengths of the prefixes."""
    batch, width, most = prefix.shape[0], prefix.shape[1], options.max_new_tokens
    apply = functools.partial(model.apply, {"params": params})

    def choose(hidden, ended, step):
        logits = apply(hidden, method="logits")
        keys = jax.vmap(jax.random.fold_in, (0, None))(keys_of_rows, step)
        return _next_token(logits, ended, keys, temperature, options)

    def unfinished(state):
        step, _, ended, *_ = state
        return (step < most) & ~jnp.all(ended)

    def body(state):
        step, token, ended, lengths, tokens, cache = state
        embeddings = apply(token[:, None], method="embed")  # [B, 1, D]
        hidden, cache = apply(embeddings, cache, starts + step - 1, method="decode")
        token, ended = choose(hidden[:, 0], ended, step)
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, step, axis=1)
        return step + 1, token, ended, lengths + ~ended, tokens, cache

    cache = init_cache(model.config, batch, width + most, model.dtype)
    hidden, cache = apply(prefix, cache, jnp.zeros_like(starts), method="decode")  # [B, P, D]
    last = jnp.take_along_axis(hidden, starts[:, None, None] - 1, axis=1)[:, 0]  # [B, D]
    token, ended = choose(last, jnp.zeros(batch, bool), 0)
    tokens = jnp.full((batch, most), options.pad_id, jnp.int32).at[:, 0].set(token)
    state = (1, token, ended, jnp.int32(~ended), tokens, cache)
    _, _, _, lengths, tokens, _ = jax.lax.while_loop(unfinished, body, state)
    return tokens, lengths
