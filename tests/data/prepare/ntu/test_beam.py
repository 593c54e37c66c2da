"""`prepare ntu60 --beam`: the local runner writes the same bytes as the process pool."""

import builtins
import json

import pytest
from skeleton_files import sample, solo
from test_prepare_ntu import contents, run
from test_reader import FILES, folder, packed, tar

from hocslm_jax.data.prepare import beam
from hocslm_jax.data.prepare.ntu import reader

LOCAL = "--runner=DirectRunner --direct_num_workers=2 --direct_running_mode=multi_threading"
BAD = {"part/S003C001P001R001A001.skeleton": b"3\n"}


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A tar and a zip with a bad file, in twelve shards: one digit is not enough to count them."""
    monkeypatch.setattr(reader, "SHARD_CLIPS", 1)
    more = {f"S003C001P00{p}R001A00{a}.skeleton": solo(p, 15) for p in (4, 5) for a in (1, 2)}
    paths = packed(tmp_path / "x.zip", FILES | BAD), tar(tmp_path / "x.tar", more)
    return [argument for path in paths for argument in ("--source", path)]


def test_the_same_bytes(sources, tmp_path, capsys):
    pytest.importorskip("apache_beam")
    arguments = ("ntu60", *sources, "--allow-bad", "--data-dir")
    assert run(*arguments, tmp_path / "pool", "--workers", 1) == 0
    assert run(*arguments, tmp_path / "beam", f"--beam={LOCAL}") == 0
    pool, other = (contents(tmp_path / name / "ntu60") for name in ("pool", "beam"))
    assert pool == other and len(pool) >= 12 + 2
    bad = json.loads((tmp_path / "beam/ntu60/bad_files.json").read_text())
    assert [(entry["file"], entry["line"]) for entry in bad] == [(*BAD, 1)]
    assert run("ntu60", "--check", "--data-dir", tmp_path / "beam") == 0


def test_real_clips(shared, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam")
    monkeypatch.setattr(reader, "SHARD_CLIPS", 16)
    files = {f"{name}.skeleton": data for name, data in list(sample(shared).items())[::8]}
    arguments = ("ntu120", "--source", packed(tmp_path / "x.zip", files), "--allow-bad")
    assert run(*arguments, "--data-dir", tmp_path / "pool", "--workers", 1) == 0
    assert run(*arguments, "--data-dir", tmp_path / "beam", f"--beam={LOCAL}") == 0
    assert contents(tmp_path / "pool/ntu120") == contents(tmp_path / "beam/ntu120")


def test_a_worker_writes_what_is_not_there(sources, tmp_path):
    """Without Beam: one shard by another process's rules, then the rest by prepare itself."""
    recipe = reader.recipe("ntu60", sources[1::2], print)
    kept = tmp_path / "kept"
    beam.write_tasks(recipe, kept)
    assert json.loads((kept / "00003.task").read_text())["compat"]["min_frames"]  # no pickle
    beam.write_task(kept, (25, 3), 3)
    first = (kept / "00003.array_record").stat()
    beam.write_task(kept, (25, 3), 3)
    assert (kept / "00003.array_record").stat().st_mtime_ns == first.st_mtime_ns
    beam.write_task(kept, (25, 3), 8)
    note = json.loads((kept / "00008.json").read_text())
    assert note["clips"] == 0 and note["bad"][0]["file"] == next(iter(BAD))
    assert len(recipe.portable) == len(recipe.shards) == 13


def test_what_cannot_be(sources, tmp_path, monkeypatch, capsys):
    def without_beam(name, *rest):
        if name.startswith("apache_beam"):
            raise ImportError(name)
        return load(name, *rest)

    load = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", without_beam)
    assert run("ntu60", *sources, "--data-dir", tmp_path, "--beam=") == 2
    assert "pip install apache-beam" in capsys.readouterr().err
    arguments = ("--data-dir", tmp_path, "--from", "pyskl", folder(tmp_path / "f", {}), "--beam=")
    assert run("ntu60", *arguments) == 2
    assert "--beam is for raw files" in capsys.readouterr().err
