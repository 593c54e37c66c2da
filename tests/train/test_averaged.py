"""Averaged weights are evaluated with their own BatchNorm statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run
from flax import linen as nn

from hocslm_jax.train import checkpoint, loop, state, step


class Deep(nn.Module):
    """A network whose statistics depend on its weights."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = x.reshape(len(x), -1)
        for _ in range(2):
            x = nn.Dense(16)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(4)(x)


def clips(seed):
    rng = np.random.default_rng(seed)
    label = np.arange(32) % 4
    x = rng.normal(size=(32, 1, 2, 4, 3)) + 0.7 * label[:, None, None, None, None]
    return {"x": x.astype(np.float32), "label": label, "mask": np.ones(32, np.float32)}


@pytest.fixture(scope="module")
def trained():
    """The state in the middle of training at a high rate."""
    model, tx = Deep(), optax.sgd(0.2, 0.9)
    now = state.make_init(model, tx, (1, 2, 4, 3), ema=True)(jax.random.key(0), {})
    update = jax.jit(step.make_train_step(step.classify(model), tx, 0.98))
    for seed in range(150):
        now, _, _ = update(now, {}, clips(seed))
    return model, now


def loss(model, variables):
    batch = clips(1000)
    logits = model.apply(variables, batch["x"], train=False)
    return float(optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean())


def test_averaged_statistics_match_a_pass_over_training_clips(trained):
    model, now = trained
    ours = state.eval_variables(now)
    seen = [
        model.apply(ours, clips(seed)["x"], train=True, mutable=["batch_stats"])[1]["batch_stats"]
        for seed in range(20)
    ]
    # A step moves a running statistic a tenth of the way to that of its batch.
    mean = jax.tree.map(lambda *parts: sum(parts) / len(parts), *seen)
    mean = jax.tree.map(lambda new, old: (new - 0.9 * old) / 0.1, mean, ours["batch_stats"])
    again = loss(model, ours | {"batch_stats": mean})
    live = loss(model, ours | {"batch_stats": now.batch_stats})
    assert loss(model, ours) == pytest.approx(again, rel=0.25)
    assert abs(live - again) > 2 * abs(loss(model, ours) - again)


def test_without_averaging_nothing_is_added():
    now = state.make_init(Deep(), optax.sgd(0.1), (1, 2, 4, 3), ema=False)(jax.random.key(0), {})
    assert now.ema is None
    assert state.eval_variables(now) == {"params": now.params, "batch_stats": now.batch_stats}


def test_checkpoint_restores_averaged_weights_and_statistics(tmp_path, monkeypatch):
    deep = lambda *_, **__: Deep()  # noqa: E731
    monkeypatch.setattr(tiny_run, "build", deep)
    run = tiny_run.make_run(tmp_path, {"optim.ema": 0.9, "train.epochs": 1})
    assert loop.train(run).finished
    with checkpoint.open_manager(tmp_path) as manager:
        saved = checkpoint.restore(manager, run.abstract_state)
    found = checkpoint.restore_variables(tmp_path, state.eval_variables(run.abstract_state))
    jax.tree.map(np.testing.assert_array_equal, found, saved.ema)
    same = jax.tree.map(jnp.array_equal, saved.ema["batch_stats"], saved.batch_stats)
    assert not any(jax.tree.leaves(same))
