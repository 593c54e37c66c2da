"""`prepare ntu120_mini`: 120 and 60 real clips of 60 classes, from a larger source."""

import numpy as np
from skeleton_files import solo
from test_reader import packed

from configs import ntu120_mini
from hocslm_jax.__main__ import main
from hocslm_jax.data.pipeline import Feed, train_iterator
from hocslm_jax.data.store import open_store


def run(*arguments):
    return main(["prepare", "ntu120_mini", *map(str, arguments)])


def test_other_files_are_left_alone(tmp_path, capsys):
    """Also damaged ones, other takes of the same people, and the first sixty actions."""
    takes = ("S018C001P008R002A061", "S018C001P045R001A120", "S032C003P106R001A061")
    others = ("S018C001P008R001A061", "S018C002P008R002A061", "S018C001P008R002A060")
    files = {f"{name}.skeleton": solo() for name in takes}
    source = packed(tmp_path / "x.zip", files | {f"{name}.skeleton": b"" for name in others})
    assert run("--source", source, "--data-dir", tmp_path, "--workers", 1) == 0
    assert "3 of 180 clips, 60 classes, xsub train 2, test 1" in capsys.readouterr().out
    store = open_store("ntu120_mini", tmp_path)
    assert store.ids == takes and store.labels.tolist() == [0, 59, 0]


def test_the_real_clips(shared, tmp_path, capsys):
    source = shared / "data/ntu_sample/skeletons.tar.xz"
    assert run("--source", source, "--data-dir", tmp_path, "--workers", 1) == 0
    assert "180 clips, 60 classes, xsub train 120, test 60" in capsys.readouterr().out
    store = open_store("ntu120_mini", tmp_path)
    for split, subjects, each in (("train", {8, 45}, 2), ("test", {106}, 1)):
        rows = store.rows("xsub", split)
        assert set(store.columns["subject"][rows]) == subjects
        assert np.bincount(store.labels[rows]).tolist() == [each] * 60
    names = (shared / "data/class_names/ntu120.txt").read_text("utf-8").splitlines()
    assert store.classes == tuple(names[60:])
    feed = Feed.from_config(ntu120_mini.get_config().data)
    batch = next(train_iterator(store, "xsub", feed, batch_size=4, seed=0, threads=0))
    assert batch["x"].shape == (4, 2, 64, 25, 3)
    assert run("--check", "--data-dir", tmp_path) == 0
