"""The loop: learning, reports and refusals, on one device and on eight."""

import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from hocslm_jax import sharding
from hocslm_jax.errors import UserError
from hocslm_jax.train import checkpoint, loop, setup
from hocslm_jax.train.state import eval_variables


def reports(workdir, key):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def test_a_run_learns_and_writes_its_files(tmp_path):
    changes = {"train.epochs": 20, "optim.milestones": (15,)}
    assert loop.train(tiny_run.make_run(tmp_path, changes)).finished
    losses = reports(tmp_path, "train/loss")
    assert losses[-1] < 0.5 * losses[0]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (
        result["correct"] / result["total"] == result["top1"] == reports(tmp_path, "eval/top1")[-1]
    )
    assert result["best_correct"] == max(reports(tmp_path, "eval/correct")) <= result["total"] == 16
    assert result["steps"] == 20 * 4 and result["top1"] > 0.5
    assert result["samples_per_s"] > 0 and result["peak_memory_bytes"] > 1e6
    needed = (
        "dataset protocol encoder stream strategy seed epochs wall_clock_s machine versions command"
    )
    assert set(needed.split()) <= result.keys()
    names = "config.json model.json scores.npz per_class.json confusion.json confusion.png"
    assert all((tmp_path / name).stat().st_size for name in names.split())
    model = json.loads((tmp_path / "model.json").read_text())
    inputs = 3 * tiny_run.GRAPH.num_joints
    assert model["parameters"] == 2 * inputs + inputs * 16 + 16 + 16 * 4 + 4
    assert model["train_step_flops"] > 8 * model["forward_flops_per_clip"] > 0


@pytest.mark.parametrize("encoder", [{}, tiny_run.HGLNET], ids=["stand-in", "hglnet"])
def test_eight_devices_give_the_same_losses_as_one(tmp_path, monkeypatch, encoder):
    changes = {"train.log_every": 1, **encoder}
    assert jax.device_count() == 8
    loop.train(tiny_run.make_run(tmp_path / "eight", changes))
    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one)
    loop.train(tiny_run.make_run(tmp_path / "one", changes))
    many, single = (reports(tmp_path / name, "train/loss") for name in ("eight", "one"))
    assert len(many) == 12
    np.testing.assert_allclose(many, single, rtol=1e-5)


def test_a_run_resumes_on_another_number_of_devices(tmp_path, monkeypatch):
    loop.train(tiny_run.make_run(tmp_path / "whole"))
    loop.train(tiny_run.make_run(tmp_path / "moved", {"train.epochs": 1}))
    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one)
    loop.train(tiny_run.make_run(tmp_path / "moved"))
    whole, moved = (reports(tmp_path / name, "train/loss") for name in ("whole", "moved"))
    np.testing.assert_allclose(whole, moved, rtol=1e-5)


def test_evaluation_after_its_checkpoint_is_reported_once(tmp_path, monkeypatch):
    """A signal during an evaluation saves without it; the next process repeats it."""
    loop.train(tiny_run.make_run(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "maybe_evaluate", lambda *_: None)
        patch.setattr(loop.Trainer, "must_stop", lambda self, step: step == 4)
        loop.train(tiny_run.make_run(tmp_path / "broken"))

    def killed(self, step):
        raise KeyboardInterrupt

    for _ in range(2):  # after the evaluation, before anything is saved
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(loop.Trainer, "must_stop", killed)
            loop.train(tiny_run.make_run(tmp_path / "broken"))
    assert (
        reports(tmp_path / "broken", "eval/correct")
        == reports(tmp_path / "whole", "eval/correct")[:1]
    )
    loop.train(tiny_run.make_run(tmp_path / "broken"))
    for key in ("step", "eval/correct", "train/loss"):
        assert reports(tmp_path / "broken", key) == reports(tmp_path / "whole", key)


def test_a_checkpoint_without_a_weight_of_the_model_is_refused(tmp_path):
    run = tiny_run.make_run(tmp_path, {"train.epochs": 1})
    loop.train(run)
    wanted = eval_variables(run.abstract_state)
    first = next(iter(wanted["params"].values()))
    first["new"] = jax.tree.leaves(first)[0]
    with pytest.raises(UserError, match=r"does not fit this model: it has no params/.*new"):
        checkpoint.restore_variables(tmp_path, wanted)


def test_non_finite_loss_names_the_clip_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "hocslm_jax.data.feeder.FARTHEST", 1e35
    )  # otherwise the feeder refuses the clip
    loop.train(tiny_run.make_run(tmp_path, {"train.epochs": 1}))
    with pytest.raises(UserError) as error:
        loop.train(tiny_run.make_run(tmp_path, {"train.checkpoint_every": 1}, poisoned=11))
    text = str(error.value)
    assert "not finite at step" in text and "clip11" in text and "\n" not in text
    with checkpoint.open_manager(tmp_path) as manager:
        assert f"step {manager.latest_step()} in" in text
        state = checkpoint.restore(manager, tiny_run.make_run(tmp_path).abstract_state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        ("RESOURCE_EXHAUSTED: Failed to write 4453 bytes [os_error_code='28']", "No space left on"),
        ("No ArrayMetadata found for process_index=0", "No ArrayMetadata found"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_one_line(raised, reason):
    def fail():
        raise ValueError(f"{raised}, of {'x' * 900}")

    manager = SimpleNamespace(directory="runs/one/checkpoints", wait_until_finished=fail)
    with pytest.raises(UserError, match=f"checkpoint in runs/one/checkpoints: {reason}") as error:
        checkpoint.wait(manager)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_step_donates_its_state_and_updates_ema(tmp_path):
    run = tiny_run.make_run(tmp_path, {"optim.ema": 0.75})
    state = run.init(jax.random.key(0), {})
    before = jax.tree.map(jnp.copy, state.params)  # a NumPy view would keep the state alive
    batch = next(run.train_iterator())
    after, metrics, finite = run.train_step(state, {}, run.put(batch))
    assert bool(finite) and int(after.step) == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    mixed = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * np.asarray(new), before, after.params)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-6), after.ema["params"], mixed
    )
    assert float(metrics["loss"][1]) == 8


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"train.batch_size": 12}, r"train\.batch_size=12 is not a multiple of the 8"),
        ({"train.eval_batch_size": 4}, r"train\.eval_batch_size=4"),
        ({"train.log_every": 0}, r"train\.log_every=0"),
        ({"mesh.model": 3}, r"mesh\.model=3"),
        ({"optim.name": "adam"}, "'sgd' or 'adamw'"),
        ({"optim.schedule": "poly"}, "'step' or 'cosine'"),
        ({"optim.ema": 1.0}, r"optim\.ema"),
    ],
)
def test_invalid_settings_are_named(tmp_path, changes, text):
    with pytest.raises(UserError, match=text):
        tiny_run.make_run(tmp_path, changes)


def test_missing_dataset_is_not_prepared_by_default(tmp_path):
    config = tiny_run.make_config({"data.data_dir": str(tmp_path)})
    with pytest.raises(UserError, match="prepare nw_ucla"):
        setup.build_run(config, tmp_path / "run")


def test_self_contained_dataset_is_prepared_first(tmp_path, capsys):
    changes = {"data.data_dir": str(tmp_path), "data.dataset": "quickstart"}
    config = tiny_run.make_config(changes | {"data.auto_prepare": True})
    store = setup.open_data(config.data)
    assert len(store.rows("xsub", "train")) and (tmp_path / "quickstart").is_dir()
    assert "quickstart" in capsys.readouterr().out
    setup.open_data(config.data)
    assert capsys.readouterr().out == ""  # not repeated
