"""A stage records its initial weights, so that results are never of mixed origin."""

import json

import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.train import lineage, loop

SHORT = {"model.encoder": "groups", "train.epochs": 1, "finetune.epochs": 1}


@pytest.fixture
def two_stages(tmp_path):
    """A finished run of two stages, without language."""
    assert tiny_run.train_strategy(tmp_path, "T0+", SHORT) == 0
    return tmp_path


def stop_at(monkeypatch, step):
    told = lambda self, now: now == step  # noqa: E731
    monkeypatch.setattr(loop.Trainer, "must_stop", told)


def result_of(folder):
    path = folder / "result.json"
    return json.loads(path.read_text()) if path.exists() else None


def test_longer_first_stage_invalidates_the_second(two_stages, capsys):
    before = (result_of(two_stages), result_of(two_stages / "stages/1"))
    capsys.readouterr()
    with pytest.raises(UserError, match=r"after 1 epochs, not 2: set train\.epochs=1") as error:
        tiny_run.train_strategy(two_stages, "T0+", SHORT | {"train.epochs": 2})
    assert len(str(error.value)) < 300 and "finished" not in capsys.readouterr().out
    assert (result_of(two_stages), result_of(two_stages / "stages/1")) == before  # nothing trained


def test_the_last_stage_can_be_trained_further(two_stages):
    first = result_of(two_stages / "stages/1")
    assert tiny_run.train_strategy(two_stages, "T0+", SHORT | {"finetune.epochs": 2}) == 0
    assert result_of(two_stages)["epochs"] == 2 and result_of(two_stages / "stages/1") == first


def test_interrupted_extension_has_no_result_and_starts_no_stage(tmp_path, monkeypatch):
    """A first stage that is extended and interrupted must not count as finished."""
    stop_at(monkeypatch, 5)  # in the second epoch of 4 steps
    first = tmp_path / "first"
    assert tiny_run.train_strategy(first, "T0", SHORT) == 0
    assert result_of(first)["epochs"] == 1
    assert tiny_run.train_strategy(first, "T0", SHORT | {"train.epochs": 2}) == 0
    assert result_of(first) is None
    with pytest.raises(UserError, match="not finished"):
        tiny_run.train_strategy(tmp_path / "two", "T0+", SHORT | {"t0": str(first)})


def test_sigterm_in_an_extended_first_stage_starts_no_second(tmp_path, monkeypatch):
    real = loop.train

    def first_alone(run, *rest):
        if run.config.stage:
            raise KeyboardInterrupt
        return real(run, *rest)

    monkeypatch.setattr(loop, "train", first_alone)
    with pytest.raises(KeyboardInterrupt):
        tiny_run.train_strategy(tmp_path, "T0+", SHORT)
    assert result_of(tmp_path / "stages/1")["epochs"] == 1
    monkeypatch.setattr(loop, "train", real)
    stop_at(monkeypatch, 6)  # in the second epoch of 4 steps
    assert tiny_run.train_strategy(tmp_path, "T0+", SHORT | {"train.epochs": 2}) == 0
    assert result_of(tmp_path / "stages/1") is None and not (tmp_path / "checkpoints").exists()


def test_stage_does_not_resume_from_another_start(tmp_path):
    """The run that a stage started from was trained further or replaced since."""
    first, second = tmp_path / "first", tmp_path / "second"
    assert tiny_run.train_strategy(first, "T0", SHORT) == 0
    config = SHORT | {"t0": str(first)}
    assert tiny_run.train_strategy(second, "T0+", config) == 0
    mark = result_of(second)["origin"]
    assert (
        mark and tiny_run.train_strategy(second, "T0+", config) == 0
    )  # reports that it is finished
    assert tiny_run.train_strategy(first, "T0", SHORT | {"train.epochs": 2}) == 0
    with pytest.raises(UserError, match=r"started from other weights than .*first") as error:
        tiny_run.train_strategy(second, "T0+", config)
    assert "checkpoints" in str(error.value) and result_of(second)["origin"] == mark


def test_a_fingerprint_depends_on_every_bit_and_name():
    import jax.numpy as jnp

    def mark(tree):
        return lineage.fingerprint(tree, None)

    tree = {"a": jnp.zeros(3), "b": jnp.ones((2, 2))}
    assert mark(tree) == mark(dict(reversed(tree.items())))
    others = [
        {"a": jnp.zeros(3), "c": jnp.ones((2, 2))},
        {"a": jnp.zeros(3), "b": jnp.ones((4, 1))},
        {"a": jnp.array([0.0, 0.0, -0.0]), "b": jnp.ones((2, 2))},
    ]
    assert len({mark(tree), *map(mark, others)}) == 4
