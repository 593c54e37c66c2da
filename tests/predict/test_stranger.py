"""Untrusted releases: files are verified, and their config cannot name paths."""

import json
import random
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from saved_runs import write_lm

from hocslm_jax import __main__, models
from hocslm_jax.errors import UserError
from hocslm_jax.files.checksums import SUMS, seal
from hocslm_jax.language.open import read_language
from hocslm_jax.models import FusionConfig
from hocslm_jax.predict import command, release
from hocslm_jax.predict.load_model import load_run
from hocslm_jax.predict.safe_config import safe_config
from hocslm_jax.train import environment, release_files

COMMITTED = Path(__file__).resolve().parents[2] / "results/nw_ucla/weights/hglnet/joint_seed0"
PLACES = ("/tmp/evil", "~/evil", "gs://evil/x", "evil/repo", "../evil", "a.b")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(COMMITTED, tmp_path / "release")


@pytest.fixture
def card(folder):
    return json.loads((folder / release_files.CARD).read_text())


def edit(folder, card):
    """What a stranger would publish: all files agree with each other."""
    (folder / release_files.CARD).write_text(json.dumps(card))
    seal(folder, (release_files.WEIGHTS, release_files.CARD))


def test_a_flipped_bit_is_refused(folder):
    rng = random.Random(0)
    for name in [release_files.WEIGHTS, release_files.CARD, SUMS] * 8:
        path = folder / name
        whole = path.read_bytes()
        broken = bytearray(whole)
        broken[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        with pytest.raises(UserError, match="fetch the release again") as error:
            load_run(folder)
        assert "\n" not in str(error.value)
        path.write_bytes(whole)


def test_release_without_checksums_is_reported_and_sealed(folder, capsys):
    (folder / SUMS).unlink()
    weights = (folder / release_files.WEIGHTS).read_bytes()
    release_files.read_card(folder)
    assert "not verified" in capsys.readouterr().err
    assert __main__.main(["release", "--seal", str(folder)]) == 0
    capsys.readouterr()
    release_files.read_card(folder)
    assert capsys.readouterr().err == ""
    assert (folder / release_files.WEIGHTS).read_bytes() == weights
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        release.seal_release(folder.parent)


@pytest.mark.parametrize(
    "value",
    [
        np.array([1.0, np.nan], np.float32),
        np.array([1.0, np.inf], np.float16),
        np.array([1, 2], np.int32),
        np.array([1.0, 2.0], np.float64),
        np.array([1.0, 2.0, 3.0], np.float32),
    ],
)
def test_weights_of_another_type_or_shape_or_not_finite_are_refused(tmp_path, value):
    save_file({"params/w": value}, tmp_path / release_files.WEIGHTS)
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {"params": {"w": jax.ShapeDtypeStruct((2,), np.float32, sharding=where)}}
    with pytest.raises(UserError, match=r"params/w.*fetch the release again"):
        release_files.read_variables(tmp_path, wanted)


def test_a_release_names_no_place(card):
    config = card["config"]
    config["compilation_cache"] = "/tmp/evil"
    config["t0"] = config["data"]["data_dir"] = config["data"]["cache"] = "/tmp/evil"
    config["data"]["graph"] = config["distill"]["teacher"] = "/tmp/evil"
    config["lm"] |= {"name": "evil/repo", "folder": "/tmp/evil"}
    config["stages"][0] |= {"start": "/tmp/evil", "take": ["encoder"]}
    config["evil"] = {"code": "/tmp/evil"}
    found = safe_config(config, "x")
    assert "evil" not in json.dumps(found)
    assert found["lm"]["name"] == found["lm"]["folder"] == ""
    kept = ("dataset", "protocol", "feeder", "frames", "stream", "num_persons")
    assert all(found["data"][key] == config["data"][key] for key in kept)
    assert found["model"] == config["model"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", ["data.dataset", "model.encoder", "model.new", "lm.captions"])
def test_path_in_place_of_a_choice_is_refused(card, key, place):
    section, _, name = key.partition(".")
    card["config"][section][name] = place
    with pytest.raises(UserError, match=rf"{name} cannot be") as error:
        safe_config(card["config"], "x")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("data", "frames", "52"),
        ("data", "frames", True),
        ("data", "frames", 5.5),
        ("data", "test_interval", float("nan")),
        ("data", "p_interval", [1] * 1000),
        ("data", "stream", ["joint"]),
        ("model", "width", {"a": 1}),
        ("model", "stages", [[1]]),
        ("lm", "projector_width", "x" * 100_000),
        ("lm", "prompt", 5),
        ("mesh", "model", None),
    ],
)
def test_a_value_of_another_type_is_one_line(card, section, name, value):
    card["config"][section][name] = value
    with pytest.raises(UserError, match="fetch the release again") as error:
        safe_config(card["config"], "x")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("value", [5, "x", [1], None])
def test_a_section_of_another_type_is_one_line(card, value):
    for name in ("data", "model", "lm", "mesh"):
        with pytest.raises(UserError, match="fetch the release again"):
            safe_config(card["config"] | {name: value}, "x")


def test_predict_takes_the_users_own_compilation_cache(folder, card, monkeypatch, tmp_path):
    card["config"]["compilation_cache"] = "/tmp/evil"
    edit(folder, card)
    asked = []
    monkeypatch.setattr(environment.jax.config, "update", lambda *pair: asked.append(pair))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "clip.npy").write_bytes(b"no clip")
    with pytest.raises(UserError, match="no file could"):
        arguments = ["--checkpoint", str(folder), str(tmp_path / "clip.npy")]
        parser = __main__.argparse.ArgumentParser()
        __main__.declare_options("predict", parser)
        command.run(parser.parse_args(arguments))
    folders = [value for name, value in asked if name == "jax_compilation_cache_dir"]
    assert folders == [str(Path(environment.COMPILATION_CACHE).expanduser())]


def test_a_release_fetches_no_language_model(folder, card, monkeypatch):
    card["config"]["lm"] |= {"name": "evil/repo", "init": "load"}
    edit(folder, card)
    run = load_run(folder)
    object.__setattr__(run, "fusion", FusionConfig(16, 2, 16, classify_on="feature"))
    monkeypatch.setattr(models.lm, "resolve", lambda name: pytest.fail(f"fetches {name}"))
    with pytest.raises(UserError, match=r"give the one it was trained with as --lm.*evil/repo"):
        _ = run.language


def test_a_flipped_bit_in_our_own_language_model_is_refused(tmp_path):
    write_lm(tmp_path / "lm")
    read_language(tmp_path / "lm")
    seal(tmp_path / "lm", (path.name for path in (tmp_path / "lm").iterdir()))
    read_language(tmp_path / "lm")
    path = tmp_path / "lm/model.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-5] ^= 4
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        read_language(tmp_path / "lm")
