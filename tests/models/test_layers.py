"""The fast formulations equal the plain ones, in value and in gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hocslm_jax.models.aggregation import aggregate
from hocslm_jax.models.layers import TemporalConv, max_pool_time, product, subsample
from hocslm_jax.models.normalisation import BatchNorm


@pytest.fixture
def operands():
    keys = jax.random.split(jax.random.key(0), 5)
    topologies = [jax.random.normal(k, (2, 4, 4, 5)) for k in keys[:3]]
    values = list(jax.random.normal(keys[3], (3, 2, 6, 4, 5)))
    return topologies, values, jax.random.normal(keys[4], (2, 6, 4, 5))


def _einsum(topologies, values):
    return jnp.einsum("sbuvo,sbtvo->btuo", jnp.stack(topologies), jnp.stack(values))


@pytest.fixture(params=["cpu", "default"])
def backend(request, monkeypatch):
    """The formulation of CPU and TPU, and the default."""
    if request.param == "default":
        take = lambda *operands, default, **others: default(*operands)  # noqa: E731
        monkeypatch.setattr(jax.lax, "platform_dependent", take)


@pytest.mark.usefixtures("backend")
def test_aggregation_and_its_gradients(operands):
    topologies, values, weight = operands
    np.testing.assert_allclose(
        aggregate(topologies, values), _einsum(topologies, values), rtol=1e-4, atol=1e-5
    )

    def gradients(function):
        return jax.grad(lambda a, x: (function(a, x) * weight).sum(), (0, 1))(topologies, values)

    jax.tree.map(
        lambda ours, plain: np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5),
        gradients(aggregate),
        gradients(_einsum),
    )


@pytest.mark.parametrize(("platform", "products"), [("cpu", 0), ("tpu", 0), ("cuda", 1)])
def test_formulation_depends_on_the_target_platform(operands, platform, products):
    topologies, values, weight = operands

    def backward(a, x):
        return jax.vjp(aggregate, a, x)[1](weight)

    for function, count in ((aggregate, products), (backward, 2 * products)):
        lowered = jax.jit(function).trace(topologies, values)
        text = lowered.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.dot_general") == count


def test_aggregation_adds_up_in_float32(operands):
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), operands[:2])
    exact = _einsum(*jax.tree.map(lambda a: a.astype(jnp.float32), half))
    got = aggregate(*half)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, exact.astype(jnp.bfloat16))


@pytest.mark.usefixtures("backend")
def test_a_product_and_its_gradients():
    x, kernel, weight = (
        jax.random.normal(jax.random.key(n), shape)
        for n, shape in enumerate([(2, 6, 4, 5), (5, 3), (2, 6, 4, 3)])
    )

    def gradients(function):
        return jax.grad(lambda a, b: (function(a, b) * weight).sum(), (0, 1))(x, kernel)

    np.testing.assert_allclose(product(x, kernel), x @ kernel, rtol=1e-5)
    for ours, plain in zip(gradients(product), gradients(jnp.matmul), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("frames", "stride"), [(8, 1), (8, 2), (13, 2), (7, 3)])
def test_subsampling_takes_every_nth_frame(frames, stride):
    x = jax.random.normal(jax.random.key(0), (2, frames, 3, 4))
    np.testing.assert_array_equal(subsample(x, stride), x[:, ::stride])
    gradient = jax.grad(lambda x: jnp.square(subsample(x, stride)).sum())(x)
    kept = (np.arange(frames) % stride == 0)[:, None, None]
    np.testing.assert_array_equal(gradient, np.where(kept, 2 * x, 0))


@pytest.mark.parametrize("frames", [8, 13])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_temporal_convolution(frames, stride, dilation):
    x = jax.random.normal(jax.random.key(0), (2, frames, 3, 4))
    module = TemporalConv(6, 5, stride, dilation)
    params = module.init(jax.random.key(1), x)["params"]
    params["bias"] += 1.5

    def plain(params, x):
        return jax.lax.conv_general_dilated(
            x,
            params["kernel"][:, None],
            (stride, 1),
            [(2 * dilation, 2 * dilation), (0, 0)],
            rhs_dilation=(dilation, 1),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def ours(params, x):
        return module.apply({"params": params}, x)[0]

    np.testing.assert_array_equal(module.apply({"params": params}, x)[1], params["bias"])
    expected, plain_gradients = jax.vjp(plain, params, x)
    result, gradients = jax.vjp(ours, params, x)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    weight = jax.random.normal(jax.random.key(2), expected.shape)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        gradients(weight),
        plain_gradients(weight),
    )


@pytest.mark.parametrize("train", [True, False])
def test_batch_norm_equals_flax(train):
    """Output, running statistics and gradients, also with a bias that only shifts the mean."""
    keys = jax.random.split(jax.random.key(0), 5)
    x = 3.0 + 2.0 * jax.random.normal(keys[0], (4, 5, 3, 6))
    params = {
        n: jax.random.normal(k, (6,)) for n, k in zip(("scale", "bias"), keys[1:], strict=False)
    }
    stats = {"mean": jax.random.normal(keys[3], (6,)), "var": jnp.full(6, 1.7)}
    weight, shift = jax.random.normal(keys[4], x.shape), jnp.arange(6.0)
    flax = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, use_fast_variance=False)

    def theirs(params, x):
        variables = {"params": params, "batch_stats": stats}
        return flax.apply(variables, x + shift, mutable=["batch_stats"])

    def ours(params, x):
        variables = {"params": params, "batch_stats": stats}
        return BatchNorm(train).apply(variables, x, shift, mutable=["batch_stats"])

    def both(function):
        loss = lambda params, x: (function(params, x)[0] * weight).sum()  # noqa: E731
        return function(params, x), jax.grad(loss, (0, 1))(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        both(ours),
        both(theirs),
    )


def test_statistics_far_from_zero_keep_precision():
    """One pass over the data suffices if the running mean is close."""
    x = 1000.0 + jax.random.normal(jax.random.key(0), (64, 5, 3, 2))
    module = BatchNorm(True)
    near = {"batch_stats": {"mean": jnp.full(2, 999.0), "var": jnp.ones(2)}}
    params = module.init(jax.random.key(1), x)["params"]
    y, updated = module.apply({"params": params, **near}, x, mutable=["batch_stats"])
    exact = np.asarray(x, np.float64).var((0, 1, 2))
    np.testing.assert_allclose(updated["batch_stats"]["var"], 0.9 + 0.1 * exact, rtol=1e-5)
    np.testing.assert_allclose(np.std(y, (0, 1, 2)), 1.0, rtol=1e-3)


def test_max_pool_gives_ties_to_the_first_frame():
    x = jnp.zeros((1, 4, 1, 1)).at[0, 3].set(1.0)
    np.testing.assert_array_equal(max_pool_time(x, 1)[0, :, 0, 0], [0, 0, 1, 1])
    np.testing.assert_array_equal(max_pool_time(x, 2)[0, :, 0, 0], [0, 1])
    gradient = jax.grad(lambda x: max_pool_time(x, 1).sum())(x)
    np.testing.assert_array_equal(gradient[0, :, 0, 0], [2, 0, 0, 2])


def test_max_pool_equals_torch_with_ties():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(-2, 2, (2, 9, 3, 4)).astype(np.float32)
    theirs = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    pool = torch.nn.MaxPool2d((3, 1), (2, 1), (1, 0))
    weight = np.random.default_rng(1).standard_normal((2, 5, 3, 4)).astype(np.float32)
    out = pool(theirs)
    (out * torch.tensor(weight.transpose(0, 3, 1, 2))).sum().backward()
    np.testing.assert_array_equal(max_pool_time(x, 2), out.detach().numpy().transpose(0, 2, 3, 1))
    ours = jax.grad(lambda x: (max_pool_time(x, 2) * weight).sum())(x)
    np.testing.assert_allclose(ours, theirs.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-6)
