"""A run that is killed, terminated and interrupted ends like an undisturbed one."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.train import checkpoint, loop

CHANGES = {
    "train.epochs": 16,
    "train.log_every": 7,
    "train.checkpoint_every": 5,
    "train.keep": 1,
    "optim.ema": 0.9,
}
TIMINGS = ("step_time_s", "samples_per_s")


def start(workdir, read_s=0.0, changes=CHANGES):
    script = Path(tiny_run.__file__)
    command = [sys.executable, str(script), str(workdir), json.dumps(changes), str(read_s)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **pipes)


def reports(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def stop_at(workdir, step, signum, changes=CHANGES):
    """Starts the run and sends it a signal soon after it reported `step`."""
    process = start(workdir, 0.01, changes)
    deadline = time.monotonic() + 200
    while not any(line["step"] >= step for line in reports(workdir)[-3:]):
        assert process.poll() is None, process.communicate()[1][-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.random() * 0.1)
    process.send_signal(signum)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def without_timings(lines):
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]


def final_state(workdir, changes=CHANGES):
    run = tiny_run.make_run(workdir, changes)
    with checkpoint.open_manager(workdir) as manager:
        assert manager.latest_step() == changes["train.epochs"] * tiny_run.TRAIN // 8
        state = checkpoint.restore(manager, run.abstract_state)
    return jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng)))


def test_interrupted_run_is_bit_identical(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    output, errors = start(whole).communicate(timeout=100)
    assert f"after {CHANGES['train.epochs']} epochs" in output, errors

    code, _, _ = stop_at(broken, 14, signal.SIGKILL)
    assert code == -signal.SIGKILL
    with (broken / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4')  # a truncated line
    code, output, errors = stop_at(broken, 28, signal.SIGTERM)
    assert code == 0, errors
    assert output.count("stopped: step") == 1 and "Traceback" not in errors
    code, output, errors = stop_at(broken, 42, signal.SIGINT)
    assert code == 130 and output.count("stopped: step") == 1 and "Traceback" not in errors
    process = start(broken)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors

    assert without_timings(reports(broken)) == without_timings(reports(whole))
    jax.tree.map(np.testing.assert_array_equal, final_state(broken), final_state(whole))
    results = [json.loads((w / "result.json").read_text()) for w in (whole, broken)]
    assert results[0]["correct"] == results[1]["correct"]
    assert results[0]["best_correct"] == results[1]["best_correct"]
    assert results[1]["wall_clock_s"] > 0


def test_killed_hglnet_is_bit_identical(tmp_path):
    """The real encoder with all randomness: shuffling, crops, rotation, drops, dropout."""
    drops = {"data.drop_axis": 0.5, "data.drop_joints": 0.5, "model.dropout": 0.5}
    changes = CHANGES | tiny_run.HGLNET | drops | {"train.epochs": 6}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _, errors = start(whole, changes=changes).communicate(timeout=300)
    code, _, _ = stop_at(broken, random.choice([7, 14]), signal.SIGKILL, changes)
    assert code == -signal.SIGKILL
    process = start(broken, changes=changes)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert without_timings(reports(broken)) == without_timings(reports(whole))
    states = final_state(broken, changes), final_state(whole, changes)
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_dropout_differs_from_step_to_step(tmp_path):
    """A resumed run cannot show this: both would repeat one mask."""
    run = tiny_run.make_run(tmp_path, {"model.dropout": 0.5, "optim.lr": 0.0})
    with contextlib.closing(run.train_iterator()) as iterator:
        batch = run.put(next(iterator))
    state = run.init(jax.random.key(0), {})
    losses = []
    for _ in range(3):
        state, metrics, _ = run.train_step(state, {}, batch)
        losses.append(float(metrics["loss"][0]))
    assert len(set(losses)) == 3


def test_a_finished_run_reports_that_it_is_finished(tmp_path, capsys):
    assert loop.train(tiny_run.make_run(tmp_path)).finished
    first = (tmp_path / "result.json").read_text()
    lines = reports(tmp_path)
    assert loop.train(tiny_run.make_run(tmp_path)).finished
    assert f"{tmp_path} is finished" in capsys.readouterr().out
    assert (tmp_path / "result.json").read_text() == first and reports(tmp_path) == lines


def test_a_finished_run_continues_with_more_epochs(tmp_path):
    loop.train(tiny_run.make_run(tmp_path))
    assert loop.train(tiny_run.make_run(tmp_path, {"train.epochs": 4})).finished
    assert json.loads((tmp_path / "result.json").read_text())["epochs"] == 4
    assert [line["step"] for line in reports(tmp_path) if "eval/top1" in line] == [4, 8, 12, 16]


@pytest.mark.parametrize(
    "changes", [{"model.dropout": 0.5}, {"data.stream": "bone", "optim.lr": 0.2}]
)
def test_another_config_is_refused_by_key(tmp_path, changes):
    loop.train(tiny_run.make_run(tmp_path, {"train.epochs": 1}))
    with pytest.raises(UserError) as error:
        loop.train(tiny_run.make_run(tmp_path, changes))
    assert all(key in str(error.value) for key in changes)
    assert "\n" not in str(error.value)


def test_evaluation_repeats_the_result_and_refuses_another_model(tmp_path):
    loop.train(tiny_run.make_run(tmp_path, {"optim.ema": 0.5}))
    trained = dict(np.load(tmp_path / "scores.npz"))
    (tmp_path / "scores.npz").unlink()
    # Evaluation does not depend on the optimiser.
    assert loop.evaluate(tiny_run.make_run(tmp_path, {"optim.name": "adamw"})) == 0
    logits = np.load(tmp_path / "scores.npz")["logits"]
    np.testing.assert_allclose(logits, trained["logits"], rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=r"data\.frames \(4 there, 6 here\)"):
        loop.evaluate(tiny_run.make_run(tmp_path, {"data.frames": 6}))


def test_evaluation_of_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="no complete checkpoint"):
        loop.evaluate(tiny_run.make_run(tmp_path))
    assert not list(tmp_path.iterdir())


def test_fewer_epochs_than_done_are_refused(tmp_path):
    loop.train(tiny_run.make_run(tmp_path))
    with pytest.raises(UserError, match=r"at step 12, past the 4 steps of train\.epochs=1"):
        loop.train(tiny_run.make_run(tmp_path, {"train.epochs": 1}))
