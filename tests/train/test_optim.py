"""Optimisers against their definitions and PyTorch; schedules against the protocol's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hocslm_jax import sharding
from hocslm_jax.graph import UCLA20
from hocslm_jax.models import FusionConfig, build_model
from hocslm_jax.train import experiment, optim

STEPS = 6


def settings(**changes):
    config = experiment.defaults().optim
    config.update(changes)
    return config


def run(tx, start, grads):
    params, state = start, tx.init(start)
    for grad in grads:
        updates, state = tx.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    start = {"kernel": rng.normal(size=(3, 2)), "bias": rng.normal(size=(2,))}
    grads = [jax.tree.map(lambda p: rng.normal(size=p.shape), start) for _ in range(STEPS)]
    return jax.tree.map(jnp.float32, start), jax.tree.map(jnp.float32, grads)


def test_sgd_is_nesterov_with_decay_in_the_gradient(problem):
    start, grads = problem
    rate = lambda step: 0.1 / (step + 1)  # noqa: E731
    got = run(optim.make_optimizer(settings(weight_decay=0.01), rate), start, grads)
    for name in start:
        p, v = np.float64(start[name]), 0.0
        for step in range(STEPS):
            g = np.float64(grads[step][name]) + 0.01 * p
            v = 0.9 * v + g
            p = p - rate(step) * (g + 0.9 * v)
        np.testing.assert_allclose(got[name], p, rtol=2e-6)


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_sgd_is_pytorch_sgd(problem, clip):
    torch = pytest.importorskip("torch")
    start, grads = problem
    tx = optim.make_optimizer(settings(weight_decay=4e-4, clip_norm=clip), lambda step: 0.1)
    got = run(tx, start, grads)
    names = sorted(start)
    params = [torch.nn.Parameter(torch.tensor(np.asarray(start[name]))) for name in names]
    sgd = torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True, weight_decay=4e-4)
    for grad in grads:
        for name, param in zip(names, params, strict=True):
            param.grad = torch.tensor(np.asarray(grad[name]))
        if clip:
            torch.nn.utils.clip_grad_norm_(params, clip)
        sgd.step()
    for name, param in zip(names, params, strict=True):
        np.testing.assert_allclose(got[name], param.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_adamw_is_pytorch_adamw(problem):
    torch = pytest.importorskip("torch")
    start, grads = problem
    tx = optim.make_optimizer(settings(name="adamw", weight_decay=0.01), lambda step: 0.01)
    got = run(tx, start, grads)["kernel"]
    param = torch.nn.Parameter(torch.tensor(np.asarray(start["kernel"])))
    adamw = torch.optim.AdamW([param], lr=0.01, weight_decay=0.01)
    for grad in grads:
        param.grad = torch.tensor(np.asarray(grad["kernel"]))
        adamw.step()
    np.testing.assert_allclose(got, param.detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decay_mask_excludes_biases_and_scalars(name):
    params = {"conv": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones((1, 2))}, "alpha": jnp.ones(())}
    tx = optim.make_optimizer(settings(name=name, weight_decay=0.5, decay_mask=True), lambda s: 0.1)
    zero = jax.tree.map(jnp.zeros_like, params)
    after = run(tx, params, [zero])
    assert float(after["conv"]["kernel"].max()) < 1
    assert float(after["conv"]["bias"].min()) == float(after["alpha"]) == 1


def test_step_schedule_follows_the_protocol():
    config = settings(lr=0.1, warmup_epochs=5, milestones=(35, 55))
    rate = jax.jit(optim.make_schedule(config, epochs=65, steps_per_epoch=7))
    wanted = {0: 0.02, 1: 0.04, 4: 0.1, 5: 0.1, 34: 0.1, 35: 0.01, 54: 0.01, 55: 0.001, 64: 0.001}
    for epoch, value in wanted.items():
        for step in (7 * epoch, 7 * epoch + 6):  # constant within the epoch
            assert float(rate(step)) == pytest.approx(value, rel=1e-6), epoch


def test_cosine_schedule_warms_up_and_ends_at_zero():
    config = settings(lr=0.4, warmup_epochs=2, schedule="cosine")
    rate = optim.make_schedule(config, epochs=10, steps_per_epoch=5)
    values = np.array([float(rate(step)) for step in range(51)])
    np.testing.assert_allclose(values[:10], 0.4 * np.arange(1, 11) / 10, rtol=1e-6)
    assert values[10] == pytest.approx(0.4) and values[30] == pytest.approx(0.2)
    assert (np.diff(values[10:]) < 0).all() and values[50] == pytest.approx(0, abs=1e-7)


def test_no_warmup():
    for kind in ("step", "cosine"):
        rate = optim.make_schedule(settings(warmup_epochs=0, schedule=kind), 10, 5)
        assert float(rate(0)) == pytest.approx(0.1)


@pytest.mark.parametrize("encoder", ["hglnet", "ctrgcn"])
def test_decay_mask_of_the_real_networks(encoder):
    """Matrices decay; parameters with a meaningful initial value do not, whatever their shape."""
    fusion = FusionConfig(lm_width=16, prompt_length=3, width=8)
    settings = {"encoder": encoder, "width": 8, "stages": (1, 1), "gta_position": "relative"}
    model = build_model(settings, graph=UCLA20, num_classes=4, fusion=fusion)

    def init(key):
        return model.init(key, jnp.zeros((1, 1, 8, 20, 3)), train=False)["params"]

    params = jax.eval_shape(init, jax.random.key(0))
    mask, shapes = (
        {sharding.path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (optim.decay_mask(params), jax.tree.map(lambda a: a.ndim, params))
    )
    spared = {name for name in mask if not mask[name]}
    words = {name.rpartition("/")[2] for name in spared}
    kept = {"scale", "bias", "graph", "prompt"}
    kept |= {"alpha"} if encoder == "ctrgcn" else set()
    more = "fusion gates gamma residual energy_bias gate_bias relative_bias"
    assert words == kept | (set(more.split()) if encoder == "hglnet" else set())
    assert all(shapes[name] > 1 for name in mask if mask[name])
    assert {name for name in mask if name.endswith("kernel")} <= set(mask) - spared
    # Several streams in one program have one more axis.
    stacked = jax.eval_shape(lambda p: jax.tree.map(lambda a: jnp.zeros((2, *a.shape)), p), params)
    assert optim.decay_mask(stacked) == optim.decay_mask(params)
