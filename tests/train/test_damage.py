"""Damaged checkpoints are detected at every load, and the last intact one is used."""

import json
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.train import checkpoint, integrity, loop
from hocslm_jax.train.integrity import sums
from hocslm_jax.train.state import eval_variables

CHANGES = {"train.epochs": 3, "train.checkpoint_every": 4, "train.keep": 3, "train.eval_every": 0}
STEPS = [12, 8, 4]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with three checkpoints."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert loop.train(tiny_run.make_run(folder, CHANGES)).finished
    return folder


@pytest.fixture(scope="module")
def program():
    return tiny_run.make_run("nowhere", CHANGES)


@pytest.fixture
def workdir(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def restored(workdir, program):
    return checkpoint.restore_variables(workdir, eval_variables(program.abstract_state))


def same(one, other):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def cut(folder):
    for path in (folder / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def of_wrong_type(folder):
    path = folder / "meta/metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"totals": 5}))


def no_longer_a_folder(folder):
    shutil.rmtree(folder)
    folder.write_text("")


DAMAGE = [
    empty,
    cut,
    of_wrong_type,
    no_longer_a_folder,
    lambda folder: shutil.rmtree(folder / "meta"),
    lambda folder: (folder / "meta/metadata").write_text(""),
    lambda folder: (folder / "meta/metadata").write_text("[" * 100_000),
    lambda folder: shutil.rmtree(folder / "state"),
]


@pytest.mark.parametrize("spoil", DAMAGE)
def test_last_intact_checkpoint_is_used_and_reported(workdir, program, capsys, spoil):
    wanted = restored(workdir, program)
    spoil(workdir / "checkpoints/12")
    earlier = restored(workdir, program)
    said = capsys.readouterr().err
    assert "checkpoint 12" in said and "damaged" in said and "taking 8" in said
    assert said.count("\n") == 1 and len(said) < 300 + len(str(workdir))
    assert checkpoint.read_run(workdir)["step"] in (8, 12)
    assert not same(earlier, wanted)


@pytest.mark.parametrize("spoil", DAMAGE[:3])
def test_run_resumes_from_the_last_intact_checkpoint(workdir, program, capsys, spoil):
    wanted = restored(workdir, program)
    (workdir / "result.json").unlink()
    spoil(workdir / "checkpoints/12")
    assert loop.train(tiny_run.make_run(workdir, CHANGES)).finished
    said = capsys.readouterr()
    assert f"resuming {workdir} at step 8" in said.out and "taking 8" in said.err
    assert (workdir / "damaged/12").exists() and (workdir / "result.json").is_file()
    assert same(restored(workdir, program), wanted)


def test_evaluation_says_which_checkpoint_it_scored(workdir, capsys):
    cut(workdir / "checkpoints/12")
    assert loop.evaluate(tiny_run.make_run(workdir, CHANGES)) == 0
    assert capsys.readouterr().out.startswith("step 8: test")


def test_a_stray_folder_is_not_a_checkpoint(workdir, program, capsys):
    wanted = restored(workdir, program)
    (workdir / "checkpoints/99").mkdir()
    assert same(restored(workdir, program), wanted)
    assert loop.train(tiny_run.make_run(workdir, CHANGES)).finished
    assert "is finished" in capsys.readouterr().out
    assert (workdir / "damaged/99").is_dir()


def test_run_without_intact_checkpoints_gives_one_line(workdir):
    for step in STEPS:
        shutil.rmtree(workdir / f"checkpoints/{step}/meta")
    for act in (checkpoint.read_run, lambda w: loop.train(tiny_run.make_run(w, CHANGES))):
        with pytest.raises(UserError, match=r"checkpoint 12 in .* is damaged") as error:
            act(workdir)
        assert "\n" not in str(error.value)
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["12", "4", "8"]


def test_a_flipped_bit_is_never_restored(workdir, program, capsys):
    """For any bit of any file, the arrays are restored exactly, or an older checkpoint is used."""
    wanted, rng = restored(workdir, program), random.Random(0)
    files = sorted(p for p in (workdir / "checkpoints/12").rglob("*") if p.is_file())
    files = [path for path in files if path.stat().st_size]
    caught = 0
    for _ in range(30):
        path = rng.choice(files)
        whole = path.read_bytes()
        broken = bytearray(whole)
        broken[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        found, said = restored(workdir, program), capsys.readouterr().err
        assert ("taking 8" in said) or same(found, wanted), path
        caught += "taking 8" in said
        path.write_bytes(whole)
    assert caught > 5


def test_checksums_depend_on_every_bit_and_not_on_the_mesh(finished, program):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), "x")
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    values = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    whole = sums({"w": jnp.asarray(values), "key": jax.random.key(0)})
    assert sums({"w": jax.device_put(values, split), "key": jax.random.key(0)}) == whole
    for dtype in (np.float32, np.float16, np.int8, bool):
        array = values.astype(dtype)
        good = sums([jnp.asarray(array)])
        raw = array.view(np.uint8)
        raw[3, 1] ^= 1
        assert sums([jnp.asarray(array)]) != good


def test_a_newer_format_asks_for_an_update(workdir):
    for step in STEPS:
        path = workdir / f"checkpoints/{step}/meta/metadata"
        meta = json.loads(path.read_text()) | {"format": integrity.FORMAT + 1}
        path.write_text(json.dumps(meta | {"checksum": integrity.digest(meta)}))
    with pytest.raises(UserError, match="update hocslm_jax"):
        checkpoint.read_run(workdir)


def test_older_checkpoint_is_loaded_with_a_warning(workdir, program, capsys):
    wanted = restored(workdir, program)
    path = workdir / "checkpoints/12/meta/metadata"
    new = ("format", "sums", "checksum", "dataset")
    meta = {k: v for k, v in json.loads(path.read_text()).items() if k not in new}
    path.write_text(json.dumps(meta))
    assert same(restored(workdir, program), wanted)
    assert "without checksums" in capsys.readouterr().err


def test_reader_retries_while_a_run_deletes_checkpoints(workdir, program, monkeypatch, capsys):
    """With keep=1, the run replaces each checkpoint while the reader is opening it."""
    folder, read_meta, read = workdir / "checkpoints", integrity._read_meta, []
    for step in STEPS[1:]:
        shutil.rmtree(folder / str(step))

    def overtaken(path, step):
        meta = read_meta(path, step)
        read.append(step)
        if len(read) < integrity.ATTEMPTS:
            shutil.copytree(folder / str(step), folder / str(step + 1))
            new = folder / str(step + 1) / "meta/metadata"
            changed = json.loads(new.read_text()) | {"step": step + 1}
            new.write_text(json.dumps(changed | {"checksum": integrity.digest(changed)}))
            shutil.rmtree(folder / str(step))
        return meta

    wanted = restored(workdir, program)
    monkeypatch.setattr(integrity, "_read_meta", overtaken)
    assert same(restored(workdir, program), wanted)
    assert read == list(range(12, 12 + integrity.ATTEMPTS)) and capsys.readouterr().err == ""


@pytest.mark.parametrize("keep", [0, -1])
def test_a_run_keeps_at_least_one_checkpoint(tmp_path, keep):
    with pytest.raises(UserError, match=f"train.keep={keep} must be at least 1"):
        tiny_run.make_run(tmp_path, {"train.keep": keep})


@pytest.mark.parametrize("text", ["", "[]", '{"steps": 12', '{"steps": 12}', '{"total": "x"}'])
def test_a_damaged_result_is_rewritten(workdir, capsys, text):
    whole = json.loads((workdir / "result.json").read_text())
    (workdir / "result.json").write_text(text)
    assert loop.train(tiny_run.make_run(workdir, CHANGES)).finished
    assert "is damaged: evaluating again" in capsys.readouterr().out
    found = json.loads((workdir / "result.json").read_text())
    assert (found["correct"], found["total"]) == (whole["correct"], whole["total"])
