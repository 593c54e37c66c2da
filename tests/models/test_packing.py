"""Packed examples have the loss and gradients of separate rows, without padding."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax import sharding
from hocslm_jax.models import packing
from hocslm_jax.models.lm import DecoderLM, LMConfig, param_shapes
from hocslm_jax.models.packing import Grid, assign, choose_grid, first_fit
from hocslm_jax.train.step import caption_loss

LM = LMConfig(64, 32, 64, 2, 4, 2, 8)
BATCH, LONGEST, PROMPT, CHUNK = 16, 20, 3, 4


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape, scale=0.2).astype(np.float32), param_shapes(LM)
    )
    return DecoderLM(LM, "float32", remat=False), params


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.integers(2, 9, size=BATCH), LONGEST).astype(np.int32)
    lengths[3], lengths[-1] = LONGEST, 1
    return {
        "tokens": rng.integers(LM.vocab_size, size=(BATCH, LONGEST)).astype(np.int32),
        "lengths": lengths,
        "mask": (np.arange(BATCH) != 5).astype(np.float32),
        "prefix": rng.normal(size=(BATCH, 1 + PROMPT, LM.hidden_size)).astype(np.float32),
    }


def loss_of(model, grid, params, prefix, batch):
    return caption_loss(model, params, prefix, batch, CHUNK, grid)


def run(model, batch, grid):
    """(loss, metrics), gradient in the prefix."""
    lm, params = model
    call = jax.jit(jax.value_and_grad(functools.partial(loss_of, lm, grid), 1, has_aux=True))
    return call(params, batch["prefix"], batch)


@pytest.fixture(scope="module")
def unpacked(model, batch):
    return run(model, batch, None)


@pytest.mark.parametrize(
    ("grid", "packed"),
    [
        (Grid(1, 4, 48), 1),
        (Grid(2, 2, 48), 1),
        (Grid(1, 3, 24), 0),  # not all fit: one per row
    ],
)
def test_loss_and_gradient_are_those_of_unpacked_examples(grid, packed, model, batch, unpacked):
    (loss, metrics), gradient = run(model, batch, grid)
    (wanted, numbers), slope = unpacked
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-6)
    assert float(metrics.pop("packed")[0]) == packed
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), metrics, numbers)


def test_eight_devices_pack_their_own_rows_without_a_gather(model, batch, unpacked):
    (wanted, _), slope = unpacked
    mesh, grid = sharding.make_mesh(), Grid(8, 1, 32)
    rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    lm, params = model
    call = jax.jit(jax.value_and_grad(functools.partial(loss_of, lm, grid), 1, has_aux=True))
    split = jax.device_put(batch, rows)
    args = (jax.device_put(params, everywhere), split["prefix"], split)
    compiled = call.lower(*args).compile()
    (loss, metrics), gradient = compiled(*args)
    assert float(metrics["packed"][0]) == 1
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-3, atol=1e-6)
    program = compiled.as_text()
    assert not [name for name in ("all-gather", "all-to-all", "permute") if f" {name}(" in program]


def test_packed_examples_are_independent(model, batch):
    lm, params = model
    grid = Grid(1, 1, 200)
    places = assign(batch["lengths"], PROMPT, grid)

    def states(prefix, tokens):
        args = (prefix, tokens, batch["lengths"], places, grid)
        return packing.packed_states(lm, params, *args)

    read = jax.jit(states)(batch["prefix"], batch["tokens"])
    others = np.arange(BATCH) != 7
    prefix = np.where(others[:, None, None], 1.0, batch["prefix"]).astype(np.float32)
    tokens = np.where(others[:, None], 9, batch["tokens"])
    changed = jax.jit(states)(prefix, tokens)
    mine = np.asarray(read.real & (read.example == 7))[0]
    assert mine.sum() == batch["lengths"][7]
    np.testing.assert_allclose(changed.hidden[0, mine], read.hidden[0, mine], rtol=1e-5, atol=1e-6)
    assert np.abs(changed.hidden - read.hidden)[0, ~mine].max() > 0.1
    # Every word of every caption must be predicted once.
    words = [read.tokens[0, np.asarray(read.real & (read.example == i))[0]] for i in range(BATCH)]
    for said, sentence, length in zip(words, batch["tokens"], batch["lengths"], strict=True):
        np.testing.assert_array_equal(said, sentence[:length])


def test_segments_have_positions_of_their_own(model):
    lm, params = model
    x = jax.random.normal(jax.random.key(2), (2, 5, LM.hidden_size))
    apart = lm.apply({"params": params}, x)
    positions, segments = np.tile(np.arange(5), 2)[None], np.repeat([0, 1], 5)[None]
    joined = lm.apply({"params": params}, x.reshape(1, 10, -1), positions, segments)
    np.testing.assert_allclose(joined.reshape(apart.shape), apart, rtol=1e-4, atol=1e-5)


def test_examples_do_not_overlap_and_the_longest_come_first():
    sizes = jnp.array([3, 10, 4, 7, 6, 2])
    places = np.asarray(first_fit(sizes, Grid(1, 2, 16)))
    taken = [place + at for place, size in zip(places, sizes, strict=True) for at in range(size)]
    assert len(set(taken)) == sizes.sum() and max(taken) < 32
    assert places[1] == 0 and places[3] == 16  # 10, then 7 in the next row
    assert all(p // 16 == (p + s - 1) // 16 for p, s in zip(places, sizes, strict=True))
    assert sorted(np.asarray(first_fit(sizes, Grid(1, 1, 13)))) == [-1, -1, -1, -1, 0, 10]


@pytest.mark.parametrize("examples", [2, 8, 64])
def test_grid_fits_most_batches_and_is_smaller_than_padding(examples):
    rng = np.random.default_rng(0)
    sizes = 8 + np.clip(rng.normal(22, 6, size=400), 4, 64).astype(np.int32)
    grid = choose_grid(sizes, np.ones(400), examples, 8, whole=72)
    assert grid.size < 0.9 * examples * 72 and grid.length >= 72
    drawn = rng.choice(sizes, size=(500, examples))
    places = jax.jit(jax.vmap(lambda s: first_fit(s, grid)))(drawn)
    assert (places >= 0).all(axis=1).mean() > 0.995  # a shard; of a batch eight


def test_captions_of_one_length_are_not_packed():
    assert choose_grid(np.full(10, 60), np.ones(10), 64, 1, whole=64) is None
    # Sentences that are drawn more often have more weight.
    rare = choose_grid(np.array([10, 64]), np.array([99.0, 1.0]), 64, 1, whole=64)
    often = choose_grid(np.array([10, 64]), np.array([1.0, 1.0]), 64, 1, whole=64)
    assert rare.size < often.size
