"""A frozen group keeps its weights and statistics, and has no dropout."""

import jax
import numpy as np
import pytest
import tiny_run

from hocslm_jax.train import setup, step
from hocslm_jax.train.stages import read_stages


def make_run(tmp_path, train, encoder="groups"):
    config = tiny_run.make_config({"model.encoder": encoder})
    config.update(strategy="custom", stages=({"train": train},))
    return tiny_run.make_run_with(config, tmp_path, None)


@pytest.mark.parametrize(("train", "moves"), [(("classifier",), False), (("encoder",), True)])
def test_batchnorm_statistics_of_a_frozen_encoder_do_not_change(tmp_path, train, moves):
    run = make_run(tmp_path, train)
    state = run.init(jax.random.key(0), {})
    before = jax.tree.map(np.array, (state.batch_stats, state.fixed))
    batch = run.put(next(run.train_iterator()))
    for _ in range(2):
        state, _, finite = run.train_step(state, run.frozen, batch)
    assert bool(finite)
    stats, fixed = jax.tree.map(np.array, (state.batch_stats, state.fixed))
    jax.tree.map(np.testing.assert_array_equal, fixed, before[1])
    same = jax.tree.map(np.array_equal, stats, before[0])
    assert moves != all(jax.tree.leaves(same))


@pytest.mark.parametrize(
    ("train", "drops"),
    [(("encoder", "classifier"), True), (("classifier",), False), (("encoder",), False)],
)
def test_dropout_is_applied_only_to_trained_groups(train, drops):
    """Dropout lies between encoder and classifier, and affects the training of both."""
    config = tiny_run.make_config({"model.dropout": 0.5})
    config.update(strategy="custom", stages=({"train": train},))
    (stage,) = read_stages(config)
    settings = setup.model_settings(config)
    model = tiny_run.Tiny(4, settings.dropout)
    batch = random_batch()
    variables = model.init(jax.random.key(0), batch["x"], train=False)
    objective = setup.make_objective(config, stage, model, None, None)
    one, two = (
        objective(variables["params"], variables["batch_stats"], {}, batch, jax.random.key(key))[0]
        for key in (1, 2)
    )
    assert (float(one) != float(two)) == drops


def test_frozen_encoder_keeps_its_statistics_in_the_objective():
    model, batch = tiny_run.Tiny(4, 0.5), random_batch()
    variables = model.init(jax.random.key(0), batch["x"], train=False)
    objective = step.classify(model, mixup=0.2, train_encoder=False)
    given = variables["batch_stats"]
    rest = ({}, batch, jax.random.key(1))
    found = objective(variables["params"], given, *rest)[1][0]
    jax.tree.map(np.testing.assert_array_equal, found, given)


def random_batch():
    x = np.random.default_rng(0).normal(size=(8, 1, 4, 20, 3)).astype(np.float32)
    return {"x": x, "label": np.zeros(8, np.int32), "mask": np.ones(8, np.float32)}
