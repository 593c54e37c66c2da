"""Scores: every clip once, correct counts, verified files."""

import json
import os
import pickle
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.score_files import read_clip_list, read_members
from hocslm_jax.evaluate.scores import (
    Scores,
    collect_scores,
    load_scores,
    save_scores,
    write_report,
)

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ("throw", "carry", "sit down")


def make_store(count=7):
    ids = tuple(f"clip{row}" for row in range(count))
    return SimpleNamespace(name="toy", ids=ids, labels=np.arange(count, dtype=np.int32) % 3)


def make_batches(rows, size=3):
    """Padded batches whose x holds its own row number."""
    rows = np.asarray(rows, np.int32)
    padded = np.concatenate([rows, np.full(-len(rows) % size, -1, np.int32)]).reshape(-1, size)
    for row in padded:
        x = np.broadcast_to(row[:, None, None, None, None], (size, 1, 2, 2, 3))
        mask = (row >= 0).astype(np.float32)
        yield {"x": x.astype(np.float32), "row": row, "mask": mask, "label": np.zeros(size)}


def predict_row(x):
    """Logits that name the clip they are of: its row in the first class."""
    row = x[:, 0, 0, 0, 0]
    return np.stack([row, np.zeros_like(row), -row], axis=1)


def toy(logits=((3, 1, 2), (0, 5, 1), (9, 1, 0), (0, 1, 2)), labels=(0, 1, 2, 2)):
    ids = tuple(f"clip{row}" for row in range(len(labels)))
    return Scores(ids, np.array(labels, np.int32), np.array(logits, np.float32))


def test_every_clip_once_in_the_order_of_the_store():
    rows = [5, 0, 6, 2]
    scores = collect_scores(predict_row, make_batches(rows), make_store(), np.array(rows))
    assert scores.ids == ("clip0", "clip2", "clip5", "clip6")
    np.testing.assert_array_equal(scores.labels, [0, 2, 2, 0])
    np.testing.assert_array_equal(scores.logits[:, 0], [0, 2, 5, 6])
    assert scores.logits.dtype == np.float32 and scores.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("rows", "expected", "message"),
    [
        ([0, 1, 2, 1], [0, 1, 2], "more than once .* the first clip1"),
        ([0, 1], [0, 1, 4], "1 clips were not scored, the first clip4"),
        ([0, 1, 3], [0, 1], "1 clips are of another split, the first clip3"),
        ([], [0, 1], "nothing to score"),
    ],
)
def test_wrong_clips_are_named(rows, expected, message):
    with pytest.raises(UserError, match=message):
        collect_scores(predict_row, make_batches(rows), make_store(), np.array(expected))


def test_non_finite_logits_are_refused():
    def diverged(x):
        logits = predict_row(x)
        logits[x[:, 0, 0, 0, 0] == 4] = np.nan
        return logits

    with pytest.raises(UserError, match=r"1 clips are not finite, the first clip4"):
        collect_scores(diverged, make_batches([3, 4]), make_store())


SIGNALLING = np.array([0x7FF0000000000001], np.uint64).view(np.float64)[0]


@pytest.mark.parametrize("value", [np.nan, SIGNALLING, 1e300, -np.inf])
def test_files_with_logits_that_are_not_finite_are_refused_without_a_warning(value, tmp_path):
    logits = np.ones((2, 3))
    logits[0, 1] = value
    path = tmp_path / "scores.npz"
    np.savez(path, ids=np.array(["a", "b"]), labels=np.arange(2), logits=logits)
    pickled, clips = tmp_path / "score.pkl", tmp_path / "clips.txt"
    pickled.write_bytes(pickle.dumps({"a": logits[0], "b": logits[1]}))
    clips.write_text("a 0\nb 1\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="not finite"):
            load_scores(path)
        with pytest.raises(UserError, match="not finite"):
            read_members([str(pickled)], clips=read_clip_list(clips))


def test_counts():
    scores = toy()
    assert (scores.correct, scores.total, scores.top1) == (3, 4, 0.75)
    assert scores.top5_correct == 4
    six = toy(logits=[[6, 5, 4, 3, 2, 1]] * 2, labels=(4, 5))
    assert (six.correct, six.top5_correct) == (0, 1)


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=6))
def test_equal_logits_count_as_argmax_does(logits):
    scores = toy(logits, labels=[row % 4 for row in range(len(logits))])
    assert scores.correct == int((scores.predictions == scores.labels).sum())


def test_saved_scores_come_back_unchanged(tmp_path):
    store = make_store()
    store.classes = CLASSES
    scores = collect_scores(predict_row, make_batches([0, 1]), store)
    save_scores(tmp_path / "scores.npz", scores)
    back = load_scores(tmp_path / "scores.npz")
    assert (back.ids, back.classes) == (scores.ids, CLASSES)
    np.testing.assert_array_equal(back.labels, scores.labels)
    np.testing.assert_array_equal(back.logits, scores.logits)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def truncated(path):
    save_scores(path, toy())
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path):
    save_scores(path, toy())
    data = bytearray(path.read_bytes())
    data[data.index(b"labels.npy") - 60] ^= 0xFF  # in the compressed classes, before its header
    path.write_bytes(data)


def pickled(path):
    np.savez(path, ids=np.array(["a", None], object), labels=[0, 1], logits=[[1.0], [2.0]])


def bare_array(path):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


FOREIGN = {
    "absent": lambda path: None,
    "text": lambda path: path.write_text("not scores"),
    "truncated": truncated,
    "flipped": flipped,
    "pickled": pickled,
    "bare array": bare_array,
    "other keys": lambda path: np.savez(path, x=np.zeros(3)),
    "other shapes": lambda path: np.savez(path, ids=["a"], labels=[0, 1], logits=np.zeros((2, 3))),
    "other types": lambda path: np.savez(path, ids=[1], labels=[0], logits=np.zeros((1, 3))),
    "no clip": lambda path: np.savez(
        path, ids=np.array([], np.str_), labels=np.array([], int), logits=np.zeros((0, 3))
    ),
    "label out of range": lambda path: np.savez(
        path, ids=["a"], labels=[3], logits=np.zeros((1, 3))
    ),
    "clip twice": lambda path: np.savez(
        path, ids=["a", "a"], labels=[0, 1], logits=np.zeros((2, 3))
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_damaged_and_foreign_files_are_refused_by_name(tmp_path, kind):
    path = tmp_path / "scores.npz"
    FOREIGN[kind](path)
    with pytest.raises(UserError, match=r"scores\.npz"):
        load_scores(path)


def test_report_files_agree(tmp_path):
    run = tmp_path / "run"
    write_report(run, toy(), CLASSES)
    table = json.loads((run / "per_class.json").read_text())
    confusion = json.loads((run / "confusion.json").read_text())
    assert confusion["counts"] == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]
    assert table[2] == {"class": "sit down", "correct": 1, "total": 2, "accuracy": 0.5}
    assert confusion["classes"] == list(CLASSES) and load_scores(run / "scores.npz").correct == 3
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")
    write_report(run, toy(labels=(0, 0, 0, 2)), CLASSES)
    assert json.loads((run / "per_class.json").read_text())[1]["accuracy"] is None  # no clip
    with pytest.raises(UserError, match="2 class names"):
        write_report(run, toy(), CLASSES[:2])


HOST = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from hocslm_jax.evaluate.scores import collect_scores
from test_scores import make_batches, make_store

def check(mesh, rows, everything, size):
    sharding = NamedSharding(mesh, P("data"))
    first = jax.jit(lambda x: x[:, 0, 0, 0, :3] + 1, out_shardings=sharding)
    def predict(x):
        shape = (size, *x.shape[1:])
        return first(jax.make_array_from_process_local_data(sharding, x, shape))
    scores = collect_scores(predict, make_batches(rows, 4), make_store(11), np.array(everything))
    assert scores.ids == tuple(f"clip{row}" for row in everything), scores.ids
    assert (scores.logits[:, 0] == np.array(everything) + 1).all(), scores.logits

host, all_rows = jax.process_index(), list(range(11))
check(jax.make_mesh((4, 1), ("data", "model")), all_rows[host::2], all_rows, 8)
check(jax.make_mesh((1, 4), ("data", "model")), all_rows, all_rows, 4)
print("agreed")
"""


def test_two_hosts_score_every_clip_once(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        address = f"localhost:{probe.getsockname()[1]}"
    paths = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths}
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, address, str(host)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for host in range(2)
    ]
    try:
        for host in hosts:
            output, errors = host.communicate(timeout=120)
            assert output.strip().endswith("agreed"), errors[-2000:]
    finally:
        for host in hosts:
            host.kill()
