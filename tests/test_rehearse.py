"""The full-scale rehearsal: its names are those of NTU60 in number and kind, its files are real."""

import zipfile
from argparse import Namespace
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import rehearse_ntu60
from benchmarks.rehearse_ntu60 import clean, expected_splits, parse, rehearse
from benchmarks.synthetic_ntu60 import FOLDER, MUTUAL, all_names, some_names
from benchmarks.watch import watch
from hocslm_jax.data.prepare.archive import read_members
from hocslm_jax.data.prepare.ntu.missing import missing_ids
from hocslm_jax.data.prepare.ntu.skeleton import parse_name
from hocslm_jax.data.protocols import COMPLETE
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError

SAMPLES = 40


@pytest.fixture(scope="module")
def samples(shared, tmp_path_factory) -> Path:
    """A few real files, of one-person and of two-person actions."""
    folder = tmp_path_factory.mktemp("samples")
    for name, data in read_members(shared / "data/ntu_sample/skeletons.tar.xz", (".skeleton",)):
        (folder / Path(name).name).write_bytes(data)
        if len(list(folder.iterdir())) == SAMPLES:
            return folder
    raise AssertionError("too few samples")


def test_all_names_give_the_published_splits():
    names = all_names()
    assert len(names) == len(set(names)) == 56880
    assert missing_ids(60) <= set(names)
    takes = [parse_name(name) for name in names]
    assert set(Counter(take.action for take in takes).values()) == {948}
    assert {take.performer for take in takes} == set(range(1, 41))
    assert {take.setup for take in takes} == set(range(1, 18))
    clips, published = COMPLETE["ntu60"]
    found = expected_splits(Namespace(files=len(names), seed=0))
    assert found == {
        name: {"train": train, "test": test} for name, (train, test) in published.items()
    }
    assert sum(found["xsub"].values()) == clips


def test_some_names_are_drawn_by_the_seed():
    few = some_names(100, seed=0)
    assert few == some_names(100, seed=0) != some_names(100, seed=1)
    assert len(set(few)) == 100
    assert few == sorted(few)


def test_generates_and_prepares(samples, tmp_path, monkeypatch):
    stages = {name: rehearse_ntu60.STAGES[name] for name in ("generate", "prepare")}
    monkeypatch.setattr(rehearse_ntu60, "STAGES", stages)
    scratch = tmp_path / "scratch"
    words = ["--scratch", scratch, "--samples", samples, "--files", 100, "--workers", 1]
    args = parse(list(map(str, words)))
    result = rehearse(args)
    names = some_names(100, seed=0)
    with zipfile.ZipFile(next(scratch.glob("*.zip"))) as archive:
        assert archive.namelist() == [f"{FOLDER}/{name}.skeleton" for name in names]
        originals = {path.read_bytes() for path in samples.iterdir()}
        assert {archive.read(name) for name in archive.namelist()} <= originals
    store = open_store("ntu60", scratch / "data")
    assert list(store.ids) == [name for name in names if name not in missing_ids(60)]
    persons = [store.joints(row).shape[1] for row in range(len(store))]
    assert all(persons[row] == 2 for row in np.flatnonzero(np.isin(store.labels + 1, MUTUAL)))
    figures = result["prepare"]
    assert figures["splits"] == expected_splits(args)
    assert figures["peak_mib"]["all"] >= figures["peak_mib"]["all_unshared"] > 10
    assert str(tmp_path) not in str(result)
    clean(scratch)
    assert not scratch.exists()


def test_does_again_only_what_changed(tmp_path, monkeypatch):
    done = []

    def stage(name):
        return lambda args: done.append(name) or {"seconds": 0}

    stages = {"first": (stage("first"), ("seed",)), "second": (stage("second"), ("steps",))}
    monkeypatch.setattr(rehearse_ntu60, "STAGES", stages)
    args = parse(["--scratch", str(tmp_path), "--samples", "none"])
    for changes, expected in (
        ({}, ["first", "second"]),
        ({}, []),
        ({"steps": 7}, ["second"]),
        ({"seed": 1}, ["first", "second"]),
    ):
        vars(args).update(changes)
        done.clear()
        rehearse(args)
        assert done == expected


def test_a_watched_command_ends_when_it_is_enough(tmp_path):
    script = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit('told'))\n"
    script += f"print({str(tmp_path)!r}, flush=True); time.sleep(60)"
    log = tmp_path / "stage.log"
    with pytest.raises(UserError, match="told"):  # its status is 1
        watch(tmp_path, "stage", ["-c", script], lambda: log.read_text().endswith("\n"))
    figures = watch(tmp_path, "stage", ["-c", f"print({str(tmp_path)!r})"])
    assert figures["said"] == "SCRATCH"
    assert figures["seconds"] < 30


def test_refuses_a_set_that_does_not_fit_the_disk(samples, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Namespace(free=1000))
    args = parse(["--scratch", str(tmp_path), "--samples", str(samples), "--files", "50"])
    with pytest.raises(UserError, match="1,000 bytes free"):
        rehearse(args)
    assert not list(tmp_path.iterdir())
