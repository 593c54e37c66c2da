"""The fusion: eq. 12 against NumPy, positions of eq. 13, and no cost for classification."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hocslm_jax.errors import UserError
from hocslm_jax.graph import UCLA20
from hocslm_jax.models import CTRGCN, FusionConfig, HocSLM, Projector, Recogniser, build_model
from hocslm_jax.models.encoder import Encoder
from hocslm_jax.models.hocslm import GROUPS, READS, caption_states
from hocslm_jax.models.lm import DecoderLM, LMConfig, init_params

SMALL = dataclasses.replace(CTRGCN, width=8, stages=(1, 1))
FUSION = FusionConfig(lm_width=12, prompt_length=3, width=10, gain=0.05)
LM = LMConfig(40, 12, 24, 2, 2, 1, 6)


@pytest.fixture(scope="module")
def fused():
    model = HocSLM(UCLA20, 4, FUSION, SMALL)
    x = jax.random.normal(jax.random.key(1), (2, 1, 8, 20, 3))
    variables = jax.jit(model.init, static_argnums=2)(jax.random.key(0), x, False)
    return model, variables, x


def run(model, variables, x):
    return jax.jit(lambda v: model.apply(v, x, train=False))(variables)


def test_projector_is_equation_12():
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(5, 6)).astype(np.float32)
    projector = Projector(features=4, width=7, gain=0.3)
    variables = projector.init(jax.random.key(0), feature)
    params = jax.tree.map(lambda p: rng.normal(size=p.shape), variables["params"])
    up, out, norm = params["up"], params["out"], params["norm"]
    hidden = np.maximum(feature @ up["kernel"] + up["bias"], 0) @ out["kernel"] + out["bias"]
    centred = hidden - hidden.mean(1, keepdims=True)
    wanted = centred / np.sqrt(hidden.var(1, keepdims=True) + 1e-5) * norm["scale"] + norm["bias"]
    got = projector.apply({"params": params}, feature)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_an_initial_visual_token_has_the_norm_of_a_word(fused):
    model, variables, x = fused
    _, prefix = run(model, variables, x)
    assert prefix.shape == (2, 4, 12)
    length = np.sqrt((np.asarray(prefix[:, 0]) ** 2).mean(axis=-1))
    np.testing.assert_allclose(length, FUSION.gain, rtol=1e-2)
    np.testing.assert_array_equal(prefix[:, 1:], np.stack([variables["params"]["prompt"]] * 2))


def test_leading_vectors_of_the_prompt_precede_the_visual_token(fused):
    model, variables, x = fused
    _, plain = run(model, variables, x)
    behind = HocSLM(UCLA20, 4, dataclasses.replace(FUSION, leading=1), SMALL)
    _, prefix = run(behind, variables, x)
    np.testing.assert_array_equal(prefix, np.asarray(plain)[:, [1, 0, 2, 3]])


@pytest.mark.parametrize("reads", READS)
def test_a_token_tells_left_from_right_if_it_reads_the_joints(fused, reads):
    """Features of two joints change places: their mean, and so the class, stays."""
    model = HocSLM(UCLA20, 4, dataclasses.replace(FUSION, reads=reads), SMALL)
    features = jax.random.normal(jax.random.key(2), (2, 20, 16))
    swapped = features.at[:, jnp.array([4, 8])].set(features[:, jnp.array([8, 4])])

    def run(features, act, *args):
        def answer(method, given, options, context):
            encodes = isinstance(context.module, Encoder) and context.method_name == "__call__"
            return features if encodes else method(*given, **options)

        with nn.intercept_methods(answer):
            return act(*args, fused[2], train=False)

    variables = run(features, model.init, jax.random.key(0))
    one, other = (run(joints, model.apply, variables) for joints in (features, swapped))
    np.testing.assert_allclose(one[0], other[0], atol=1e-6)
    moved = float(jnp.abs(one[1] - other[1])[:, 0].max())
    assert moved > 1e-3 if reads == "joints" else moved < 1e-6


def test_groups_and_logits_are_those_of_the_recogniser(fused):
    model, variables, x = fused
    params = variables["params"]
    assert set(params) == set(GROUPS)
    alone = {name: params[name] for name in ("encoder", "classifier")}
    recogniser = Recogniser(UCLA20, 4, SMALL)
    stats = variables["batch_stats"]
    wanted = run(recogniser, {"params": alone, "batch_stats": stats}, x)
    logits, _ = run(model, variables, x)
    np.testing.assert_allclose(logits, wanted, rtol=1e-6)


def test_the_projector_adds_no_cost_to_classification(fused):
    model, variables, x = fused

    def flops(function, variables):
        return jax.jit(function).lower(variables, x).compile().cost_analysis()["flops"]

    recogniser = Recogniser(UCLA20, 4, SMALL)
    params = {name: variables["params"][name] for name in ("encoder", "classifier")}
    alone = {"params": params, "batch_stats": variables["batch_stats"]}
    fused_flops = flops(lambda v, x: model.apply(v, x, train=False)[0], variables)
    assert fused_flops == flops(lambda v, x: recogniser.apply(v, x, train=False), alone)


def test_the_classifier_can_use_the_visual_token(fused):
    model, _, x = fused
    visual = dataclasses.replace(FUSION, classify_on="visual")
    model = build_model(
        {"encoder": "ctrgcn", "width": 8, "stages": (1, 1)},
        graph=UCLA20,
        num_classes=4,
        fusion=visual,
    )
    variables = jax.eval_shape(lambda k: model.init(k, x, False), jax.random.key(0))
    assert variables["params"]["classifier"]["kernel"].shape == (12, 4)
    with pytest.raises(UserError, match="'feature' or 'visual'"):
        dataclasses.replace(FUSION, classify_on="logits")


def test_token_is_predicted_from_prefix_and_earlier_tokens():
    """Eq. 13 with teacher forcing, compared with feeding one more token at a time."""
    lm, params = DecoderLM(LM, "float32"), init_params(LM, jax.random.key(0))
    rng = np.random.default_rng(0)
    prefix = jnp.asarray(rng.normal(size=(2, 4, 12)), jnp.float32)
    tokens = rng.integers(40, size=(2, 5)).astype(np.int32)
    states = jax.jit(lambda p: caption_states(lm, params, p, tokens))(prefix)
    assert states.shape == (2, 5, 12)
    table = np.asarray(params["embed"]["embedding"])
    read = jax.jit(lambda z: lm.apply({"params": params}, z))
    for t in (0, 2, 4):
        seen = jnp.concatenate([prefix, table[tokens[:, :t]]], axis=1)
        alone = read(seen)[:, -1]
        np.testing.assert_allclose(states[:, t], alone, rtol=1e-4, atol=1e-5)


def test_gradient_reaches_the_visual_token_through_the_frozen_model():
    lm, params = DecoderLM(LM, "float32"), init_params(LM, jax.random.key(0))
    tokens = np.array([[3, 7, 1]], np.int32)

    def last(prefix):
        return caption_states(lm, params, prefix, tokens)[:, -1].sum()

    gradient = np.asarray(jax.jit(jax.grad(last))(jnp.ones((1, 2, 12)) * jnp.arange(12)))
    assert (np.abs(gradient).max(axis=-1) > 0).all()
