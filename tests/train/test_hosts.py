"""Runs on two processes whose folder is slow on the one and lags on the other.

Process 0 waits before every write, and process 1 sees nothing that is younger than a while. So what
one decides from a file of the other goes wrong, wherever it does. All runs are compared to one that
nothing disturbed: of a single process with as many devices.
"""

import json
import re
import signal
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import processes
import pytest
import tiny_run
from processes import ROOT, reports

from hocslm_jax import sharding
from hocslm_jax.evaluate.scores import Scores, load_scores, save_scores
from hocslm_jax.train import identity, strategy
from hocslm_jax.train.strategies import STRATEGIES

# Gloo, which connects the processes, prints from several threads, also into the middle of lines.
ERRORS = re.compile("error: .*")
SLOW = {"slow_s": 0.1, "late_s": 1.0}
CHANGES = {
    **tiny_run.LANGUAGE,
    "lm.pretrain.num_layers": 1,
    "lm.pretrain.steps": 4,
    "lm.max_tokens": 8,
    "lm.describe": 8,
    "train.epochs": 1,
    "train.log_every": 1,
    "finetune.epochs": 1,
}
T3 = {**CHANGES, "strategy": "T3", "stages": STRATEGIES["T3"]}
STREAMS = {
    "data.streams": ("joint", "bone"),
    "model.dropout": 0.0,  # it falls on other clips where a batch is loaded in another order
    "train.epochs": 2,
    "train.log_every": 1,
}


def alone(act, workdir, changes):
    """The same with one process of four devices."""
    make_mesh, devices = sharding.make_mesh, jax.devices()[:4]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            sharding, "make_mesh", lambda *args, **axes: make_mesh(*args, devices=devices, **axes)
        )
        patch.setattr("hocslm_jax.train.setup.open_store", lambda *_: tiny_run.TinyStore())
        assert act(tiny_run.make_config(changes), workdir, tiny_run.build) == 0


def same_lines(workdir, other):
    one, two = reports(workdir), reports(other)
    assert len(one) == len(two) > 4
    for line, wanted in zip(one, two, strict=True):
        assert line == pytest.approx(wanted, rel=1e-3)


def weights(workdir):
    """Those of the last checkpoint, which processes wrote that are not here."""
    state = max((workdir / "checkpoints").iterdir(), key=lambda path: int(path.name)) / "state"
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(state).item_metadata
        kind = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(state, restore_args=kind)["params"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def joint(folder):
    """T3 with the language model that it pretrains: both stages and the descriptions."""
    said = processes.run(folder / "t3", folder / "t3_notes", T3, **SLOW)
    assert "stage 2 of 2" in said[0] and "sentences naming their class" in said[0]
    return folder / "t3"


def test_all_stages_of_a_strategy_run(folder, joint):
    changes = {**T3, "lm.folder": str(joint / "lm")}
    alone(strategy.train, folder / "alone", changes)
    for stage in ("stages/1", "."):
        same_lines(joint / stage, folder / "alone" / stage)
    results = [json.loads((run / "result.json").read_text()) for run in (joint, folder / "alone")]
    assert results[0]["machine"]["hosts"] == 2
    assert results[0]["correct"] == results[1]["correct"]


def test_one_dies_between_two_stages_and_the_same_command_gives_the_same(folder, joint):
    workdir, notes = folder / "killed", folder / "killed_notes"
    changes = {**T3, "lm.folder": str(joint / "lm")}
    pair = processes.start(workdir, notes, changes, **SLOW)
    processes.wait_until((workdir / "stages/1/result.json").exists, pair, "the first stage")
    status, said, _ = processes.kill(0, pair)
    assert status != 0, said[-2000:]
    assert not (workdir / "result.json").exists()
    processes.run(workdir, notes, changes, **SLOW)
    for stage in ("stages/1", "."):
        assert reports(workdir / stage) == reports(joint / stage)
        jax.tree.map(
            np.testing.assert_array_equal, weights(workdir / stage), weights(joint / stage)
        )
    said, wanted = ((run / "descriptions.jsonl").read_text() for run in (workdir, joint))
    assert said == wanted


def test_evaluation_gives_the_scores_of_the_training(folder, joint):
    names = ("scores.npz", "descriptions.jsonl")
    kept = load_scores(joint / names[0]).logits, (joint / names[1]).read_text()
    for name in names:
        (joint / name).unlink()
    said = processes.run(joint, folder / "eval_notes", T3, "--mode=eval", **SLOW)
    assert f"{joint}/scores.npz" in said[0]
    np.testing.assert_allclose(load_scores(joint / names[0]).logits, kept[0], rtol=1e-5)
    assert (joint / names[1]).read_text() == kept[1]


def test_streams_in_one_program_stop_by_a_signal_to_one_and_go_on(folder):
    workdir, notes = folder / "streams", folder / "streams_notes"
    pair = processes.start(workdir, notes, STREAMS, read_s=0.05, **SLOW)
    processes.wait_until(lambda: reports(workdir), pair, "a step")
    pair[1].send_signal(signal.SIGTERM)
    statuses, said = processes.ended(pair)
    assert statuses == [0, 0] and "rerun the same command" in said[0], said
    step = max(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert f"step {step} is saved" in said[0]
    assert not (workdir / "result.json").exists()
    # to the last step before the signal, whatever `train.checkpoint_every` is
    assert step == max(line["step"] for line in reports(workdir))
    said = processes.run(workdir, notes, STREAMS, **SLOW)
    assert f"resuming {workdir} at step {step}" in said[0]
    alone(strategy.train, folder / "streams_alone", STREAMS)
    for part in (".", "joint", "bone"):
        same_lines(workdir / part, folder / "streams_alone" / part)
        found, wanted = (
            json.loads((run / part / "result.json").read_text())
            for run in (workdir, folder / "streams_alone")
        )
        assert found["correct"] == wanted["correct"] and found["best_epoch"] == wanted["best_epoch"]


def test_a_student_of_two_processes_learns_what_one_learns(folder):
    store, train = tiny_run.TinyStore(), slice(tiny_run.TRAIN)
    logits = np.random.default_rng(0).normal(size=(tiny_run.TRAIN, 4)).astype(np.float32)
    (folder / "teacher").mkdir()
    taught = Scores(store.ids[train], store.labels[train], 4 * logits)
    save_scores(folder / "teacher/scores_train.npz", taught)
    changes = {
        "distill.teacher": str(folder / "teacher"),
        "distill.share": 0.7,
        "model.dropout": 0.0,
        "train.epochs": 1,
        "train.log_every": 1,
    }
    processes.run(folder / "student", folder / "student_notes", changes, **SLOW)
    alone(strategy.train, folder / "student_alone", changes)
    same_lines(folder / "student", folder / "student_alone")
    assert any("train/teacher" in line for line in reports(folder / "student"))


def test_hosts_that_were_given_different_settings_end_with_one_line(folder):
    own = ({}, {"optim.lr": 0.25})
    pair = processes.start(folder / "unlike", folder / "unlike_notes", CHANGES, own=own)
    statuses, said = processes.ended(pair)
    assert statuses == [2, 2], said
    for words in said:
        (line,) = ERRORS.findall(words)
        assert line.startswith("error: process 1 (") and len(line) < 300
        assert "Traceback" not in words
        assert "optim.lr (0.25 there, 0.05 on process 0)" in line
    assert not (folder / "unlike").exists()


@pytest.mark.parametrize(
    ("field", "value", "what"),
    [
        ("labels", np.zeros(48, np.int32), {"splits", "joints"}),
        ("classes", ("a", "b", "d", "c"), {"classes"}),
        ("ids", tuple(f"clip{row + 1}" for row in range(48)), {"splits"}),
        ("poisoned", 0, {"joints"}),
    ],
)
def test_the_fingerprint_of_data_tells_every_part_apart(field, value, what):
    store, other = tiny_run.TinyStore(), tiny_run.TinyStore()
    object.__setattr__(other, field, value)
    data = tiny_run.make_config({}).data
    one, two = identity.of_data(store, data), identity.of_data(other, data)
    assert {key.partition(".")[0] for key in one if one[key] != two[key]} == what


def test_a_process_whose_others_never_come_says_so_in_time(tmp_path):
    start = time.monotonic()
    command = [sys.executable, "launch.py", "--distributed", "--join_timeout=2"]
    command += ["--config=configs/nw_ucla.py", f"--workdir={tmp_path / 'run'}"]
    (process,) = processes.spawn([command], cwd=ROOT)
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 2 and time.monotonic() - start < 60
    assert said.startswith("error: --distributed") and said.count("\n") == 1
    assert "--join_timeout" in said


@pytest.fixture(scope="module")
def tried(folder):
    """What each of two processes found in joined_script.py, and how both ended."""
    script, data = ROOT / "tests/train/joined_script.py", folder / "data"
    command = [sys.executable, str(script), str(data)]
    statuses, said = processes.ended(processes.spawn([command, command]))
    found = [json.loads((folder / f"data{number}.json").read_text()) for number in range(2)]
    return statuses, found, [ERRORS.findall(words) for words in said]


def test_what_process_0_finds_is_told_to_all_however_long_it_takes(tried):
    for found in tried[1]:
        assert found["slow"] == [0]  # later than a dead process would have been noticed
        assert found["within"] == [1, True]
        assert found["mistake"] == "process 0 found no such file"
        assert found["any"] == [True, False]


def test_all_stop_at_one_call_when_one_is_interrupted(tried):
    (first, status), (second, own) = (found["stop"] for found in tried[1])
    assert first == second >= 2
    assert (status, own) == (0, 130)


def test_what_differs_is_named_on_all_processes(tried):
    for found in tried[1]:
        assert found["same"] is None
        assert "optim.lr (1 there, 0 on process 0)" in found["other"]
        assert found["weights"][0] is None and "checksum" in found["weights"][1]


def test_a_missing_dataset_is_prepared_by_one_process(tried):
    (first, built), (second, silent) = (found["prepared"] for found in tried[1])
    assert first == second > 0
    assert "quickstart" in built and silent == ""


def test_a_mistake_that_one_process_meets_ends_all_with_its_line(tried):
    statuses, _, ends = tried
    assert statuses == [2, 2]
    assert ends == [["error: record 7 is damaged"]] * 2
