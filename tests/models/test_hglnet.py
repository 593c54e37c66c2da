"""HGLNet as a whole: sizes, relation to CTR-GCN and the static graph, gradients, settings."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from small_hglnet import CHAIN, ROWS, SMALL, shaken

from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, UCLA20, adjacency
from hocslm_jax.models import CTRGCN, HGLNET, Recogniser, build_model

SHORT = dataclasses.replace(SMALL, stages=(1,))


@pytest.fixture(scope="module")
def clip():
    return jax.random.normal(jax.random.key(1), (2, 1, 9, 4, 3))


def first(model, clip):
    """The variables of a new network."""
    return jax.jit(model.init, static_argnums=2)(jax.random.key(0), clip, False)


def forward(model, variables, clip, train=False, **options):
    return jax.jit(lambda v: model.apply(v, clip, train, **options))(variables)


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


def test_settings_give_every_row_of_tables_4_and_5(clip):
    sizes = {}
    for name, row in ROWS.items():
        settings = {"width": 8, "stages": (1,), **row}
        model = build_model({"encoder": "hglnet", **settings}, graph=CHAIN, num_classes=5)
        start = functools.partial(model.init_with_output, train=False)
        logits, variables = jax.eval_shape(start, jax.random.key(0), clip)
        assert logits.shape == (2, 5)
        sizes[name] = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    # Table 4's "baseline + CTS" and Table 5's "without GTA" are the same network.
    assert sizes["baseline+CTS"] == sizes["without GTA"]
    assert len(set(sizes.values())) == len(ROWS) - 1


def test_cts_without_attention_equals_ctr_gc(clip):
    """With F for G and gamma for alpha, CTS without LSE is CTR-GC, weight for weight."""
    ctr = dataclasses.replace(CTRGCN, width=8, stages=(1, 1))
    cts = dataclasses.replace(ctr, spatial="cts", lse=False, gsm_attention=False)
    theirs, ours = Recogniser(CHAIN, 5, ctr), Recogniser(CHAIN, 5, cts)
    variables = first(theirs, clip)
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
    expected = forward(theirs, {"params": original, **stats}, clip)
    got = forward(ours, {"params": renamed, **stats}, clip)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_initial_network_equals_static_graph_and_ltc(clip):
    """At first every topology is the skeleton, and the logits are CTR-GCN's with these weights."""
    model = Recogniser(CHAIN, 5, SMALL)
    variables = first(model, clip)
    logits, maps = forward(model, variables, clip, mutable=["maps"])
    for block in ("block1", "block2"):
        (topologies,) = maps["maps"]["encoder"][block]["spatial"]["topology"]
        for s, topology in enumerate(topologies):
            expected = np.broadcast_to(adjacency(CHAIN)[s][None, ..., None], topology.shape)
            np.testing.assert_allclose(topology, expected, atol=1e-6)

    plain = dataclasses.replace(SMALL, spatial="ctrgc", temporal="ltc")
    static = Recogniser(CHAIN, 5, plain)
    own = first(static, clip)
    shared = {
        collection: _renamed(own[collection], variables[collection])
        for collection in ("params", "batch_stats")
    }
    np.testing.assert_allclose(forward(static, shared, clip), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_initial_logits_depend_on_the_clip(clip, row):
    """The first block has no shortcut: with zero scales its output and gradients would be 0."""
    model = Recogniser(CHAIN, 5, dataclasses.replace(SHORT, **row))
    start = jax.jit(functools.partial(model.init_with_output, train=False))
    logits, _ = start(jax.random.key(0), clip)
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_every_parameter_has_a_gradient(clip):
    model = Recogniser(CHAIN, 5, dataclasses.replace(SMALL, gta_position="relative"))
    variables = first(model, clip)
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
    plain = Recogniser(CHAIN, 5, SHORT)
    model = Recogniser(CHAIN, 5, dataclasses.replace(SHORT, dtype="bfloat16"))
    variables = first(plain, clip)
    logits, updated = forward(model, variables, clip, True, mutable=["batch_stats"])
    exact, _ = forward(plain, variables, clip, True, mutable=["batch_stats"])
    assert logits.dtype == jnp.float32
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(updated))
    np.testing.assert_allclose(logits, exact, atol=0.15 * float(jnp.abs(exact).max()))


def test_remat_gives_the_same_gradients_and_statistics(clip):
    plain = Recogniser(CHAIN, 5, SHORT)
    twice = Recogniser(CHAIN, 5, dataclasses.replace(SHORT, remat=True))
    variables = first(plain, clip)

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
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        build_model(settings, graph=CHAIN, num_classes=5)


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
