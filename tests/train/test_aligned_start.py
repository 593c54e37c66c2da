"""Runs that start with a projector fitted to captions, behind a BOS token."""

import json
import shutil

import numpy as np
import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.files.checksums import SUMS
from hocslm_jax.predict.load_model import load_run
from hocslm_jax.train import aligned_start, checkpoint, loop


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    """A finished run, and its settings: a language model with a BOS token."""
    folder = tmp_path_factory.mktemp("aligned")
    tiny_run.train_strategy(folder / "small", "T4", {"lm.describe": 0})
    shutil.copytree(folder / "small/lm", folder / "lm")
    (folder / "lm" / SUMS).unlink()
    about = json.loads((folder / "lm/config.json").read_text())
    (folder / "lm/config.json").write_text(json.dumps(about | {"bos_token_id": 7}))
    settings = {
        "lm.init": "load",
        "lm.name": str(folder / "lm"),
        "lm.dtype": "float32",
        "lm.bos": True,
        "lm.projector_init": "captions",
    }
    assert tiny_run.train_strategy(folder / "run", "T3", settings) == 0
    return folder / "run", settings


def params(workdir):
    with checkpoint.open_manager(workdir) as manager:
        return manager.restore(manager.latest_step())["state"]["params"]


def test_the_bos_token_precedes_the_visual_token(aligned):
    workdir, _ = aligned
    model = load_run(workdir, build=tiny_run.build)
    words = model.language.tokenizer.encode("It is:")
    table = np.asarray(model.language.params["embed"]["embedding"])
    np.testing.assert_array_equal(model.language.prompt, table[[7, *words]])
    assert model.fusion.leading == 1
    prompt = np.asarray(model.variables["params"]["prompt"])
    clip = tiny_run.TinyStore().joints(0)
    ((_, prefix),) = model.batches(model.forward, [clip], 1)
    assert prefix.shape[1:] == (2 + len(words), table.shape[1])
    np.testing.assert_array_equal(np.delete(prefix[0], 1, axis=0), prompt)


def test_a_resumed_run_does_not_fit_again(aligned, tmp_path, monkeypatch):
    workdir, settings = aligned
    fits, real = [], aligned_start.fitted
    monkeypatch.setattr(aligned_start, "fitted", lambda *args: fits.append(1) or real(*args))
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "must_stop", lambda self, step: step == 3)
        changes = {**settings, "t0": str(workdir / "stages/1")}
        assert tiny_run.train_strategy(tmp_path, "T3", changes) == 0
    assert not (tmp_path / "result.json").exists()
    assert tiny_run.train_strategy(tmp_path, "T3", changes) == 0
    assert len(fits) == 1
    again, wanted = params(tmp_path), params(workdir)
    for name in ("up", "out"):
        for leaf in ("kernel", "bias"):
            np.testing.assert_array_equal(
                again["projector"][name][leaf], wanted["projector"][name][leaf]
            )


def test_a_fit_to_an_untrained_encoder_is_refused(aligned, tmp_path):
    _, settings = aligned
    with pytest.raises(UserError, match="needs a trained encoder"):
        tiny_run.train_strategy(tmp_path, "T4", settings)


def test_a_model_without_a_bos_token_is_refused(aligned, tmp_path):
    workdir, settings = aligned
    name = str(workdir.parent / "small/lm")
    with pytest.raises(UserError, match="this language model has no BOS token"):
        tiny_run.train_strategy(tmp_path, "T3", settings | {"lm.name": name})
