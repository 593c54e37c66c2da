"""Matrices in 8 and 4 bits: their error, their size, and models that compute with them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm import (
    DecoderLM,
    LMConfig,
    generate,
    load_params,
    param_shapes,
    quantise_params,
    save_params,
)
from hocslm_jax.models.lm.quantise import dequantise, quantise, quantised
from hocslm_jax.sharding import batch_sharding, gather_layer, lm_rules, make_mesh, tree_shardings

CONFIG = LMConfig(24, 32, 64, 2, 4, 2, 16, tie_embeddings=False, max_positions=64, family="qwen2")
KINDS = ("int8", "int4")
BOUNDS = {"int8": 0.01, "int4": 0.085}  # error of normal numbers, relative to their norm


def random_params(config, scale=0.2):
    rng = np.random.default_rng(0)

    def one(leaf):
        return jnp.asarray(scale * rng.normal(size=leaf.shape) + (leaf.ndim < 3), jnp.float32)

    return jax.tree.map(one, param_shapes(config))


def whole(stored, inputs=1):
    """The stored kernel [in, out]."""
    matrix, scale = dequantise(stored, inputs, jnp.float32)
    return np.asarray(matrix * scale)


def restored(params, config):
    """Parameters of a float model that has the numbers of a quantised one."""
    flat, shapes = flatten_dict(params, sep="/"), flatten_dict(param_shapes(config), sep="/")
    for path, inputs in quantised(config).items():
        stem = path.removesuffix("kernel")
        names = [name for name in flat if name.startswith(stem) and not name.endswith("bias")]
        stored = {name.removeprefix(stem): flat.pop(name) for name in names}
        layers = [
            whole({name: leaf[n] for name, leaf in stored.items()}, inputs)
            for n in range(config.num_layers)
        ]
        flat[path] = jnp.asarray(np.stack(layers)).reshape(shapes[path].shape)
    return unflatten_dict(flat, sep="/")


def error(got, want):
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def embeddings(batch=2):
    return jnp.asarray(np.random.default_rng(1).normal(size=(batch, 7, 32)), jnp.float32)


@functools.partial(jax.jit, static_argnums=0)
def gradient(model, params, x):
    """(gradient of the logits' sum of squares in the embeddings, logits)."""

    def objective(x):
        hidden = model.apply({"params": params}, x)
        logits = model.apply({"params": params}, hidden, method="logits")
        return jnp.sum(logits**2), logits

    return jax.grad(objective, has_aux=True)(x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1.0, 1e-12])
def test_quantisation_is_accurate_at_any_scale(kind, size):
    numbers = size * np.random.default_rng(0).normal(size=(4, 96, 5, 7)).astype(np.float32)
    numbers[..., 2, 3] = 0  # an output channel of zeros
    numbers[:, 32:64, 1] = size  # groups of equal numbers
    got = whole(quantise(numbers, kind, 2), 2).reshape(numbers.shape)
    assert error(got, numbers) < BOUNDS[kind]
    assert not got[..., 2, 3].any()


def test_four_bits_are_more_accurate_than_plain_rounding():
    numbers = np.random.default_rng(0).standard_t(5, size=(256, 64)).astype(np.float32)
    groups = numbers.reshape(8, 32, 64)
    low, high = groups.min(1, keepdims=True), groups.max(1, keepdims=True)
    step = (high - low) / 15
    naive = (np.round((groups - low) / step) * step + low).reshape(numbers.shape)
    assert error(whole(quantise(numbers, "int4")), numbers) < 0.95 * error(naive, numbers)


def test_the_blocks_of_a_q4_1_file_are_kept():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, size=(6, 32, 8))
    codes[:, 3], codes[:, 20] = 0, 15
    step = (0.01 * rng.uniform(0.5, 2, size=(6, 1, 8))).astype(np.float16).astype(np.float32)
    offset = (0.1 * rng.normal(size=(6, 1, 8))).astype(np.float16).astype(np.float32)
    numbers = (codes * step + offset).reshape(192, 8).astype(np.float32)
    np.testing.assert_allclose(whole(quantise(numbers, "int4")), numbers, rtol=1e-6, atol=1e-8)


def test_storage_is_8_and_5_bits_per_number():
    kernels = 2 * (32 * 16 * (4 + 2 + 2 + 4) + 3 * 32 * 64)  # q, k, v, o; gate, up, down
    channels = 2 * (16 * (4 + 2 + 2) + 32 + 2 * 64 + 32)
    others = sum(leaf.size for leaf in jax.tree.leaves(param_shapes(CONFIG))) - kernels
    for kind, bits in (("int8", 8), ("int4", 5)):
        shapes = param_shapes(CONFIG, "bfloat16", kind)
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        in_o = 2 * 64 * 32 * (kind == "int4")  # a head of 16 channels is a group: 6 bits
        assert 8 * size == bits * kernels + in_o + 32 * channels + 16 * others


@pytest.fixture(scope="module")
def small():
    """Parameters by kind."""
    return {kind: quantise_params(random_params(CONFIG), CONFIG, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_computes_with_the_dequantised_numbers(kind, small):
    params, x = random_params(CONFIG), embeddings()
    model = DecoderLM(CONFIG, "float32")
    slope, logits = gradient(model.clone(weights=kind), small[kind], x)
    want_slope, want = gradient(model, restored(small[kind], CONFIG), x)
    np.testing.assert_allclose(logits, want, atol=1e-4 * np.abs(want).max())
    np.testing.assert_allclose(slope, want_slope, atol=1e-4 * np.abs(want_slope).max())
    exact_slope, exact = gradient(model, params, x)
    assert 1e-4 < error(logits, exact) < 4 * BOUNDS[kind]
    assert 1e-4 < error(slope, exact_slope) < 8 * BOUNDS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_no_dequantised_layer_is_kept_for_the_backward_pass(kind):
    """Even where activations are kept (`remat=False`)."""
    config = dataclasses.replace(CONFIG, num_layers=16, hidden_size=64, intermediate_size=256)
    shapes = param_shapes(config, "float32", kind)
    kernels = sum(leaf.size for path, leaf in flatten_dict(shapes).items() if path[-1] == "kernel")
    numbers = 4 * kernels * (2 if kind == "int4" else 1)
    x = jax.ShapeDtypeStruct((1, 2, 64), jnp.float32)
    model = DecoderLM(config, "float32", remat=False, weights=kind)
    compiled = gradient.lower(model, shapes, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.5 * numbers


@pytest.mark.parametrize("kind", KINDS)
def test_loading_quantises(kind, small, tmp_path):
    save_params(random_params(CONFIG), CONFIG, tmp_path)
    loaded = load_params(tmp_path, CONFIG, weights=kind)
    jax.tree.map(np.testing.assert_array_equal, loaded, small[kind])
    halved = load_params(
        tmp_path, CONFIG, dtype="bfloat16", weights=kind
    )  # for the unquantised parameters
    assert halved["embed"]["embedding"].dtype == halved["blocks"]["q"]["bias"].dtype == "bfloat16"
    jax.tree.map(np.testing.assert_array_equal, halved["blocks"]["o"], small[kind]["blocks"]["o"])


def test_eight_devices_load_and_compute_the_result_of_one(small, tmp_path):
    kind, alone, x = "int4", small["int4"], embeddings(8)
    save_params(random_params(CONFIG), CONFIG, tmp_path)
    mesh = make_mesh(data=4, model=2)
    shardings = tree_shardings(param_shapes(CONFIG, weights=kind), mesh, lm_rules(fsdp=True))
    split = load_params(tmp_path, CONFIG, shardings, weights=kind)
    jax.tree.map(np.testing.assert_array_equal, split, alone)
    down = split["blocks"]["down"]["kernel"]
    assert down.addressable_shards[0].data.size == down.size / 8
    model = DecoderLM(CONFIG, "float32", weights=kind)
    want = gradient(model, alone, x)
    gathering = model.clone(gather=gather_layer(shardings["blocks"]))
    got = gradient(gathering, split, jax.device_put(x, batch_sharding(mesh)))
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


def test_generated_text_equals_that_of_the_dequantised_model(small):
    model, options = DecoderLM(CONFIG, "float32"), {"max_new_tokens": 8, "eos_ids": (), "pad_id": 0}
    params = restored(small["int4"], CONFIG)
    got, _ = generate(model.clone(weights="int4"), small["int4"], embeddings(), **options)
    want, _ = generate(model, params, embeddings(), **options)
    assert got.tolist() == want.tolist() and len(set(got.ravel().tolist())) > 2


def test_sizes_unsuitable_for_four_bits_are_refused(tmp_path):
    odd = dataclasses.replace(CONFIG, head_dim=6)
    with pytest.raises(UserError, match=r"head_dim is 6: use lm\.weights=int8"):
        param_shapes(odd, weights="int4")
    with pytest.raises(UserError, match="head_dim"):
        load_params(tmp_path, odd, weights="int4")
    assert param_shapes(odd, weights="int8")
    with pytest.raises(UserError, match="'int3': use one of int8, int4"):
        param_shapes(CONFIG, weights="int3")  # as in `plan`
