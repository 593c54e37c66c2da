"""HGLNet: its equations by plain loops, its ties to CTR-GCN and the static graph, its switches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, UCLA20, Graph, adjacency
from hocslm_jax.models import CTRGCN, HGLNET, Recogniser, build_model
from hocslm_jax.models.relations import Relations, all_pairs
from hocslm_jax.models.spatial import CTS, GSM, LSE
from hocslm_jax.models.temporal import DHT, GTA

CHAIN = Graph("chain", ("a", "b", "c", "d"), ((0, 1), (2, 1), (3, 2)), 1)
SMALL = dataclasses.replace(HGLNET, width=8, stages=(1, 1))
ROWS = {  # the rows of the paper's Tables 4 and 5
    "baseline": {"spatial": "ctrgc", "temporal": "ltc"},
    "baseline+CTS": {"temporal": "ltc"},
    "baseline+DHT": {"spatial": "ctrgc"},
    "only local": {"gsm": False, "gta": False},
    "without GSM": {"gsm": False},
    "without GTA": {"gta": False},
    "only global": {"lse": False, "ltc": False},
    "HGLNet": {},
}


@pytest.fixture
def clip():
    return jax.random.normal(jax.random.key(1), (2, 1, 9, 4, 3))


def shaken(params, key=7):
    """The same tree with noise on every leaf, so that no gate stays shut."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key), len(leaves))
    noisy = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


@pytest.mark.parametrize(
    ("changes", "ntu60", "ucla"),
    [
        ({}, 1_991_348, 1_960_018),
        ({"gsm": False, "gta": False}, 1_443_446, 1_430_416),
        ({"gta": False}, 1_593_184, 1_561_854),
        ({"gsm": False}, 1_841_610, 1_828_580),
    ],
)
def test_parameter_counts(changes, ntu60, ucla):
    """The budgets of the design's table: 1.991, 1.443, 1.593 and 1.842 million on NTU60."""
    config = dataclasses.replace(HGLNET, **changes)
    for graph, persons, classes, expected in ((NTU25, 2, 60, ntu60), (UCLA20, 1, 10, ucla)):
        model = Recogniser(graph, classes, config)
        x = jnp.zeros((1, persons, 8, graph.num_joints, 3))
        shapes = jax.eval_shape(lambda key, m=model, x=x: m.init(key, x, False), jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == expected


def test_every_row_of_tables_4_and_5_is_one_setting(clip):
    sizes = {}
    for name, row in ROWS.items():
        settings = {"width": 8, "stages": (1, 1), **row}
        model = build_model({"encoder": "hglnet", **settings}, graph=CHAIN, num_classes=5)
        variables = jax.eval_shape(lambda key, m=model: m.init(key, clip, False), jax.random.key(0))
        logits = jax.eval_shape(lambda v, m=model: m.apply(v, clip, False), variables)
        assert logits.shape == (2, 5)
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    # Table 4's "baseline + CTS" and Table 5's "without GTA" are one network, whatever they score.
    assert sizes["baseline+CTS"] == sizes["without GTA"]
    assert len(set(sizes.values())) == len(ROWS) - 1


def test_gsm_equations_2_to_5():
    relation, width, features = 3, 16, 6
    a, b = jax.random.normal(jax.random.key(0), (2, 3, 1, 4, relation))
    module = GSM(features, CHAIN)
    args = (a, b, jnp.float32(0.7), jnp.zeros((3, 4, 4)))
    params = shaken(module.init(jax.random.key(1), *args)["params"])
    got = module.apply({"params": params}, *args)
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


def test_lse_equation_6_stays_on_the_bones():
    a, b = jax.random.normal(jax.random.key(0), (2, 3, 2, 4, 3))
    module = LSE(5, CHAIN)
    params = shaken(module.init(jax.random.key(1), a, b)["params"])
    bones, static = module.apply({"params": params}, a, b)
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


def test_cts_is_the_weighted_sum_of_its_parts():
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 8))
    both = CTS(6, CHAIN)
    params = shaken(both.init(jax.random.key(1), x)["params"])
    whole = CTS(6, CHAIN, lse=False).apply({"params": _without(params, "lse", "fusion")}, x)
    local = CTS(6, CHAIN, gsm=False).apply({"params": _without(params, "gsm", "fusion")}, x)
    weights = params["fusion"]
    for got, a, b in zip(both.apply({"params": params}, x), whole, local, strict=True):
        np.testing.assert_allclose(got, weights[0] * a + weights[1] * b, rtol=1e-4, atol=1e-5)
    support = adjacency(CHAIN) != 0
    for s in range(3):
        assert np.all(np.asarray(local[s])[:, ~support[s]] == 0)


def test_pairwise_tensor_in_the_place_of_gsm_is_ctr_gc(clip):
    """With F for G and gamma for alpha, CTS without LSE is CTR-GC, weight for weight."""
    ctr = dataclasses.replace(CTRGCN, width=8, stages=(1, 1))
    cts = dataclasses.replace(ctr, spatial="cts", lse=False, gsm_attention=False)
    theirs, ours = Recogniser(CHAIN, 5, ctr), Recogniser(CHAIN, 5, cts)
    variables = theirs.init(jax.random.key(0), clip, False)
    params = traverse_util.flatten_dict(shaken(variables["params"]), sep="/")
    renamed = {}
    for name, value in params.items():
        value = jnp.repeat(value, 3) if name.endswith("ctrgc/alpha") else value
        name = name.replace("ctrgc/alpha", "cts/gsm/gamma").replace("ctrgc/graph", "cts/gsm/graph")
        name = name.replace("ctrgc/expand", "cts/gsm/expand").replace("ctrgc", "cts")
        renamed[name] = value
    renamed = traverse_util.unflatten_dict(renamed, sep="/")
    stats = {"batch_stats": variables["batch_stats"]}
    original = traverse_util.unflatten_dict(params, sep="/")
    expected = theirs.apply({"params": original, **stats}, clip, False)
    got = ours.apply({"params": renamed, **stats}, clip, False)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_closed_gates_are_the_static_graph_and_plain_ltc(clip):
    """At first every topology is the skeleton, and the logits are CTR-GCN's with these weights."""
    model = Recogniser(CHAIN, 5, SMALL)
    variables = model.init(jax.random.key(0), clip, False)
    logits, maps = model.apply(variables, clip, False, mutable=["maps"])
    for block in ("block1", "block2"):
        (topologies,) = maps["maps"]["encoder"][block]["spatial"]["topology"]
        for s, topology in enumerate(topologies):
            expected = np.broadcast_to(adjacency(CHAIN)[s][None, ..., None], topology.shape)
            np.testing.assert_allclose(topology, expected, atol=1e-6)

    plain = dataclasses.replace(SMALL, spatial="ctrgc", temporal="ltc")
    static = Recogniser(CHAIN, 5, plain)
    own = static.init(jax.random.key(0), clip, False)
    shared = {
        collection: _renamed(own[collection], variables[collection])
        for collection in ("params", "batch_stats")
    }
    np.testing.assert_allclose(static.apply(shared, clip, False), logits, rtol=1e-5, atol=1e-5)


def test_gta_equation_8_and_its_stride():
    x = jax.random.normal(jax.random.key(0), (2, 13, 4, 8))
    module = GTA(stride=2)
    variables = module.init(jax.random.key(1), x, False)
    params = shaken(variables["params"])
    got, maps = module.apply(variables | {"params": params}, x, False, mutable=["maps"])
    p = jax.tree.map(np.asarray, params)
    q, k, value = (np.asarray(x) @ p[n]["kernel"] + p[n]["bias"] for n in ("query", "key", "value"))
    for joint in range(4):
        logits = q[1, ::2, joint] @ k[1, :, joint].T / np.sqrt(2)
        attention = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(maps["maps"]["attention"][0][1, joint], attention, rtol=1e-4)
        expected = attention @ value[1, :, joint] / np.sqrt(1 + 1e-5)
        expected = expected * p["bn"]["scale"] + p["bn"]["bias"]
        np.testing.assert_allclose(got[1, :, joint], expected, rtol=1e-3, atol=1e-4)


def test_relative_position_tells_frames_apart():
    """Without a position GTA is blind to the order of frames; with the bias it is not."""
    x = jax.random.normal(jax.random.key(0), (1, 6, 4, 8))
    for position, blind in (("none", True), ("relative", False)):
        module = GTA(position=position)
        variables = module.init(jax.random.key(1), x, False)
        variables = variables | {"params": shaken(variables["params"])}
        forward = module.apply(variables, x, False)
        backward = module.apply(variables, x[:, ::-1], False)[:, ::-1]
        assert np.allclose(forward, backward, atol=1e-5) == blind


@pytest.mark.parametrize("part", ["gta", "ltc"])
def test_dht_with_one_part_is_that_part(part):
    x = jax.random.normal(jax.random.key(0), (1, 8, 4, 16))
    module = DHT(gta=part == "gta", ltc=part == "ltc")
    variables = module.init(jax.random.key(1), x, False)
    assert set(variables["params"]) == {part}


def test_averaging_over_time_first_changes_nothing():
    x = jax.random.normal(jax.random.key(0), (2, 7, 4, 16))
    module = Relations(3)
    variables = module.init(jax.random.key(1), x)
    ab = variables["params"]["ab"]
    late = (x @ ab["kernel"] + ab["bias"]).mean(axis=1).reshape(2, 4, 2, 3, 8)
    a, b = late[:, :, 0].swapaxes(1, 2), late[:, :, 1].swapaxes(1, 2)  # [B, S, V, R]
    expected = jnp.tanh(a[:, :, :, None] - b[:, :, None]).swapaxes(0, 1)
    got = all_pairs(*module.apply(variables, x), "tanh_diff")
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_starts_with_logits_that_depend_on_the_clip(clip, row):
    """The first block has no shortcut: with scales of zero it would be silent, and stay so."""
    model = Recogniser(CHAIN, 5, dataclasses.replace(SMALL, **row))
    logits, _ = model.init_with_output(jax.random.key(0), clip, False)
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_every_parameter_has_a_gradient(clip):
    model = Recogniser(CHAIN, 5, dataclasses.replace(SMALL, gta_position="relative"))
    variables = model.init(jax.random.key(0), clip, False)
    stats = variables["batch_stats"]

    def loss(params):
        logits = model.apply({"params": params, "batch_stats": stats}, clip, False)
        return (logits * jnp.arange(5.0)).sum()

    grads = jax.jit(jax.grad(loss))(shaken(variables["params"]))
    dead = [
        name
        for name, grad in traverse_util.flatten_dict(grads, sep="/").items()
        if not np.abs(grad).max() > 0
    ]
    assert not dead


def test_bfloat16_keeps_logits_and_statistics_in_float32(clip):
    model = Recogniser(CHAIN, 5, dataclasses.replace(SMALL, dtype="bfloat16"))
    variables = model.init(jax.random.key(0), clip, False)
    logits, updated = model.apply(variables, clip, True, mutable=["batch_stats"])
    exact = Recogniser(CHAIN, 5, SMALL).apply(variables, clip, True, mutable=["batch_stats"])[0]
    assert logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))
    np.testing.assert_allclose(logits, exact, atol=0.15 * float(jnp.abs(exact).max()))


def test_blocks_computed_twice_give_the_same_gradients_and_statistics(clip):
    plain = Recogniser(CHAIN, 5, SMALL)
    twice = Recogniser(CHAIN, 5, dataclasses.replace(SMALL, remat=True))
    variables = jax.jit(plain.init, static_argnums=2)(jax.random.key(0), clip, False)

    def step(model):
        def loss(params):
            state = variables | {"params": params}
            logits, updated = model.apply(state, clip, True, mutable=["batch_stats"])
            return (logits * jnp.arange(5.0)).sum(), updated

        return jax.grad(loss, has_aux=True)

    params = shaken(variables["params"])
    assert "remat" in str(jax.make_jaxpr(step(twice))(params))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.jit(step(twice))(params),
        jax.jit(step(plain))(params),
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "hglnett"}, "use one of ctrgcn, hglnet"),
        ({"widht": 64}, "did you mean 'width'"),
        ({"spatial": "gsm"}, r"model.spatial is 'gsm'; use one of cts, ctrgc"),
        ({"gsm": False, "lse": False}, "both off"),
        ({"width": 12}, "multiple of 8"),
        ({"stages": ()}, "model.stages"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        build_model(settings, graph=CHAIN, num_classes=5)


def _without(params, *names):
    return {name: value for name, value in params.items() if name not in names}


def _renamed(wanted, variables):
    """The leaves of HGLNet's tree under the names of the plain network's."""
    flat = traverse_util.flatten_dict(variables, sep="/")
    names = {
        "ctrgc/alpha": None,
        "ctrgc/relations": "cts/relations",
        "ctrgc/graph": None,
        "ctrgc/expand": None,
        "/ltc": "/dht/ltc",
    }
    out = {}
    for name, own in traverse_util.flatten_dict(wanted, sep="/").items():
        match = next((key for key in names if key in name), None)
        if match is None:
            out[name] = flat[name]
        else:
            out[name] = own if names[match] is None else flat[name.replace(match, names[match])]
    return traverse_util.unflatten_dict(out, sep="/")
