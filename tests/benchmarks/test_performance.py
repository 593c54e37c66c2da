"""Every formulation of the train step gives the same step; the tables are those of the results."""

import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks import changes, first_step, performance
from hocslm_jax.errors import UserError
from hocslm_jax.graph import UCLA20
from hocslm_jax.models import layers
from hocslm_jax.models.encoder import EncoderConfig, Recogniser
from hocslm_jax.train import environment, optim

ROOT = Path(__file__).resolve().parents[2]
TOUCHED = (
    *((layers, name) for name in ("_loops", "_loops_backward", "normalise", "convolve")),
    (environment, "keep_memory"),
    (environment, "compiler_options"),
)


def gradients() -> dict:
    """Of a loss in every parameter of a tiny CTR-GCN, none of them at a start where it is idle."""
    config = EncoderConfig("ctrgc", "ltc", width=8, stages=(1, 1))
    model = Recogniser(UCLA20, 4, config)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 1, 6, 20, 3)), jnp.float32)
    variables = jax.jit(lambda key: model.init(key, x, train=False))(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape), variables["params"])

    def loss(params):
        rest = {"batch_stats": variables["batch_stats"]}
        logits, _ = model.apply({"params": params, **rest}, x, True, mutable=["batch_stats"])
        return jnp.square(logits - 1).sum()

    return jax.jit(jax.grad(loss))(params)


@pytest.fixture(scope="module")
def as_it_is():
    return gradients()


@pytest.mark.parametrize("name", list(changes.UNDONE)[1:])
def test_a_choice_undone_changes_the_cost_and_nothing_else(name, as_it_is, monkeypatch):
    before = [getattr(module, attribute) for module, attribute in TOUCHED]
    for (module, attribute), value in zip(TOUCHED, before, strict=True):
        monkeypatch.setattr(module, attribute, value)  # what undoes the undoing
    changes.UNDONE[name]()
    assert [getattr(module, attribute) for module, attribute in TOUCHED] != before
    if name in ("returned memory", "default compiler"):
        return  # they do not touch the arithmetic
    jax.tree.map(
        lambda new, old: np.testing.assert_allclose(new, old, rtol=2e-3, atol=2e-3),
        gradients(),
        as_it_is,
    )


@pytest.mark.parametrize("name", list(first_step.VARIANTS)[1:])
def test_what_is_left_out_of_the_first_step_is_named(name, monkeypatch):
    touched = [(optax.tree, "norm"), (optim, "make_optimizer"), (environment, "compiler_options")]
    before = [getattr(module, attribute) for module, attribute in touched]
    for (module, attribute), value in zip(touched, before, strict=True):
        monkeypatch.setattr(module, attribute, value)  # what undoes the leaving out
    first_step.VARIANTS[name]()
    assert [getattr(module, attribute) for module, attribute in touched] != before
    assert set(first_step.VARIANTS) == set(performance.FIRST_STEP)


def test_the_document_holds_the_results_and_no_others(tmp_path, capsys):
    document = tmp_path / "performance.md"
    document.write_text((ROOT / "docs/performance.md").read_text())
    argv = ["--results", str(ROOT / "results/benchmarks"), "--docs", str(document)]
    assert performance.main([*argv, "--check"]) == 0
    result = json.loads((ROOT / "results/benchmarks/changes.json").read_text())
    result["rows"]["as it is"]["train_clips_per_s"]["median"] = 12345.6
    (tmp_path / "changes.json").write_text(json.dumps(result))
    argv[1] = str(tmp_path)
    assert performance.main([*argv, "--check"]) == 2
    assert "stale" in capsys.readouterr().err
    assert performance.main(argv) == 0
    assert "12345.6" in document.read_text() and "Not measured yet" in document.read_text()


def test_a_result_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "encoder.json").write_text("{")
    with pytest.raises(UserError, match=r"encoder\.json"):
        performance.tables(tmp_path)


def test_every_table_of_a_benchmark_names_one():
    for name in performance.TABLES:
        assert hasattr(importlib.import_module(f"benchmarks.{name}"), "main")


def test_a_contestant_that_could_not_run_is_named_in_the_table():
    result = json.loads((ROOT / "results/benchmarks/joint_speed.json").read_text())
    result["contestants"]["torch+compile"] = {"error": "out of memory"}
    assert "| `torch+compile` | out of memory |" in performance.joint_table(result)
