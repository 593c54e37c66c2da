"""Generation: the cached loop against plain forward passes, stopping, and sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm import DecoderLM, LMConfig, filter_logits, generate, param_shapes
from hocslm_jax.models.lm.model import LM_RULES as RULES
from hocslm_jax.sharding import P, batch_sharding, make_mesh, tree_shardings

TINY = LMConfig(14, 16, 12, 2, 4, 2, 6, rope_theta=100.0, max_positions=64)
MODEL = DecoderLM(TINY, "float32")
FREE = {"eos_ids": (), "pad_id": 0}


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(4)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape, scale=0.5), jnp.float32),
        param_shapes(TINY),
    )


@pytest.fixture(scope="module")
def prefix():
    return np.random.default_rng(1).normal(size=(3, 6, 16)).astype(np.float32)


@jax.jit
def next_logits(params, embeddings, length):
    """The whole text at once, without a cache."""
    hidden = MODEL.apply({"params": params}, embeddings)
    return MODEL.apply({"params": params}, hidden[:, length - 1], method="logits")


def uncached(params, prefix, length, count):
    room = np.zeros((1, 16, 16), np.float32)
    room[0, :length] = prefix[:length]
    tokens = []
    for end in range(length, length + count):
        tokens.append(int(next_logits(params, room, end).argmax()))
        room[0, end] = params["embed"]["embedding"][tokens[-1]]
    return tokens


def test_the_cache_does_not_change_the_result(params, prefix):
    lengths = [6, 1, 4]
    tokens, _ = generate(MODEL, params, prefix, max_new_tokens=8, prefix_lengths=lengths, **FREE)
    want = [uncached(params, row, n, 8) for row, n in zip(prefix, lengths, strict=True)]
    assert tokens.tolist() == want
    assert len({token for row in want for token in row}) > 3


def test_prefixes_have_full_length_by_default(params, prefix):
    plain = generate(MODEL, params, prefix, max_new_tokens=8, **FREE)
    given = generate(MODEL, params, prefix, max_new_tokens=8, prefix_lengths=[6, 6, 6], **FREE)
    np.testing.assert_array_equal(plain[0], given[0])


def test_content_of_padding_does_not_matter(params, prefix):
    lengths = np.array([5, 2, 6])
    other = np.where(np.arange(6)[:, None] < lengths[:, None, None], prefix, 9.0)
    one = generate(MODEL, params, prefix, max_new_tokens=8, prefix_lengths=lengths, **FREE)
    two = generate(MODEL, params, other, max_new_tokens=8, prefix_lengths=lengths, **FREE)
    np.testing.assert_array_equal(one[0], two[0])


class Counting(DecoderLM):
    """Reports every call of the cached forward pass."""

    def decode(self, embeddings, cache, start):
        jax.debug.callback(calls.append, embeddings.shape[1])
        return super().decode(embeddings, cache, start)


calls = []


def test_the_loop_stops_when_every_row_has_ended(params, prefix):
    free, _ = generate(MODEL, params, prefix, max_new_tokens=8, **FREE)
    eos = tuple({row[2] for row in free.tolist()})  # ends every row at its third token or earlier
    calls.clear()
    tokens, lengths = generate(
        Counting(TINY, "float32"), params, prefix, max_new_tokens=50, eos_ids=eos, pad_id=13
    )
    jax.block_until_ready(tokens)
    jax.effects_barrier()
    assert tokens.shape == (3, 50)
    for row, length, whole in zip(tokens.tolist(), lengths.tolist(), free.tolist(), strict=True):
        first = next(n for n, token in enumerate(whole) if token in eos)
        assert length == first
        assert row == whole[: first + 1] + [13] * (50 - first - 1)
    assert calls == [6] + [1] * int(max(lengths))  # the prefix, then no more steps than needed


def test_one_token_needs_no_loop_step(params, prefix):
    calls.clear()
    tokens, _ = generate(Counting(TINY, "float32"), params, prefix, max_new_tokens=1, **FREE)
    jax.block_until_ready(tokens)
    jax.effects_barrier()
    assert tokens.shape == (3, 1) and calls == [6]


def test_filters_keep_the_likeliest_tokens():
    logits = jnp.log(jnp.array([[0.5, 0.1, 0.15, 0.25], [0.05, 0.05, 0.6, 0.3]]))

    def kept(**options):
        return np.isfinite(filter_logits(logits, **options)).tolist()

    assert kept() == [[True] * 4] * 2
    assert kept(top_k=1) == [[True, False, False, False], [False, False, True, False]]
    assert kept(top_k=2) == [[True, False, False, True], [False, False, True, True]]
    # The fewest tokens that reach p, including the one that exceeds it.
    assert kept(top_p=0.01) == kept(top_k=1)
    assert kept(top_p=0.55) == [[True, False, False, True], [False, False, True, False]]
    assert kept(top_p=0.8) == [[True, False, True, True], [False, False, True, True]]
    # After top_k the probabilities are those among the k.
    assert kept(top_k=2, top_p=0.65) == [[True, False, False, False], [False, False, True, False]]
    np.testing.assert_array_equal(filter_logits(logits, 2)[0, 0], logits[0, 0])


def test_filters_agree_with_transformers():
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = np.random.default_rng(0).normal(size=(64, 50), scale=2).astype(np.float32)
    for top_k, top_p in ((7, 1.0), (0, 0.8), (20, 0.6)):
        want = torch.tensor(logits)
        if top_k:
            want = process.TopKLogitsWarper(top_k)(None, want)
        if top_p < 1:
            want = process.TopPLogitsWarper(top_p)(None, want)
        np.testing.assert_array_equal(filter_logits(logits, top_k, top_p), want.numpy())


def draws(params, prefix, count=4000, seed=0, **options):
    """How often each token is drawn first, after one prefix."""
    rows = np.broadcast_to(prefix[:1], (count, *prefix.shape[1:]))
    key = jax.random.split(jax.random.key(seed), count)
    tokens, _ = generate(MODEL, params, rows, max_new_tokens=1, key=key, **FREE, **options)
    return np.bincount(np.asarray(tokens)[:, 0], minlength=TINY.vocab_size) / count


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1.0}, {"temperature": 2.5, "top_k": 4}, {"temperature": 3.0, "top_p": 0.6}],
)
def test_draws_follow_the_filtered_distribution(options, params, prefix):
    logits = next_logits(params, prefix[:1], 6) / options["temperature"]
    want = jax.nn.softmax(
        filter_logits(logits, options.get("top_k", 0), options.get("top_p", 1.0))
    )[0]
    got = draws(params, prefix, **options)
    np.testing.assert_allclose(got, want, atol=0.03)  # about four standard errors
    assert not np.any(got[np.asarray(want) == 0])
    assert 1 < np.count_nonzero(got) < 14 or options == {"temperature": 1.0}


def test_low_temperature_is_greedy_and_high_depends_on_the_key(params, prefix):
    options = {"max_new_tokens": 8, **FREE}
    greedy, _ = generate(MODEL, params, prefix, **options)

    def sampled(temperature, seed):
        key = jax.random.key(seed)
        return generate(MODEL, params, prefix, temperature=temperature, key=key, **options)[0]

    np.testing.assert_array_equal(sampled(1e-4, 0), greedy)
    np.testing.assert_array_equal(sampled(3.0, 1), sampled(3.0, 1))
    assert np.any(sampled(3.0, 1) != sampled(3.0, 2))
    hot = np.asarray(sampled(50.0, 3))
    assert any(len(set(row)) > 4 for row in hot.tolist())  # every step samples anew


def test_sampled_text_does_not_depend_on_batch_position(params, prefix):
    def sampled(rows):
        options = {"temperature": 1.5, "top_k": 9, "key": jax.random.key(5), **FREE}
        return generate(MODEL, params, rows, max_new_tokens=8, **options)[0].tolist()

    together = sampled(prefix)
    assert len({tuple(row) for row in together}) == 3
    assert sampled(prefix[::-1])[::-1] == together
    assert sampled(np.concatenate([prefix[2:], prefix[2:], prefix[2:]])) == [together[2]] * 3


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": 59}, "6 prefix tokens and 59 new ones exceed"),
        ({"max_new_tokens": 4, "temperature": -1.0}, "temperature=-1.0"),
        ({"max_new_tokens": 4, "top_k": -1}, "top_k=-1"),
        ({"max_new_tokens": 4, "top_p": 0.0}, "top_p=0.0"),
        ({"max_new_tokens": 4, "top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_options_out_of_range_are_refused(options, reason, params, prefix):
    with pytest.raises(UserError, match="cannot generate") as caught:
        generate(MODEL, params, prefix, **FREE, **options)
    assert reason in str(caught.value)


def test_sampling_without_a_key_is_refused(params, prefix):
    with pytest.raises(ValueError, match="key"):
        generate(MODEL, params, prefix, max_new_tokens=2, temperature=1.0, **FREE)


def test_sharded_parameters_write_the_same_text(params, prefix):
    mesh = make_mesh(data=4, model=2)
    split = jax.device_put(params, tree_shardings(params, mesh, (*RULES, (r".*", P()))))
    rows = np.concatenate([prefix, prefix[:1]])
    want, _ = generate(MODEL, params, rows, max_new_tokens=8, **FREE)
    rows = jax.device_put(rows, batch_sharding(mesh))
    got, _ = generate(MODEL, split, rows, max_new_tokens=8, **FREE)
    np.testing.assert_array_equal(got, want)


def test_bfloat16_parameters_generate_too(params, prefix):
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    tokens, lengths = generate(DecoderLM(TINY), narrow, prefix, max_new_tokens=4, **FREE)
    assert tokens.dtype == lengths.dtype == jnp.int32
    assert np.all((tokens >= 0) & (tokens < 14)) and lengths.tolist() == [4, 4, 4]
