"""`prepare ntu60|ntu120`: equal to the reference from file to tensor, and safe to kill."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from skeleton_files import body, sample, solo, write
from test_reader import FILES, NAMES, folder, packed

from configs import ntu60_xsub, ntu120_xset
from hocslm_jax.__main__ import main
from hocslm_jax.data.pipeline import Feed, eval_batches
from hocslm_jax.data.prepare.ntu.bodies import COMPAT
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError

GOLDEN_STREAMS = ("joint", "bone", "joint_motion", "bone_motion")


def run(*arguments):
    return main(["prepare", *map(str, arguments)])


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden/ntu_test_streams.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def real(shared, golden, tmp_path_factory):
    """A data folder with the golden clips, prepared as NTU60 and as NTU120."""
    path = tmp_path_factory.mktemp("real")
    files = {f"{name}.skeleton": sample(shared)[str(name)] for name in golden["ids"]}
    source = packed(path / "part.zip", files)
    for dataset in ("ntu60", "ntu120"):
        assert run(dataset, "--source", source, "--data-dir", path, "--workers", 1) == 0
    return path


def tensors(store, feed):
    """{id: [C, T, V, M]} of all clips in test mode."""
    found = {}
    for protocol in list(store.protocols)[:1]:
        for split in ("train", "test"):
            for batch in eval_batches(store, protocol, split, feed, batch_size=8):
                for row, x in zip(batch["row"], batch["x"], strict=True):
                    if row >= 0:
                        found[store.ids[row]] = x.transpose(3, 1, 2, 0)
    return found


@pytest.mark.parametrize("stream", GOLDEN_STREAMS)
@pytest.mark.parametrize(
    ("dataset", "config", "clips"),
    [("ntu60", ntu60_xsub, 13), ("ntu120", ntu120_xset, 24)],
)
def test_test_mode_is_the_references(real, golden, dataset, config, clips, stream):
    """The golden tensors are the NTU60 scripts'; on NTU120 a single person is there twice."""
    store = open_store(dataset, real)
    config = config.get_config(f"stream={stream}")
    assert config.data.second_person == COMPAT[dataset].second_person
    found = tensors(store, Feed.from_config(config.data))
    assert len(found) == clips
    for clip_id, expected in zip(golden["ids"], golden[stream], strict=True):
        if clip_id in found:
            single = store.joints(store.ids.index(clip_id)).shape[1] == 1
            if single and dataset == "ntu120":
                expected = np.repeat(expected[..., :1], 2, axis=-1)
            np.testing.assert_allclose(found[clip_id], expected, atol=1e-5, err_msg=str(clip_id))


def test_records_are_the_references(real, shared):
    store = open_store("ntu120", real)
    with np.load(shared / "golden/ntu_preprocessed.npz", allow_pickle=False) as expected:
        for row, name in enumerate(store.ids):
            joints = store.joints(row)
            np.testing.assert_array_equal(joints.reshape(len(joints), -1), expected[name])
    assert store.labels.tolist() == [int(name[-3:]) - 1 for name in store.ids]
    assert store.classes[42] == "falling" and len(store.classes) == 120


@pytest.fixture
def source(tmp_path):
    return folder(tmp_path / "files", FILES)


def test_a_subset(source, tmp_path, capsys):
    assert run("ntu60", "--source", source, "--data-dir", tmp_path) == 0
    out = capsys.readouterr().out
    assert "8 of 56,578 clips, 60 classes, xsub train 8, test 0; xview train 0, test 8" in out
    assert open_store("ntu60", tmp_path).ids == tuple(sorted(NAMES))


def test_bad_files(source, tmp_path, capsys):
    lines = solo().split(b"\n")
    (source / "S001C001P001R001A007.skeleton").write_bytes(b"\n".join(lines[:40]))
    lines[9] += b" 7"
    (source / "S001C001P001R001A008.skeleton").write_bytes(b"\n".join(lines))
    arguments = ("ntu60", "--source", source, "--data-dir", tmp_path, "--workers", 1)
    assert run(*arguments) == 2
    assert "bad file S001C001P001R001A008.skeleton, line 10: 13 tok" in capsys.readouterr().err
    assert json.loads((tmp_path / "ntu60/bad_files.json").read_text()) == [
        {
            "file": "S001C001P001R001A007.skeleton",
            "line": 40,
            "reason": "the file ends where a joint should follow",
        },
        {
            "file": "S001C001P001R001A008.skeleton",
            "line": 10,
            "reason": "13 tokens, a joint has 12",
        },
    ]
    assert run(*arguments, "--allow-bad") == 0
    assert len(open_store("ntu60", tmp_path)) == len(FILES)


def test_compat(source, tmp_path, capsys):
    arguments = ("ntu60", "--source", source, "--data-dir", tmp_path, "--workers", 1)
    assert run(*arguments, "--compat", "close_gaps=off", "--compat", "min_frames=5") == 0
    index = json.loads((tmp_path / "ntu60/index.json").read_text())
    assert index["source"]["compat"]["close_gaps"] is False
    assert index["source"]["compat"]["min_frames"] == 5
    assert run(*arguments) == 2
    assert "made from another source" in capsys.readouterr().err
    for wrong in ("gaps=off", "close_gaps=7", "max_noise=x", "second_person=copy"):
        assert run(*arguments, "--compat", wrong) == 2
        assert f"--compat {wrong}: " in capsys.readouterr().err


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
if __name__ == "__main__":
    from hocslm_jax.data.prepare import build
    from hocslm_jax.data.prepare.writer import bad_file
    from hocslm_jax.data.prepare.ntu import reader
    reader.SHARD_CLIPS, reader.BATCH, number = 2, 1, 0
    def dying(name, joints, shards, *rest):
        def clips():
            yield next(iter(shards[2]()))
            print(*children(), file=sys.__stdout__, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(name, joints, [*shards[:2], clips, *shards[3:]], *rest)
    def children():
        from multiprocessing import active_children
        return [child.pid for child in active_children()]
    write, build.write_records = build.write_records, dying
    bad = []
    note = lambda *what: bad.append(bad_file(*what))
    recipe = reader.recipe("ntu60", [sys.argv[1] + "/files"], note, workers=2)
    build.prepare(recipe, sys.argv[1] + "/data", bad, allow_bad=True)
"""


def test_killed_and_restarted(source, tmp_path, monkeypatch, capsys):
    """Finished shards and their bad files are kept, and the bytes are those of one go."""
    (source / "S001C001P001R001A004.skeleton").write_bytes(b"3\n")  # in the first shard
    root = os.path.dirname(os.path.dirname(ntu60_xsub.__file__))
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    done = subprocess.run(
        [sys.executable, script, tmp_path, root], check=False, capture_output=True, text=True
    )
    assert done.returncode == -9, done.stderr
    workers = list(map(int, done.stdout.split()))
    assert len(workers) == 2
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))  # they end with their parent
    with pytest.raises(UserError, match="half-prepared"):
        open_store("ntu60", tmp_path / "data")

    monkeypatch.setattr("hocslm_jax.data.prepare.ntu.reader.SHARD_CLIPS", 2)
    arguments = ("ntu60", "--source", source, "--allow-bad", "--workers", 1, "--data-dir")
    kept = sorted((tmp_path / "data/ntu60/.preparing/shards").iterdir())
    assert [path.name for path in kept[:4]] == [
        "00000.array_record", "00000.json", "00001.array_record", "00001.json",
    ]  # fmt: skip
    finished = kept[0].stat().st_ino
    assert run(*arguments, tmp_path / "data") == 0
    assert run(*arguments, tmp_path / "again") == 0
    first, again = (contents(tmp_path / name / "ntu60") for name in ("data", "again"))
    assert first == again and sum(name.name.startswith("ntu60-clips") for name in first) == 5
    done = tmp_path / "data/ntu60/1.0.0/ntu60-clips.array_record-00000-of-00005"
    assert done.stat().st_ino == finished  # not written again
    bad = json.loads((tmp_path / "data/ntu60/bad_files.json").read_text())
    assert [entry["file"] for entry in bad] == ["S001C001P001R001A004.skeleton"]


def contents(folder):
    """{relative path: bytes}"""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def alive(process):
    """Running, not merely unburied."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_two_actors_are_two_persons(tmp_path):
    a, b = (np.float32(body(seed, 20)) for seed in (1, 2))
    files = {f"{NAMES[0]}.skeleton": write([{1: a[t], 2: b[t]} for t in range(20)])}
    source = packed(tmp_path / "x.zip", files | {f"{NAMES[1]}.skeleton": solo()})
    run("ntu120", "--source", source, "--data-dir", tmp_path, "--workers", 1)
    store = open_store("ntu120", tmp_path)
    assert store.num_persons == 2
    assert [store.joints(row).shape[1] for row in (0, 1)] == [2, 1]
    assert store.feeder == "ntu" and store.measured["persons"] == [2, 1]
    assert store.about["compat"]["second_person"] == "copy" and store.about["size"] > 0


def test_what_others_have_made(tmp_path, capsys):
    rng, path = np.random.default_rng(0), tmp_path / "NTU60_CS.npz"
    x = np.zeros((3, 300, 150), np.float32)
    x[:, :20, :75] = rng.normal(size=(3, 20, 75))
    labels = np.eye(60)[[4, 5, 6]]
    np.savez(path, x_train=x[:2], y_train=labels[:2], x_test=x[2:], y_test=labels[2:])
    arguments = ("ntu60", "--data-dir", tmp_path)
    assert run(*arguments, "--from", "ctrgcn-npz", path) == 0
    assert "3 clips, 60 classes, xsub train 2, test 1" in capsys.readouterr().out
    store = open_store("ntu60", tmp_path)
    np.testing.assert_array_equal(store.joints(2)[:, 0].reshape(20, 75), x[2, :20, :75])
    assert run(*arguments, "--check") == 0
    for wrong, message in (
        (("--from", "pickle", path), "--from pickle: expected one of ctrgcn-npz, pyskl"),
        (
            ("--from", "pyskl", path, "--source", path),
            "--source is for raw files; leave it out with --from",
        ),
        (("--from", "pyskl", path, "--protocol", "xsub"), "--protocol is for ctrgcn-npz"),
        ((), "--source is missing"),
    ):
        assert run(*arguments, *wrong) == 2
        assert message in capsys.readouterr().err
