"""The parts of HGLNet against their equations, written as plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_hglnet import CHAIN, shaken

from hocslm_jax.graph import adjacency
from hocslm_jax.models.relations import Relations, all_pairs
from hocslm_jax.models.spatial import CTS, GSM, LSE
from hocslm_jax.models.temporal import DHT, GTA


def start(module, *args, **options):
    """First variables, in one program: operation by operation there would be many to compile."""
    return jax.jit(lambda *args: module.init(jax.random.key(1), *args, **options))(*args)


def run(module, variables, *args, **options):
    return jax.jit(lambda v, *args: module.apply(v, *args, **options))(variables, *args)


def test_gsm_equations_2_to_5():
    relation, width, features = 3, 16, 6
    a, b = jax.random.normal(jax.random.key(0), (2, 3, 1, 4, relation))
    module = GSM(features, CHAIN)
    args = (a, b, jnp.float32(0.7), jnp.zeros((3, 4, 4)))
    params = shaken(start(module, *args)["params"])
    got = run(module, {"params": params}, *args)
    p = jax.tree.map(np.asarray, params)
    f = np.tanh(np.asarray(a)[:, 0, :, None] - np.asarray(b)[:, 0, None])
    for s in range(3):
        mixed = np.zeros((4, 4, relation))
        for r in range(relation):
            token = f[s, :, :, r]
            q, k = token @ p["query"][s], token @ p["key"][s]
            value = token @ p["value"][s]
            logits = q @ k.T / np.sqrt(width)
            attention = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            base = attention @ value
            similarity = 1 / (1 + np.exp(-logits))
            ends = p["distance"][:, s]
            distance = np.tanh((q @ ends[0])[:, None] - (k @ ends[1])[None, :])
            alpha, beta = p["gates"][:, s]
            mixed[..., r] = base * (1 + alpha * similarity) + beta * distance
        expanded = mixed @ p["expand"]["kernel"][s] + p["expand"]["bias"][s]
        expected = p["graph"][s][..., None] + p["gamma"][s] * expanded
        np.testing.assert_allclose(got[s][0], 0.7 * expected, rtol=1e-4, atol=1e-5)


def test_lse_equation_6():
    a, b = jax.random.normal(jax.random.key(0), (2, 3, 2, 4, 3))
    module = LSE(5, CHAIN)
    params = shaken(start(module, a, b)["params"])
    bones, static = run(module, {"params": params}, a, b)
    graph = adjacency(CHAIN)
    p = jax.tree.map(np.asarray, params)
    for s in range(3):
        edges = list(zip(*np.nonzero(graph[s]), strict=True))
        assert bones[s].shape == (2, len(edges), 5)
        for e, (i, j) in enumerate(edges):
            f = np.tanh(a[s, 1, i] - b[s, 1, j])
            energy = np.maximum(f @ p["energy"][s] + p["energy_bias"][s], 0)
            gate = 1 / (1 + np.exp(-(f @ p["gate"][s] + p["gate_bias"][s])))
            expected = (energy * gate) @ p["expand"][s]
            np.testing.assert_allclose(bones[s][1, e], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(static, p["residual"][:, None, None] * graph, rtol=1e-6)


def test_cts_is_the_weighted_sum_of_gsm_and_lse():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    both = CTS(6, CHAIN)
    params = shaken(start(both, x)["params"])
    whole = run(CTS(6, CHAIN, lse=False), {"params": _without(params, "lse", "fusion")}, x)
    local = run(CTS(6, CHAIN, gsm=False), {"params": _without(params, "gsm", "fusion")}, x)
    weights = params["fusion"]
    for got, a, b in zip(run(both, {"params": params}, x), whole, local, strict=True):
        np.testing.assert_allclose(got, weights[0] * a + weights[1] * b, rtol=1e-4, atol=1e-5)
    support = adjacency(CHAIN) != 0
    for s in range(3):
        assert np.all(np.asarray(local[s])[:, ~support[s]] == 0)


def test_gta_equation_8_with_stride():
    x = jax.random.normal(jax.random.key(0), (2, 13, 4, 8))
    module = GTA(stride=2)
    variables = start(module, x, train=False)
    params = shaken(variables["params"])
    variables = variables | {"params": params}
    got, maps = run(module, variables, x, train=False, mutable=["maps"])
    p = jax.tree.map(np.asarray, params)
    q, k, value = (np.asarray(x) @ p[n]["kernel"] + p[n]["bias"] for n in ("query", "key", "value"))
    for joint in range(4):
        logits = q[1, ::2, joint] @ k[1, :, joint].T / np.sqrt(2)
        attention = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(maps["maps"]["attention"][0][1, joint], attention, rtol=1e-4)
        expected = attention @ value[1, :, joint] / np.sqrt(1 + 1e-5)
        expected = expected * p["bn"]["scale"] + p["bn"]["bias"]
        np.testing.assert_allclose(got[1, :, joint], expected, rtol=1e-3, atol=1e-4)


def test_relative_position_makes_gta_order_dependent():
    """Without position bias, GTA is invariant to the order of frames; with the bias it is not."""
    x = jax.random.normal(jax.random.key(0), (1, 6, 4, 8))
    for position, blind in (("none", True), ("relative", False)):
        module = GTA(position=position)
        variables = start(module, x, train=False)
        variables = variables | {"params": shaken(variables["params"])}
        forward = run(module, variables, x, train=False)
        backward = run(module, variables, x[:, ::-1], train=False)[:, ::-1]
        assert np.allclose(forward, backward, atol=1e-5) == blind


@pytest.mark.parametrize("part", ["gta", "ltc"])
def test_dht_with_one_part_has_no_other_parameters(part):
    x = jax.random.normal(jax.random.key(0), (1, 8, 4, 16))
    module = DHT(gta=part == "gta", ltc=part == "ltc")
    variables = jax.eval_shape(lambda: module.init(jax.random.key(1), x, False))
    assert set(variables["params"]) == {part}


def test_relations_equal_those_averaged_after_projection():
    x = jax.random.normal(jax.random.key(0), (2, 7, 4, 16))
    module = Relations(3)
    variables = start(module, x)
    ab = variables["params"]["ab"]
    late = (x @ ab["kernel"] + ab["bias"]).mean(axis=1).reshape(2, 4, 2, 3, 8)
    a, b = late[:, :, 0].swapaxes(1, 2), late[:, :, 1].swapaxes(1, 2)  # [B, S, V, R]
    expected = jnp.tanh(a[:, :, :, None] - b[:, :, None]).swapaxes(0, 1)
    got = all_pairs(*run(module, variables, x), "tanh_diff")
    np.testing.assert_allclose(got, expected, atol=1e-5)


def _without(params, *names):
    return {name: value for name, value in params.items() if name not in names}
