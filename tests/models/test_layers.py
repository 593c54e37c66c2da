"""The fast formulations equal the plain ones, in value and in gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax.models.layers import TemporalConv, add_graph, aggregate, max_pool_time


@pytest.fixture
def operands():
    keys = jax.random.split(jax.random.key(0), 7)
    topologies = [jax.random.normal(k, (2, 4, 4, 5)) for k in keys[:3]]
    values = [jax.random.normal(k, (2, 6, 4, 5)) for k in keys[3:6]]
    return topologies, values, jax.random.normal(keys[6], (2, 6, 4, 5))


def _einsum(topologies, values):
    return jnp.einsum("sbuvo,sbtvo->btuo", jnp.stack(topologies), jnp.stack(values))


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


def test_other_backends_take_the_einsum(operands, monkeypatch):
    topologies, values, _ = operands
    expected = aggregate(topologies, values)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_allclose(aggregate(topologies, values), expected, rtol=1e-4, atol=1e-5)


def test_add_graph_gradients(operands):
    (topology, *_), _, _ = operands
    graph = jax.random.normal(jax.random.key(3), (4, 4))
    weight = jax.random.normal(jax.random.key(4), topology.shape)
    ours = jax.grad(lambda a, g: (add_graph(a, g) * weight).sum(), (0, 1))(topology, graph)
    np.testing.assert_allclose(ours[0], weight, rtol=1e-6)
    np.testing.assert_allclose(ours[1], weight.sum(axis=(0, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frames", [8, 13])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_temporal_convolution(frames, stride, dilation):
    x = jax.random.normal(jax.random.key(0), (2, frames, 3, 4))
    module = TemporalConv(6, 5, stride, dilation)
    params = module.init(jax.random.key(1), x)["params"]
    params["bias"] += 1.5
    expected = jax.lax.conv_general_dilated(
        x,
        params["kernel"][:, None],
        (stride, 1),
        [(2 * dilation, 2 * dilation), (0, 0)],
        rhs_dilation=(dilation, 1),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    ours = module.apply({"params": params}, x)
    np.testing.assert_allclose(ours, expected + params["bias"], rtol=1e-4, atol=1e-5)


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
