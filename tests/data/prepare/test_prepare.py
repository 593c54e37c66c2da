"""`prepare` may be killed, repeated or given bad files; each error is one line."""

import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from toy_dataset import make_clips, make_recipe

from hocslm_jax.__main__ import main
from hocslm_jax.data.prepare import quickstart
from hocslm_jax.data.prepare.build import prepare
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError


def make_ucla(path, bad=()):
    """A zip of three good NW-UCLA clips and any bad ones, {name: bytes}."""
    with zipfile.ZipFile(path, "w") as archive:
        for view in (1, 2, 3):
            name = f"a01_s01_e00_v0{view}"
            clip = {"file_name": name, "label": 1, "skeletons": np.ones((2, 20, 3)).tolist()}
            archive.writestr(f"all_sqe/{name}.json", json.dumps(clip))
        for name, data in dict(bad).items():
            archive.writestr(f"all_sqe/{name}.json", data)
    return path


def run(*arguments):
    return main(["prepare", *map(str, arguments)])


def test_prepare_then_open(tmp_path, capsys):
    source = make_ucla(tmp_path / "set.zip")
    assert run("nw_ucla", "--source", source, "--data-dir", tmp_path) == 0
    out, err = capsys.readouterr()
    assert "3 of 1,484 clips, 10 classes, xview train 2, test 1" in out and out.count("\n") == 1
    # Neither TFDS nor absl chatter, no progress bar off a terminal.
    assert all(line.startswith("note: ") for line in err.splitlines())
    store = open_store("nw_ucla", tmp_path)
    assert store.ids == tuple(f"a01_s01_e00_v0{view}" for view in (1, 2, 3))
    assert store.rows("xview", "test").tolist() == [2]


@pytest.mark.parametrize("name", ["data[1]", "d*?{a,b}", "a b%20#$HOME", "-d", "数据'\""])
def test_a_dataset_folder_may_have_any_name(tmp_path, capsys, name):
    source, data = make_ucla(tmp_path / "set.zip"), tmp_path / name
    assert run("nw_ucla", "--source", source, "--data-dir", data) == 0
    assert run("nw_ucla", "--check", "--data-dir", data) == 0
    assert open_store("nw_ucla", data).joints(2).shape == (2, 1, 20, 3)


def test_second_prepare_does_nothing_and_force_rebuilds(tmp_path, capsys):
    source = make_ucla(tmp_path / "set.zip")
    arguments = ("nw_ucla", "--source", source, "--data-dir", tmp_path)
    run(*arguments)
    (tmp_path / "nw_ucla/captions.jsonl").write_text("kept")
    first = (tmp_path / "nw_ucla/index.json").stat()
    capsys.readouterr()
    assert run(*arguments) == 0
    assert "already prepared" in capsys.readouterr().out
    assert (tmp_path / "nw_ucla/index.json").stat().st_mtime_ns == first.st_mtime_ns
    assert run(*arguments, "--force") == 0
    assert (tmp_path / "nw_ucla/index.json").stat().st_mtime_ns != first.st_mtime_ns
    assert (tmp_path / "nw_ucla/captions.jsonl").read_text() == "kept"


def test_another_source_needs_force(tmp_path, capsys):
    run("nw_ucla", "--source", make_ucla(tmp_path / "a.zip"), "--data-dir", tmp_path)
    other = make_ucla(tmp_path / "b.zip", {"x": b""})
    assert run("nw_ucla", "--source", other, "--data-dir", tmp_path) == 2
    assert "made from another source; --force replaces it" in capsys.readouterr().err


def test_bad_files_fail_unless_allowed(tmp_path, capsys):
    bad = {"a02_s01_e00_v01": b"{", "readme": b"{}"}
    arguments = (
        "nw_ucla",
        "--source",
        make_ucla(tmp_path / "set.zip", bad),
        "--data-dir",
        tmp_path,
    )
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert "bad file all_sqe/a02_s01_e00_v01.json: damaged JSON" in err
    assert "error: 2 bad files" in err and "--allow-bad" in err
    listed = json.loads((tmp_path / "nw_ucla/bad_files.json").read_text())
    assert [entry["file"] for entry in listed] == [f"all_sqe/{name}.json" for name in bad]
    with pytest.raises(UserError, match="not prepared"):
        open_store("nw_ucla", tmp_path)
    assert run(*arguments, "--allow-bad") == 0
    assert len(open_store("nw_ucla", tmp_path)) == 3


def test_a_failed_rebuild_keeps_what_was_there(tmp_path):
    recipe = make_recipe(make_clips())
    prepare(recipe, tmp_path, [])
    with pytest.raises(UserError, match="no usable clip"):
        prepare(make_recipe([]), tmp_path, [], force=True)
    assert len(open_store("toy", tmp_path)) == 7
    assert not (tmp_path / "toy/.preparing").exists()


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_no_clip_at_all_is_told(tmp_path, shards):
    with pytest.raises(UserError, match="toy: the source holds no usable clip"):
        prepare(make_recipe([], shards=shards), tmp_path, [])


def test_empty_shard_among_others(tmp_path):
    recipe = make_recipe(make_clips(2), shards=4)
    assert "2 clips" in prepare(recipe, tmp_path, [])
    store = open_store("toy", tmp_path)
    np.testing.assert_array_equal(store.joints(1), make_clips(2)[1].joints)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[2])
from toy_dataset import make_clips, make_recipe
from hocslm_jax.data.prepare.build import prepare
import dataclasses
def dies():
    yield make_clips()[0]
    os.kill(os.getpid(), signal.SIGKILL)
recipe = make_recipe(make_clips())
prepare(dataclasses.replace(recipe, shards=[*recipe.shards, dies]), sys.argv[1], [])
"""


def test_a_killed_prepare_is_seen_and_rebuilt(tmp_path):
    here = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), here], check=False)
    assert done.returncode == -9
    with pytest.raises(UserError, match="half-prepared"):
        open_store("toy", tmp_path)
    prepare(make_recipe(make_clips()), tmp_path, [])
    assert len(open_store("toy", tmp_path)) == 7
    assert sorted(os.listdir(tmp_path / "toy")) == ["1.0.0", "index.json"]


def test_two_prepares_at_once(tmp_path):
    def meddler():
        with pytest.raises(UserError, match=r"process \d+ on \S+ prepares"):
            prepare(make_recipe(make_clips()), tmp_path, [])
        return iter(make_clips())

    recipe = make_recipe([], shards=1)
    prepare(type(recipe)(**vars(recipe) | {"shards": [meddler]}), tmp_path, [])
    assert len(open_store("toy", tmp_path)) == 7


def test_prepared_quickstart_equals_generated_clips(tmp_path):
    assert run("quickstart", "--data-dir", tmp_path, "--seed", 3) == 0
    store = open_store("quickstart", tmp_path)
    clip = quickstart.clip(3, 17)
    assert store.ids[17] == clip.id
    np.testing.assert_array_equal(store.joints(17), clip.joints)
    lines = (tmp_path / "quickstart/captions.jsonl").read_text().splitlines()
    captions = [json.loads(line) for line in lines]
    assert [entry["id"] for entry in captions] == list(store.ids)
    assert captions[17]["caption"] == clip.caption
    assert set(captions[0]) == {"id", "caption", "model", "prompt", "time"}
    train, test = (store.columns["subject"][store.rows("xsub", s)] for s in ("train", "test"))
    assert not set(train) & set(test) and len(train) + len(test) == len(store)


def test_mistakes_are_one_line(tmp_path, capsys):
    cases = {
        "no such folder or archive": ("nw_ucla", "--source", tmp_path / "x"),
        "unreadable archive": ("nw_ucla", "--source", __file__),
        "dataset name": ("folder", "--name", "A b", "--source", tmp_path, "--graph", "ntu25"),
    }
    (tmp_path / "clips.csv").write_text("id,file,label,split\nx,x.npy,a,train\n")
    for message, arguments in cases.items():
        assert run(*arguments, "--data-dir", tmp_path / "data") == 2
        err = capsys.readouterr().err
        assert message in err and err.startswith("error: ") and err.count("\n") == 1


def test_unwritable_data_dir(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run("quickstart", "--data-dir", tmp_path / "file") == 2
    assert "cannot create" in capsys.readouterr().err
