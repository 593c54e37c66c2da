"""Releases: the weights, count and predictions of the run come back, and nothing else is needed."""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import tiny_run

import hocslm_jax
from hocslm_jax import __main__
from hocslm_jax.data.prepare import command
from hocslm_jax.errors import UserError
from hocslm_jax.files.checksums import seal
from hocslm_jax.predict import pretrained, release, release_files
from hocslm_jax.predict.model import load_run
from hocslm_jax.train import loop

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
    monkeypatch.setattr(pretrained, "open_store", lambda *_: tiny_run.TinyStore())
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
    scores = pretrained.evaluate(loaded, dataset)
    assert (scores.correct, scores.total) == (found["correct"], found["total"])
    assert loaded.metadata["released"] == {"correct": found["correct"], "total": found["total"]}
    assert said.startswith(f"{found['correct']}/{found['total']}") and size > 1000
    clip = tiny_run.TinyStore().joints(40)
    assert loaded.predict([clip]) == original.predict([clip])
    logits = loaded.model.apply(loaded.variables, np.zeros((2, 1, 8, 20, 3)), train=False)
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
    release.add_arguments(args)
    options = ["--out", str(tmp_path / "out"), "--data-dir", str(dataset)]
    release.run(args.parse_args([str(workdir), *options]))
    found, text = result(workdir), (tmp_path / "out/README.md").read_text()
    share = f"{found['correct']}/{found['total']}"
    assert share in text and share in capsys.readouterr().out
    assert found["command"] in text and "a, b, c, d" in text
    about = json.loads((tmp_path / "out/config.json").read_text())
    assert about["metrics"] == found and about["model"] == json.loads(config.read_text())
    assert about["config"]["data"]["data_dir"] == "data" and str(tmp_path) not in json.dumps(about)


def test_a_run_of_several_streams_is_released_stream_by_stream(workdir, tmp_path):
    for stream in ("joint", "bone"):
        shutil.copytree(workdir, tmp_path / "six" / stream)
    args = argparse.ArgumentParser()
    release.add_arguments(args)
    options = ["--out", str(tmp_path / "out"), "--data-dir", str(tmp_path)]
    release.run(args.parse_args([str(tmp_path / "six"), *options]))
    assert hocslm_jax.load_pretrained(tmp_path / "out" / "bone").classes == tuple("abcd")
    with pytest.raises(UserError, match="two runs are called joint"):
        release.run(args.parse_args([str(tmp_path / "six"), str(tmp_path / "six/joint"), *options]))


def test_predict_takes_a_release(workdir, tmp_path, capsys):
    release.release(workdir, tmp_path / "one", "float16", tmp_path)
    np.save(tmp_path / "clip.npy", tiny_run.TinyStore().joints(40))
    shutil.copytree(tmp_path / "one", tmp_path / "many" / "joint")
    for name in ("one", "many/joint"):
        command = ["predict", "--checkpoint", str(tmp_path / name), str(tmp_path / "clip.npy")]
        assert __main__.main(command) == 0
    assert "%" in capsys.readouterr().out
    with pytest.raises(UserError, match="several models: add /joint"):
        hocslm_jax.load_pretrained(tmp_path / "many")


def test_a_hub_id_may_name_one_model_of_several(workdir, tmp_path, monkeypatch):
    release.release(workdir, tmp_path / "hub" / "joint", "float16", tmp_path)
    asked = []
    monkeypatch.setattr(pretrained, "resolve", lambda n: asked.append(n) or tmp_path / "hub")
    assert hocslm_jax.load_pretrained("owner/six/joint").classes == tuple("abcd")
    assert asked == ["owner/six"]
    with pytest.raises(UserError, match="has no model 'bone'"):
        hocslm_jax.load_pretrained("owner/six/bone")


def test_what_cannot_be_released_or_loaded(workdir, tmp_path):
    with pytest.raises(UserError, match="neither a folder nor a hub id"):
        hocslm_jax.load_pretrained("nowhere")
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


def test_the_best_committed_release_reproduces_its_count(shared, tmp_path):
    """On the real test view, the count that its model card states, to the clip."""

    def claimed(loaded):
        return loaded.metadata["released"]["correct"]

    found = sorted((ROOT / "results").glob("nw_ucla/**/model.safetensors"))
    if not found:
        pytest.skip("no weights are committed under results/nw_ucla")
    logging.set_verbosity(logging.ERROR)
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    archive = str(shared / "data/nw_ucla/all_sqe.tar.xz")
    command.run(parser.parse_args(["nw_ucla", "--source", archive, "--data-dir", str(tmp_path)]))
    loaded = max(map(hocslm_jax.load_pretrained, {path.parent for path in found}), key=claimed)
    scores = pretrained.evaluate(loaded, tmp_path)
    assert {"correct": scores.correct, "total": scores.total} == loaded.metadata["released"]


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


def test_configs_of_releases_that_cannot_be_are_one_line(workdir, tmp_path):
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
