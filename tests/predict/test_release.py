"""Releases: weights, count and predictions equal those of the run, without its files."""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import tiny_run

import hocslm_jax
from hocslm_jax import __main__, models, options
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import load_scores
from hocslm_jax.files.checksums import seal
from hocslm_jax.predict import accuracy, predictor, release
from hocslm_jax.predict.load_model import find_models, load_run
from hocslm_jax.train import loop, release_files

ROOT = Path(__file__).resolve().parents[2]
SMALL = tiny_run.HGLNET | {"model.encoder": "ctrgcn", "model.stages": (1,), "train.epochs": 2}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished run of a small CTR-GCN, as `launch.py` would leave it."""
    folder = tmp_path_factory.mktemp("runs") / "joint_seed0"
    assert loop.train(tiny_run.make_run(folder, SMALL)).finished
    return folder


@pytest.fixture
def dataset(monkeypatch, tmp_path):
    """Where the run's dataset seems to be prepared."""
    monkeypatch.setattr(accuracy, "open_store", lambda *_: tiny_run.TinyStore())
    (tmp_path / "data/nw_ucla").mkdir(parents=True)
    return tmp_path / "data"


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


def test_float32_gives_the_run_back_exactly(workdir, dataset, tmp_path):
    size, said = release.release(workdir, tmp_path / "out", "float32", dataset)
    loaded = hocslm_jax.load_pretrained(tmp_path / "out")
    original = load_run(workdir)
    same = jax.tree.map(np.array_equal, loaded.variables, original.variables)
    assert all(jax.tree.leaves(same))
    found = result(workdir)
    scores = accuracy.evaluate(loaded, dataset)
    assert (scores.correct, scores.total) == (found["correct"], found["total"])
    assert loaded.metadata["released"] == {"correct": found["correct"], "total": found["total"]}
    assert said.startswith(f"{found['correct']}/{found['total']}") and size > 1000
    clip = tiny_run.TinyStore().joints(40)
    assert loaded.predict([clip]) == original.predict([clip])
    joints = tiny_run.GRAPH.num_joints
    logits = loaded.model.apply(loaded.variables, np.zeros((2, 1, 4, joints, 3)), train=False)
    assert logits.shape == (2, 4)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close_and_half_as_large(workdir, tmp_path, dtype):
    release.release(workdir, tmp_path / "f32", "float32", tmp_path)
    release.release(workdir, tmp_path / "out", dtype, tmp_path)
    loaded, original = hocslm_jax.load_pretrained(tmp_path / "out"), load_run(workdir)
    clips = [tiny_run.TinyStore().joints(row) for row in range(32, 48)]
    for one, other in zip(loaded.predict(clips), original.predict(clips), strict=True):
        pairs = [(one.probabilities[c], other.probabilities[c]) for c in "abcd"]
        np.testing.assert_allclose(*zip(*pairs, strict=True), atol=0.02)
    same = jax.tree.map(np.array_equal, *(r.variables["batch_stats"] for r in (loaded, original)))
    assert all(jax.tree.leaves(same))  # statistics keep their precision
    sizes = [(tmp_path / d / "model.safetensors").stat().st_size for d in ("out", "f32")]
    assert sizes[0] < 0.85 * sizes[1]
    assert loaded.metadata["dtype"] == dtype and "released" not in loaded.metadata


def test_the_card_says_what_it_is(workdir, dataset, tmp_path, capsys):
    config = workdir / "model.json"
    args = argparse.ArgumentParser()
    __main__.declare_options("release", args)
    options = ["--out", str(tmp_path / "out"), "--data-dir", str(dataset)]
    release.run(args.parse_args([str(workdir), *options]))
    found, text = result(workdir), (tmp_path / "out/README.md").read_text()
    share = f"{found['correct']}/{found['total']}"
    assert share in text and share in capsys.readouterr().out
    assert found["command"] in text and "a, b, c, d" in text
    about = json.loads((tmp_path / "out/config.json").read_text())
    assert about["metrics"] == found and about["model"] == json.loads(config.read_text())
    assert about["config"]["data"]["data_dir"] == "data" and str(tmp_path) not in json.dumps(about)


def test_options_match_the_modules_that_they_do_not_import():
    assert options.WEIGHT_TYPES == release_files.DTYPES
    assert options.BATCH_SIZE == predictor.BATCH_SIZE


def test_a_run_of_several_streams_is_released_stream_by_stream(workdir, tmp_path):
    for stream in ("joint", "bone"):
        shutil.copytree(workdir, tmp_path / "six" / stream)
    args = argparse.ArgumentParser()
    __main__.declare_options("release", args)
    options = ["--out", str(tmp_path / "out"), "--data-dir", str(tmp_path)]
    release.run(args.parse_args([str(tmp_path / "six"), *options]))
    assert hocslm_jax.load_pretrained(tmp_path / "out" / "bone").classes == tuple("abcd")
    with pytest.raises(UserError, match="two runs are called joint"):
        release.run(args.parse_args([str(tmp_path / "six"), str(tmp_path / "six/joint"), *options]))


def test_a_release_and_several_as_an_ensemble(workdir, dataset, tmp_path, capsys):
    store = tiny_run.TinyStore()
    release.release(workdir, tmp_path / "many/joint", "float16", tmp_path)
    release.release(workdir, tmp_path / "many/bone", "float32", tmp_path)
    np.save(tmp_path / "clip.npy", store.joints(40))
    single = hocslm_jax.load_pretrained(tmp_path / "many/joint").predict(store.joints(40))
    for names in (["many/joint"], ["many"], ["many/joint", "many/bone"]):
        options = [f"--checkpoint={tmp_path / name}" for name in names]
        assert __main__.main(["predict", *options, str(tmp_path / "clip.npy")]) == 0
        output, errors = capsys.readouterr()
        assert single.name in output
        assert ("ensemble of 2: joint, bone" in errors) == (names != ["many/joint"])
    together = hocslm_jax.load_pretrained([tmp_path / "many/joint", tmp_path / "many/bone"])
    assert len({member.forward for member in together.members}) == 1  # one network, one program
    shares = together.predict(store.joints(40)).probabilities
    power = {name: share**2 for name, share in single.probabilities.items()}
    for name in shares:  # two equal members square the probabilities
        assert shares[name] == pytest.approx(power[name] / sum(power.values()), abs=2e-3)


def test_verb_evaluate(workdir, dataset, tmp_path, capsys, monkeypatch):
    release.release(workdir, tmp_path / "weights", "float32", tmp_path)
    found, out = result(workdir), tmp_path / "new" / "scores.npz"
    names = [str(workdir), str(tmp_path / "weights")]
    options = ["--data-dir", str(dataset), "--out", str(out)]
    assert __main__.main(["evaluate", *names, *options]) == 0
    count = f"{found['correct']}/{found['total']}"
    assert capsys.readouterr().out.count(f": {count} ") == 3  # both, and what they say together
    fused, own = load_scores(out), load_scores(workdir / "scores.npz")
    assert fused.ids == own.ids and fused.classes == tuple("abcd")
    np.testing.assert_allclose(fused.logits, 2 * own.logits, rtol=1e-4, atol=1e-5)

    class Others(tiny_run.TinyStore):
        labels = (tiny_run.TinyStore.labels + 1) % 4

    monkeypatch.setattr(accuracy, "open_store", lambda *_: Others())
    assert __main__.main(["evaluate", names[0], "--data-dir", str(dataset)]) == 2
    Others.classes = tuple("abce")
    assert __main__.main(["evaluate", names[1], "--data-dir", str(dataset)]) == 2
    errors = capsys.readouterr().err
    assert "other labels" in errors and "other classes" in errors


def test_models_in_a_folder(tmp_path):
    for name in ("six/bone", "six/joint", "six/k2_seed0", "run", "run/lm"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    (tmp_path / "six/checkpoints").mkdir()
    (tmp_path / "run/lm/checkpoints").rmdir()
    for name in ("run/lm/model.safetensors", "run/lm/tokenizer.json"):
        (tmp_path / name).touch()
    found = [path.name for path in find_models(tmp_path / "six")]
    assert found == ["joint", "bone", "k2_seed0"]
    for name in ("run", "six/bone", "run/lm"):
        assert find_models(tmp_path / name) == [tmp_path / name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("weigths/joint", "asked the hub"),  # nothing tells it from an id
        ("weights/jiont", "there is no folder .*did you mean weights/joint"),
        ("./none/x", "there is no folder"),
        ("/none/x", "there is no folder"),
        ("~/none/x", "there is no folder"),
        ("a/b/c/d", "there is no folder"),
        ("nowhere", "there is no folder"),
        ("", "holds no complete checkpoint"),
        ("weights/joint/model.safetensors", "is a file: give its folder, weights/joint"),
        ("owner/name", "asked the hub"),
        ("owner/name/joint", "asked the hub"),
    ],
)
def test_a_mistyped_path_is_no_hub_id(tmp_path, monkeypatch, name, expected):
    def resolve(name):
        raise UserError("asked the hub")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(models.lm, "resolve", resolve)
    (tmp_path / "weights/joint").mkdir(parents=True)
    (tmp_path / "weights/joint/model.safetensors").touch()
    with pytest.raises(UserError, match=expected):
        hocslm_jax.load_pretrained(name)


def test_a_hub_id_may_name_one_model_of_several(workdir, tmp_path, monkeypatch):
    release.release(workdir, tmp_path / "hub" / "joint", "float16", tmp_path)
    asked = []
    monkeypatch.setattr(models.lm, "resolve", lambda n: asked.append(n) or tmp_path / "hub")
    assert hocslm_jax.load_pretrained("owner/six/joint").classes == tuple("abcd")
    assert asked == ["owner/six"]
    with pytest.raises(UserError, match="has no model 'bone'"):
        hocslm_jax.load_pretrained("owner/six/bone")


def test_what_cannot_be_released_or_loaded(workdir, tmp_path):
    variables = {"params": {"w": np.full((2, 2), 1e6, np.float32)}}
    with pytest.raises(UserError, match="params/w does not fit into float16"):
        release_files.save(tmp_path / "x", variables, {}, "float16")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(workdir, unfinished, ignore=shutil.ignore_patterns("result.json"))
    with pytest.raises(UserError, match="is not finished"):
        release.release(unfinished, tmp_path / "y", "float16", tmp_path)
    release.release(workdir, tmp_path / "out", "float16", tmp_path)
    whole = (tmp_path / "out/model.safetensors").read_bytes()
    (tmp_path / "out/model.safetensors").write_bytes(whole[:-9])
    with pytest.raises(UserError, match="is damaged"):
        hocslm_jax.load_pretrained(tmp_path / "out")
    about = json.loads((tmp_path / "out/config.json").read_text())
    about["config"]["model"]["stages"] = [2]
    (tmp_path / "out/model.safetensors").write_bytes(whole)
    (tmp_path / "out/config.json").write_text(json.dumps(about))
    seal(tmp_path / "out", (release_files.WEIGHTS, release_files.CARD))
    with pytest.raises(UserError, match="does not fit the model"):
        hocslm_jax.load_pretrained(tmp_path / "out")
    (tmp_path / "out/config.json").write_text("{}")
    seal(tmp_path / "out", (release_files.WEIGHTS, release_files.CARD))
    with pytest.raises(UserError, match="fetch the release again"):
        hocslm_jax.load_pretrained(tmp_path / "out")


def test_committed_releases_reproduce_their_counts(shared, tmp_path, capsys):
    """On the real test view, the counts that the model cards state, to the clip."""
    archive = shared / "data/nw_ucla/all_sqe.tar.xz"
    weights = ROOT / "results/nw_ucla/weights/hglnet"
    prepare = ["prepare", "nw_ucla", "--source", str(archive), "--data-dir", str(tmp_path)]
    assert __main__.main(prepare) == 0
    names = [str(weights / name) for name in ("joint_30_seed0", "bone_seed0")]
    capsys.readouterr()
    assert __main__.main(["evaluate", *names, "--data-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, line in zip(names, lines, strict=False):
        released = json.loads((Path(name) / "config.json").read_text())["released"]
        assert f": {released['correct']}/{released['total']} " in line
    assert lines[2].startswith("ensemble of 2: ")


CHANGES = {
    "frames": {"config": {"data": {"frames": 10**7}}},
    "a clip": {"config": {"data": {"frames": 20_000, "num_persons": 100}}},
    "stages": {"config": {"model": {"stages": [100_000]}}},
    "many stages": {"config": {"model": {"stages": [1] * 50}}},
    "no stages": {"config": {"model": {"stages": 3}}},
    "width": {"config": {"model": {"width": 2**40}}},
    "no width": {"config": {"model": {"width": None}}},
    "encoder": {"config": {"model": {"encoder": ["ctrgcn"]}}},
    "unknown": {"config": {"model": {"steps": 3}}},
    "feeder": {"config": {"data": {"feeder": 7}}},
    "stream": {"config": {"data": {"stream": {"a": 1}}}},
    "mesh": {"config": {"mesh": {"model": "two"}}},
    "sections": {"config": {"data": 5, "model": [], "mesh": None}},
    "chain": {
        "model": {
            "graph": {
                "name": "chain",
                "joints": [str(v) for v in range(30_000)],
                "edges": [[v, v - 1] for v in range(1, 30_000)],
                "root": 0,
            }
        }
    },
    "graph": {"model": {"graph": 5}},
    "classes": {"model": {"classes": 5}},
    "names": {"model": {"classes": [1, {}]}},
    "shapes": {"model": {"shapes": [1, 2]}},
}


def changed(card, change):
    """`card` with the leaves of `change` put in."""
    nested = isinstance(card, dict) and isinstance(change, dict)
    return card | {k: changed(card.get(k), v) for k, v in change.items()} if nested else change


def test_impossible_release_configs_give_one_line(workdir, tmp_path):
    release.release(workdir, tmp_path / "good", "float32", tmp_path / "none")
    card = json.loads((tmp_path / "good/config.json").read_text())
    out = tmp_path / "out"
    for kind, change in CHANGES.items():
        shutil.copytree(tmp_path / "good", out, dirs_exist_ok=True)
        (out / "SHA256SUMS").unlink(missing_ok=True)
        (out / "config.json").write_text(json.dumps(changed(card, change)))
        started = time.monotonic()
        with pytest.raises(UserError) as told:
            load_run(out)
        assert "\n" not in str(told.value) and time.monotonic() - started < 5, kind
