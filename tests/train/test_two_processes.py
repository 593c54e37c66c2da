"""Two processes of two CPU devices each, as on two hosts: one run, and the end of both for one.

The runs learn to describe, so a frozen language model is among what they share. They are compared
to one process with four devices, and to a run that nobody killed.
"""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import processes
import pytest
import tiny_run
from processes import ROOT, reports

from hocslm_jax import sharding
from hocslm_jax.language.open import open_language
from hocslm_jax.train import checkpoint, setup
from hocslm_jax.train.strategies import STRATEGIES

EPOCHS = 2
CHANGES = {
    **tiny_run.LANGUAGE,
    "strategy": "T4",
    "stages": STRATEGIES["T4"],
    "lm.pretrain.num_layers": 1,
    "lm.pretrain.num_heads": 4,
    "lm.pretrain.num_kv_heads": 4,
    "lm.max_tokens": 8,
    "lm.describe": 0,
    "finetune.epochs": EPOCHS,
    "train.log_every": 1,
}
STEPS = EPOCHS * tiny_run.TRAIN // 8
FSDP = {"mesh.fsdp": True, "lm.fsdp": True}


def run(workdir, notes, changes):
    """A run that ends well; returns what its processes said."""
    return processes.run(workdir, notes, {**CHANGES, **changes})


def clips(notes, number):
    """Rows that a process trained on, step by step: [steps, B]."""
    lines = (notes / f"clips{number}.jsonl").read_text().splitlines()
    return np.array([json.loads(line) for line in lines])


def same_numbers(workdir, other):
    one, two = reports(workdir), reports(other)
    assert len(one) == len(two) == STEPS + EPOCHS
    for line, wanted in zip(one, two, strict=True):
        assert line.keys() == wanted.keys()
        for name, value in wanted.items():
            assert line[name] == pytest.approx(value, rel=1e-4), (line["step"], name)


def weights(workdir, changes, model=1):
    """The state of a run's last checkpoint on this process's eight devices."""
    config = tiny_run.make_config({**CHANGES, **changes, "mesh.model": model})
    language = open_language(config.lm, setup.open_mesh(config), changes["lm.folder"])
    abstract = tiny_run.make_run_with(config, workdir, language).abstract_state
    with checkpoint.open_manager(workdir) as manager:
        assert manager.latest_step() == STEPS
        state = checkpoint.restore(manager, abstract)
    return jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="module")
def two(folder):
    """The run of two processes: workdir, notes, the changes that share its language model."""
    run(folder / "two", folder / "two_notes", {**FSDP, "lm.describe": 16})
    return folder / "two", folder / "two_notes", {"lm.folder": str(folder / "two/lm")}


@pytest.fixture(scope="module")
def one(folder, two):
    """The same run of one process with four devices: its workdir."""
    make_mesh, devices = sharding.make_mesh, jax.devices()[:4]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sharding, "make_mesh", lambda *args, **axes: make_mesh(*args, devices=devices, **axes)
        )
        changes = {key: value for key, value in {**CHANGES, **two[2]}.items() if key != "stages"}
        assert tiny_run.train_strategy(folder / "one", "T4", changes | {"lm.describe": 16}) == 0
    return folder / "one"


def test_two_processes_are_one_run(one, two):
    """Losses, gradient norms and scores are of the whole batch, and so is the description."""
    same_numbers(two[0], one)
    results = [json.loads((workdir / "result.json").read_text()) for workdir in (one, two[0])]
    assert [result["machine"]["hosts"] for result in results] == [1, 2]
    assert results[0]["captions"]["clips"] == results[1]["captions"]["clips"] == 16
    assert results[0]["correct"] == results[1]["correct"]


def test_each_clip_of_a_batch_is_loaded_by_one_process(two):
    first, second = (clips(two[1], number) for number in range(2))
    assert first.shape == second.shape == (STEPS, 4)
    epochs = np.concatenate([first, second], axis=1).reshape(EPOCHS, -1)
    for epoch in epochs:
        assert sorted(epoch) == list(range(tiny_run.TRAIN))


def test_only_process_0_writes(two):
    workdir, notes, _ = two
    files = [json.loads((notes / f"files{number}.json").read_text()) for number in range(2)]
    inside = [{f for f in paths if f.startswith(f"{workdir}/")} for paths in files]
    assert f"{workdir}/metrics.jsonl" in inside[0]
    assert f"{workdir}/result.partial.json" in inside[0]  # which is then moved
    # Each process saves its own shards of the state.
    assert not {f for f in inside[1] if not f.startswith(f"{workdir}/checkpoints/")}


def test_a_checkpoint_of_two_processes_is_read_by_one_on_another_mesh(one, two):
    """Written as shards of FSDP by two processes, read as whole weights, or split otherwise."""
    wanted = weights(one, two[2])
    for changes, model in (({}, 1), ({}, 2), (FSDP, 2)):
        state = weights(two[0], {**two[2], **changes}, model)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), state, wanted
        )


def test_a_replica_over_both_processes_reads_the_same_clips(folder, one, two):
    """Mesh (1, 4): both work on every clip, each with its half of the language model."""
    workdir, notes = folder / "model", folder / "model_notes"
    run(workdir, notes, {**two[2], "mesh.model": 4})
    first, second = (clips(notes, number) for number in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (STEPS, 8)
    same_numbers(workdir, one)


def test_the_death_of_one_ends_both_and_the_same_command_goes_on(folder, two):
    workdir, notes, changes = folder / "killed", folder / "killed_notes", {**two[2], **FSDP}
    changes["train.checkpoint_every"] = 2
    for number, step, words in ((1, 3, "stopped sending heartbeats"), (0, 5, "task died")):
        pair = processes.start(workdir, notes, {**CHANGES, **changes}, read_s=0.02)
        processes.wait_until(
            lambda step=step: any(line["step"] >= step for line in reports(workdir)), pair, step
        )
        status, said, seconds = processes.kill(number, pair)
        assert status != 0 and words in said, said[-2000:]
        assert seconds < 40
        assert not (workdir / "result.json").exists()
    said = run(workdir, notes, changes)
    assert "resuming" in said[0]
    assert reports(workdir) == reports(two[0])
    jax.tree.map(np.testing.assert_array_equal, weights(workdir, changes), weights(two[0], changes))


def test_who_is_who_must_be_said(tmp_path):
    command = [sys.executable, "launch.py", "--distributed", f"--workdir={tmp_path}"]
    command.append("--config=configs/nw_ucla.py")
    known = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    done = subprocess.run(
        command, cwd=ROOT, env=known | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: --distributed")
    assert "JAX_COORDINATOR_ADDRESS" in done.stderr and done.stderr.count("\n") == 1
