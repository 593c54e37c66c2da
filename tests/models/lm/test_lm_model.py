"""The Qwen3 module: tree, embeddings, logits, positions, cache, precision, sharding, cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax.models.lm import (
    LM_RULES,
    SIZES,
    DecoderLM,
    LMConfig,
    attention_for,
    head_matrix,
    init_cache,
    init_params,
    param_shapes,
)
from hocslm_jax.sharding import P, batch_sharding, make_mesh, path_name, tree_shardings

UNTIED = LMConfig(24, 16, 20, 3, 4, 2, 6, tie_embeddings=False)
TIED = LMConfig(24, 16, 20, 3, 4, 2, 6, tie_embeddings=True)


def random_params(config, scale=0.3):
    rng = np.random.default_rng(0)

    def one(path, leaf):
        noise = scale * rng.normal(size=leaf.shape)
        return jnp.asarray(1 + noise if "scale" in path_name(path) else noise, jnp.float32)

    return jax.tree.map_with_path(one, param_shapes(config))


def embeddings(batch=2, length=7, width=16):
    return np.random.default_rng(1).normal(size=(batch, length, width)).astype(np.float32)


def forward(config, params, x, dtype="float32", **options):
    return jax.jit(DecoderLM(config, dtype, **options).apply)({"params": params}, x)


def test_parameter_paths_and_shapes():
    found = {
        path_name(path): leaf.shape
        for path, leaf in jax.tree.leaves_with_path(param_shapes(UNTIED))
    }
    assert found == {
        "embed/embedding": (24, 16),
        "blocks/q/kernel": (3, 16, 4, 6),
        "blocks/k/kernel": (3, 16, 2, 6),
        "blocks/v/kernel": (3, 16, 2, 6),
        "blocks/o/kernel": (3, 4, 6, 16),
        "blocks/gate/kernel": (3, 16, 20),
        "blocks/up/kernel": (3, 16, 20),
        "blocks/down/kernel": (3, 20, 16),
        "blocks/q_norm/scale": (3, 6),
        "blocks/k_norm/scale": (3, 6),
        "blocks/input_norm/scale": (3, 16),
        "blocks/post_norm/scale": (3, 16),
        "norm/scale": (16,),
        "lm_head/kernel": (16, 24),
    }
    tied = {path_name(path) for path, _ in jax.tree.leaves_with_path(param_shapes(TIED))}
    assert tied == set(found) - {"lm_head/kernel"}


def test_initial_parameters_differ_between_layers():
    params = init_params(UNTIED, jax.random.key(0), "bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    kernel = np.asarray(params["blocks"]["gate"]["kernel"], np.float32)
    assert not np.allclose(kernel[0], kernel[1])
    assert abs(kernel.std() - 0.02) < 0.002
    assert np.all(np.asarray(params["blocks"]["q_norm"]["scale"], np.float32) == 1)


@pytest.mark.parametrize("config", [UNTIED, TIED], ids=["untied", "tied"])
def test_the_head_matrix_gives_the_logits(config):
    params, hidden = random_params(config), embeddings()
    want = DecoderLM(config, "float32").apply({"params": params}, hidden, method="logits")
    assert head_matrix(params).shape == (24, 16)
    np.testing.assert_allclose(hidden @ head_matrix(params).T, want, atol=1e-5)
    assert (head_matrix(params) is params["embed"]["embedding"]) == config.tie_embeddings


def test_later_tokens_and_padding_do_not_change_earlier_ones():
    params, x = random_params(TIED), embeddings()
    other = x.copy()
    other[:, 4:] = 5.0
    one, two = forward(TIED, params, x), forward(TIED, params, other)
    np.testing.assert_array_equal(one[:, :4], two[:, :4])
    assert np.abs(one - two)[:, 4:].max() > 0.1


def test_only_distances_between_positions_matter():
    params, x = random_params(TIED), embeddings()
    model = DecoderLM(TIED, "float32")

    @jax.jit
    def at(positions):
        return model.apply({"params": params}, x, positions)

    plain = forward(TIED, params, x)
    np.testing.assert_array_equal(at(jnp.arange(7)), plain)
    np.testing.assert_allclose(at(jnp.arange(7) + 50), plain, atol=1e-4)
    assert np.abs(at(3 * jnp.arange(7)) - plain).max() > 1e-2
    rows = jnp.stack([jnp.arange(7), 3 * jnp.arange(7)])
    np.testing.assert_allclose(at(rows)[1], at(3 * jnp.arange(7))[1], atol=1e-5)


def test_decoding_in_pieces_equals_decoding_at_once():
    params, x = random_params(UNTIED), embeddings(batch=3, length=9)
    model = DecoderLM(UNTIED, "float32")
    want = forward(UNTIED, params, x)
    cache = init_cache(UNTIED, 3, 12, "float32")
    assert cache["k"].shape == cache["v"].shape == (3, 3, 12, 2, 6)
    step = jax.jit(
        lambda x, cache, at: model.apply({"params": params}, x, cache, at, method="decode")
    )
    starts = np.array([5, 2, 4])  # rows of different lengths, right-padded to five
    hidden, cache = step(x[:, :5], cache, jnp.zeros(3, jnp.int32))
    for row, start in enumerate(starts):
        np.testing.assert_allclose(hidden[row, :start], want[row, :start], atol=1e-5)
    for n in range(3):
        tokens = x[np.arange(3), starts + n][:, None]
        hidden, cache = step(tokens, cache, jnp.asarray(starts + n, jnp.int32))
        np.testing.assert_allclose(hidden[:, 0], want[np.arange(3), starts + n], atol=1e-5)


def test_bfloat16_is_close():
    params, x = random_params(UNTIED), embeddings()
    exact = forward(UNTIED, params, x)
    rough = forward(UNTIED, params, x, "bfloat16")
    assert rough.dtype == jnp.bfloat16 and exact.dtype == jnp.float32
    error = np.linalg.norm(rough.astype(jnp.float32) - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.03
    logits = DecoderLM(UNTIED).apply({"params": params}, rough, method="logits")
    assert logits.dtype == jnp.float32


def scalar(model, params, x):
    hidden = model.apply({"params": params}, x)
    return jnp.sum(model.apply({"params": params}, hidden, method="logits") ** 2)


def test_remat_changes_memory_but_no_gradient():
    config = LMConfig(24, 32, 64, 6, 4, 2, 8)
    params, x = random_params(config, 0.1), embeddings(4, 64, 32)
    results = {}
    for remat in (True, False):
        model = DecoderLM(config, "float32", remat=remat)
        step = jax.jit(jax.grad(lambda x, params, model=model: scalar(model, params, x)))
        compiled = step.lower(x, params).compile()
        results[remat] = compiled(x, params), compiled.memory_analysis().temp_size_in_bytes
    np.testing.assert_allclose(results[True][0], results[False][0], rtol=1e-4, atol=1e-5)
    assert results[True][1] < 0.6 * results[False][1]


def test_the_input_gradient_needs_no_weight_gradients():
    """Forward, recomputation and input gradient: 3 products for each weight; training takes 4."""
    params, x = random_params(UNTIED), embeddings(4, 16)
    model = DecoderLM(UNTIED, "float32")

    def cost(argument):
        step = jax.jit(jax.grad(lambda params, x: scalar(model, params, x), argument))
        lowered = step.lower(params, x)
        return lowered.compile().cost_analysis()["flops"], lowered.out_info

    inputs_only, output = cost(1)
    assert jax.tree.structure(output) == jax.tree.structure(x) and output.shape == x.shape
    training, tree = cost(0)
    assert jax.tree.structure(tree) == jax.tree.structure(params)
    print(f"FLOPs of training / of the input gradient: {training / inputs_only:.2f}")
    assert training > 1.15 * inputs_only


def test_eight_devices_compute_the_result_of_one():
    params, x = random_params(UNTIED), embeddings(batch=8)
    model = DecoderLM(UNTIED, "float32")
    step = jax.jit(jax.value_and_grad(lambda x, params: scalar(model, params, x)))
    want, want_gradient = step(x, params)
    mesh = make_mesh(data=4, model=2)
    shardings = tree_shardings(params, mesh, (*LM_RULES, (r".*", P())))
    split = jax.device_put(params, shardings)
    got, gradient = step(jax.device_put(x, batch_sharding(mesh)), split)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_the_rules_fit_every_published_size(size):
    shapes = param_shapes(SIZES[size])
    mesh = make_mesh(data=1, model=8)
    shardings = tree_shardings(shapes, mesh, (*LM_RULES, (r".*", P())))
    for leaf, sharding in zip(jax.tree.leaves(shapes), jax.tree.leaves(shardings), strict=True):
        shard = sharding.shard_shape(leaf.shape)  # raises if it does not divide
        assert np.prod(shard) * (8 if leaf.size > 10**6 else 1) == leaf.size


@pytest.mark.parametrize(
    ("backend", "dtype", "head_dim", "chosen"),
    [
        ("gpu", "bfloat16", 128, "cudnn"),
        ("gpu", "float16", 64, "cudnn"),
        ("gpu", "float32", 128, "xla"),
        ("gpu", "bfloat16", 12, "xla"),
        ("gpu", "bfloat16", 256, "xla"),
        ("tpu", "bfloat16", 128, "xla"),
        ("cpu", "bfloat16", 128, "xla"),
    ],
)
def test_cudnn_attention_is_chosen_if_supported(backend, dtype, head_dim, chosen):
    assert attention_for(backend, dataclasses.replace(TIED, head_dim=head_dim), dtype) == chosen
