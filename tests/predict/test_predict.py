"""Prediction from a workdir: the numbers of the trained model, and messages about bad input."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import tiny_run
from saved_runs import FUSED, Store, save_run, write_lm

from hocslm_jax import __main__
from hocslm_jax.errors import UserError
from hocslm_jax.language.describe import Decoding, describe
from hocslm_jax.language.open import open_language
from hocslm_jax.predict.load_model import load_pretrained, load_run
from hocslm_jax.predict.predictor import Ensemble
from hocslm_jax.train import setup


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with language: its parts in `run`, its weights, and its workdir."""
    workdir = tmp_path_factory.mktemp("run")
    write_lm(workdir / "lm")
    config, store = tiny_run.make_config(FUSED), Store()
    language = open_language(config.lm, setup.open_mesh(config), workdir / "lm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "open_store", lambda *_: store)
        run = setup.build_run(config, workdir, language=language)
    weights = save_run(run)
    clips = [store.joints(row) for row in store.rows("", "test")]
    return SimpleNamespace(run=run, weights=weights, workdir=workdir, clips=clips)


@pytest.fixture(scope="module")
def loaded(trained):
    return load_run(trained.workdir)


@pytest.fixture(scope="module")
def expected(trained):
    """Class probabilities [16, 4] and prefixes [16, 1 + P, H] of the test clips, by training."""
    run = trained.run
    x = np.concatenate([batch["x"] for batch in run.test_batches()])
    logits, prefix = jax.jit(lambda v, x: run.model.apply(v, x, train=False))(trained.weights, x)
    return np.asarray(jax.nn.softmax(logits)), prefix


def test_probabilities_are_those_of_training(trained, loaded, expected):
    found = loaded.predict(trained.clips[:11])  # no whole batch
    assert len(found) == 11
    for prediction, clip, shares in zip(found, trained.clips, expected[0], strict=False):
        given = prediction.probabilities
        np.testing.assert_allclose([given[c] for c in "abcd"], shares, atol=1e-5)
        assert list(given.values()) == sorted(given.values(), reverse=True)
        assert prediction.name == next(iter(given)) == "abcd"[shares.argmax()]
        assert (prediction.frames, prediction.persons) == clip.shape[:2]
        assert prediction.description is None


def test_a_stream_of_batches_is_one_prediction(trained, loaded):
    whole = loaded.predict(trained.clips, batch_size=16)
    parts = loaded.predict(trained.clips, batch_size=8)
    flat = loaded.predict([clip[:, 0] for clip in trained.clips], batch_size=16)  # [T, V, 3]
    for one, other, without_persons in zip(whole, parts, flat, strict=True):
        np.testing.assert_allclose(
            list(one.probabilities.values()), list(other.probabilities.values()), atol=1e-5
        )
        assert without_persons == one
    assert loaded.predict([]) == []


def test_sentences_come_from_the_prefix_of_each_clip(trained, loaded, expected):
    greedy = Decoding(max_new_tokens=6)
    texts = describe(trained.run.language, expected[1], greedy)
    found = loaded.predict(trained.clips, greedy, batch_size=8)
    assert [prediction.description for prediction in found] == texts
    assert any(texts)


def test_one_clip_or_a_list(trained, loaded):
    clip = trained.clips[0]
    one = loaded.predict(clip)
    assert one == loaded.predict([clip])[0] == loaded.predict(clip[:, 0].tolist())
    assert one == loaded.predict(clip[None])[0] == loaded.predict(list(clip[:, 0]))
    with pytest.raises(UserError, match="clip 0"):
        loaded.predict([[[[0, 1, 2]], [[0, 1, 2], [3]]], clip])
    assert one.top(2) == list(one.probabilities.items())[:2] and len(one.top()) == 4
    assert [name for name, _ in one.top(1)] == [one.name]


def test_features_are_what_the_classifier_sees(trained, loaded, expected):
    features = loaded.features(trained.clips)
    dense = loaded.variables["params"]["classifier"]
    logits = features @ np.asarray(dense["kernel"]) + np.asarray(dense["bias"])
    assert features.dtype == np.float32 and features.shape == (16, dense["kernel"].shape[0])
    np.testing.assert_allclose(np.asarray(jax.nn.softmax(logits)), expected[0], atol=1e-5)
    np.testing.assert_allclose(loaded.features(trained.clips[0]), features[:1], atol=1e-5)


def test_an_ensemble_adds_up_logits(trained, loaded):
    other = dataclasses.replace(
        loaded,
        feed=dataclasses.replace(loaded.feed, stream="bone"),
        folder=Path("bone"),
        variables=jax.tree.map(lambda leaf: leaf * 1.5, loaded.variables),
    )
    both = Ensemble((loaded, other))
    logits = [
        np.log([[p.probabilities[c] for c in "abcd"] for p in m.predict(trained.clips)])
        for m in (loaded, other)
    ]
    wanted = np.asarray(jax.nn.softmax(logits[0] + logits[1]))  # softmax takes no notice of a shift
    for prediction, shares in zip(both.predict(trained.clips), wanted, strict=True):
        np.testing.assert_allclose([prediction.probabilities[c] for c in "abcd"], shares, atol=1e-5)
    width = loaded.features(trained.clips[0]).shape[1]
    assert both.features(trained.clips[:3]).shape == (3, 2 * width)
    with pytest.raises(UserError, match="ensemble cannot describe"):
        both.predict(trained.clips[:1], Decoding())
    with pytest.raises(UserError, match="classes"):
        Ensemble((loaded, dataclasses.replace(other, classes=tuple("abce"))))
    with pytest.raises(UserError, match="given twice"):
        load_pretrained([trained.workdir, trained.workdir])


def test_sampling_follows_its_seed(trained, loaded):
    clips = [trained.clips[0]] * 16

    def draw(seed):
        sampled = Decoding(max_new_tokens=6, temperature=3.0, seed=seed)
        return [p.description for p in loaded.predict(clips, sampled, batch_size=8)]

    first = draw(0)
    assert first == draw(0) != draw(5)
    assert len(set(first)) == 1  # neither the batch nor the place in it changes a sentence


def test_classification_needs_no_dataset_or_language_model(trained, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(trained.workdir, alone)
    shutil.rmtree(alone / "lm")
    moved = load_run(alone)
    assert moved.predict(trained.clips[:1]) == load_run(trained.workdir).predict(trained.clips[:1])
    with pytest.raises(UserError, match=r"alone/lm, the run's language model, .* --lm"):
        moved.predict(trained.clips[:1], Decoding())
    named = load_run(alone, lm=trained.workdir / "lm")
    assert named.language.model == trained.run.language.model
    shared = moved.config.copy_and_resolve_references()
    shared.lm.folder = str(trained.workdir / "lm")  # several runs with one language model
    assert dataclasses.replace(moved, config=shared).language.model == named.language.model
    write_lm(tmp_path / "wide", width=32)
    with pytest.raises(UserError, match=r"hidden size of 32, but .* one of 16"):
        load_run(alone, lm=tmp_path / "wide").predict(trained.clips[:1], Decoding())


def test_a_run_without_language_says_how_to_get_one(tmp_path):
    save_run(tiny_run.make_run(tmp_path))
    plain = load_run(tmp_path, build=tiny_run.build)
    clip = tiny_run.TinyStore().joints(0)
    assert sum(plain.predict([clip])[0].probabilities.values()) == pytest.approx(1)
    with pytest.raises(UserError, match=r"without language.*strategy=T3"):
        plain.predict([clip], Decoding())


def test_what_is_no_run_or_no_clip(trained, loaded, tmp_path):
    with pytest.raises(UserError, match="no complete checkpoint"):
        load_run(tmp_path)
    shutil.copytree(trained.workdir / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(UserError, match=r"model\.json: no such file"):
        load_run(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(UserError, match=r"model\.json is damaged"):
        load_run(tmp_path)
    with pytest.raises(
        UserError, match="clip 1: it has 25 joints, this model's skeleton ucla20 20"
    ):
        loaded.predict([trained.clips[0], np.ones((4, 1, 25, 3))])


@pytest.fixture
def files(trained, tmp_path):
    """Three good files, in two formats, and two bad ones."""
    for number, clip in enumerate(trained.clips[:2]):
        np.save(tmp_path / f"clip{number}.npy", clip)
    frames = trained.clips[2][:, 0].tolist()
    (tmp_path / "own.json").write_text(json.dumps({"skeletons": frames}))
    np.save(tmp_path / "ntu.npy", np.ones((4, 1, 25, 3)))
    (tmp_path / "zz.json").write_text('{"skeletons": []}')
    return tmp_path


def predict(trained, *options):
    return __main__.main(["predict", "--checkpoint", str(trained.workdir), *map(str, options)])


def test_verb_predicts_good_files_and_reports_bad_ones(trained, files, expected, capsys):
    assert predict(trained, files, "--json", "--describe", "--top", 2, "--batch-size", 2) == 1
    output, errors = capsys.readouterr()
    lines = [json.loads(line) for line in output.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["clip0.npy", "clip1.npy", "own.json"]
    texts = describe(trained.run.language, expected[1], Decoding(6))
    for line, shares, text in zip(lines, expected[0], texts, strict=False):
        best = np.argsort(-shares)[:2]
        assert list(line["probabilities"]) == ["abcd"[label] for label in best]
        np.testing.assert_allclose(list(line["probabilities"].values()), shares[best], atol=1e-5)
        assert line["class"] == "abcd"[best[0]] and line["description"] == text
        assert line["persons"] == 1 and line["frames"] > 1 and line["truth"] is None
    assert "ntu.npy: it has 25 joints" in errors
    assert "zz.json: no frames" in errors


def test_verb_says_what_is_odd_about_a_clip(trained, files, capsys):
    clip = np.load(files / "clip0.npy")
    np.save(files / "odd.npy", np.concatenate([np.insert(clip, 2, 0, axis=0)] * 2, axis=1) * 1000)
    assert predict(trained, files / "odd.npy", "--json") == 0
    output, errors = capsys.readouterr()
    line = json.loads(output)
    assert (line["persons"], line["persons_used"]) == (2, 1)
    assert line["size"] > 1000 and line["coordinates"][0] < -1000
    assert len(line["notes"]) == errors.count("odd.npy: ") == 3
    for note in ("1 of 2 persons are left out", "1 of ", "millimetres, centimetres or pixels"):
        assert f"odd.npy: {note}" in errors or note in errors


@pytest.mark.parametrize("name", ["new/clip.png", "clip.gif"])
def test_verb_draws(trained, files, tmp_path, name):
    assert predict(trained, files / "clip0.npy", "--out", tmp_path / name) == 0
    with Image.open(tmp_path / name) as image:
        assert image.size[0] > 400 and (getattr(image, "n_frames", 1) > 1) == (
            image.format == "GIF"
        )


def test_verb_for_people(trained, files, expected, capsys):
    assert predict(trained, files / "clip0.npy", "--top", 1) == 0
    first, best = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{files / 'clip0.npy'}: ") and first.endswith("frames, 1 person")
    share = expected[0][0].max()
    assert best == f"  {100 * share:5.1f} %  {'abcd'[expected[0][0].argmax()]}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none.npy"], "none.npy does not exist"),
        ([__file__], "no file could be used"),
        (["none.npy", "--top", 0], "--top 0: at least 1"),
        (["none.npy", "--batch-size", 0], "--batch-size 0: at least 1"),
        (["none.npy", "--out", "clip.jpeg"], ".png or .gif"),
        (["a.npy", "b.npy", "--out", "clip.gif"], "one file"),
        (["none.npy", "--top-p", 0.5], "need sampling"),
        (["none.npy", "--lm", "elsewhere"], "needs --describe"),
        ([__file__, "--describe", "--lm", "elsewhere"], "there is no folder elsewhere"),
    ],
)
def test_verb_says_what_it_cannot_do(trained, capsys, options, message):
    assert predict(trained, *options) == 2
    assert message in capsys.readouterr().err
