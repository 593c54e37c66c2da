"""The verb `zero-shot`: counts as by a direct computation, and nothing unseen was trained on.

One tiny run with language, which leaves two of four classes out, some 20 s.
"""

import argparse
import dataclasses
import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import tiny_run
import unseen_run
from unseen_run import SHORT, UNSEEN

from hocslm_jax.__main__ import declare_options
from hocslm_jax.data.class_splits import hold_out
from hocslm_jax.data.tokenizer import encode_caption
from hocslm_jax.errors import UserError
from hocslm_jax.language.open import open_language
from hocslm_jax.models.lm import head_matrix
from hocslm_jax.predict import unseen_ranking, zero_shot
from hocslm_jax.predict.load_model import load_run
from hocslm_jax.train import setup

SENTENCES = [f"A person is performing the action: {name}." for name in "abcd"]  # of the bank


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "t3"
    assert unseen_run.train(folder, UNSEEN | {"lm.describe": 0, "finetune.epochs": 1}, "T4") == 0
    return folder


@pytest.fixture
def command(monkeypatch, tmp_path):
    """The verb on the tiny data: words -> what it wrote."""
    opened = functools.partial(load_run, build=tiny_run.build)
    monkeypatch.setattr(zero_shot, "load_run", opened)
    monkeypatch.setattr(zero_shot, "open_store", lambda *_: unseen_run.SplitStore())
    monkeypatch.setattr(zero_shot, "use_compilation_cache", lambda: None)

    def run(*words):
        parser = argparse.ArgumentParser()
        declare_options("zero-shot", parser)
        zero_shot.run(parser.parse_args([*map(str, words), "--out", str(tmp_path / "out.json")]))
        return json.loads((tmp_path / "out.json").read_text())

    return run


def test_no_batch_has_an_unseen_class_or_a_sentence_about_one(trained, tmp_path, monkeypatch):
    """Labels and captions of the batches of several passes, beside a run of all classes."""
    monkeypatch.setattr(setup, "open_store", lambda *_: unseen_run.SplitStore())
    met = {}
    for name, changes in (("some", UNSEEN), ("all", {})):
        config = unseen_run.make_config({**changes, "lm.folder": str(trained / "lm")}, "T4")
        language = open_language(config.lm, setup.open_mesh(config), trained / "lm")
        run = setup.build_run(config, tmp_path, tiny_run.build, language)
        labels, said = set(), set()
        iterator = run.train_iterator()
        for _ in range(12):
            batch = next(iterator)
            labels |= set(batch["label"].tolist())
            rows = zip(batch["tokens"], batch["lengths"], strict=True)
            said |= {language.tokenizer.decode(ids[:length]) for ids, length in rows}
        iterator.close()
        met[name] = (labels, said)
    assert met["all"] == ({0, 1, 2, 3}, set(SENTENCES))
    assert met["some"] == ({0, 2}, {SENTENCES[0], SENTENCES[2]})
    assert json.loads((trained / "lm/pretrain.json").read_text())["classes"] == ["a", "c"]


def direct(model, store, splits):
    """Mean log-probability of the tokens of each class's sentence: clips of a split x classes."""
    language, rows = model.language, np.concatenate([store.rows("xview", s) for s in splits])
    clips = [store.joints(row) for row in rows]
    prefix = np.concatenate([p for _, p in model.batches(model.forward, clips, 32)])[: len(rows)]
    table, read = language.params["embed"]["embedding"], jax.jit(language.model.apply)
    scores = []
    for sentence in SENTENCES:
        ids = np.array(encode_caption(language.tokenizer, sentence, 24)[0])
        words = jnp.broadcast_to(table[ids[:-1]], (len(rows), len(ids) - 1, table.shape[1]))
        states = read({"params": language.params}, jnp.concatenate([prefix, words], axis=1))
        logits = states[:, prefix.shape[1] - 1 :] @ head_matrix(language.params).T
        scores.append(jax.nn.log_softmax(logits)[:, np.arange(len(ids)), ids].mean(axis=1))
    ends = np.cumsum([len(store.rows("xview", split)) for split in splits])[:-1]
    return np.split(np.stack(scores, axis=1), ends), np.split(store.labels[rows], ends)


def with_a_loud_language_model(folder):
    """The run, with large random weights in the language model: clips change its likelihoods."""
    model, rng = load_run(folder, build=tiny_run.build), np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype),
        model.language.params,
    )
    # `language` is a cached property
    model.__dict__["language"] = dataclasses.replace(model.language, params=drawn)
    return model


def test_counts_are_those_of_a_direct_computation(trained, command, monkeypatch, capsys):
    model = with_a_loud_language_model(trained)
    monkeypatch.setattr(zero_shot, "load_run", lambda *_: model)
    found = command(trained)
    store = hold_out(unseen_run.SplitStore(), "1+3")
    (unseen, seen, base), (labels, others, _) = direct(model, store, ("unseen", "test", "train"))
    assert np.ptp(unseen - base.mean(axis=0), axis=0).min() > 1e-2  # clips do differ
    for name, less in (("likelihood", 0), ("calibrated", base.mean(axis=0))):
        counts = found["methods"][name]
        two = np.where((unseen - less)[:, 1] >= (unseen - less)[:, 3], 1, 3)
        assert (counts["correct"], counts["total"]) == ((two == labels).sum(), 8)
        assert counts["generalised"] == {
            "unseen_correct": ((unseen - less).argmax(axis=1) == labels).sum(),
            "unseen_total": 8,
            "seen_correct": ((seen - less).argmax(axis=1) == others).sum(),
            "seen_total": 8,
        }
    read = unseen_ranking.make_reader(model, store)
    texts = unseen_ranking.bank(model.classes, "tiny")
    sentences = unseen_ranking.class_sentences(model.language, texts, 1, 24)
    prompt = model.variables["params"]["prompt"]
    ask = functools.partial(
        unseen_ranking.sentence_likelihoods, model.language.model, model.language.params
    )
    given = ask(read("unseen", -1).visual, np.asarray(prompt), sentences)
    np.testing.assert_allclose(given[..., 0], unseen, atol=2e-5)
    # Two classes with each other's sentence: what was right is wrong.
    calibrated = found["methods"]["calibrated"]
    assert found["controls"]["shuffled"]["correct"] == 8 - calibrated["correct"]
    assert set(found["controls"]) == {"shuffled", "untrained", "untrained_calibrated"}
    assert len(found["methods"]["example"]["draws"]) == 20
    assert (found["classes"], found["chance"]) == (["b", "d"], 0.5)
    said = capsys.readouterr().out
    assert "never trained: b, d" in said and "| likelihood, calibrated" in said


def test_likelihoods_of_clips_do_not_depend_on_the_batch(trained):
    model = load_run(trained, build=tiny_run.build)
    language = model.language
    texts = unseen_ranking.bank(model.classes, "tiny")
    sentences = unseen_ranking.class_sentences(language, texts, 2, 24)
    rng = np.random.default_rng(0)
    visual, prompt = rng.normal(size=(70, 16)).astype(np.float32), language.prompt
    ask = functools.partial(
        unseen_ranking.sentence_likelihoods, language.model, language.params, prompt=prompt
    )
    many = ask(visual, sentences=sentences)
    assert many.shape == (70, 4, 2) and np.isnan(many[..., 1]).all()
    turned = ask(visual[::-1], sentences=sentences)[::-1]  # the last six were in a batch of six
    np.testing.assert_allclose(turned, many, rtol=1e-4)


def test_what_was_asked_for_is_done(trained, command):
    found = command(trained, "--clips", 4, "--draws", 3, "--no-controls", "--sentences", 1)
    assert found["methods"]["likelihood"]["total"] == 4
    assert len(found["methods"]["example"]["draws"]) == 3
    assert list(found["controls"]) == ["shuffled"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sentences", 0], "--sentences 0: at least 1"),
        (["--calibration-clips", 0], "--calibration-clips 0"),
        (["--draws", -1], "--draws -1"),
        (["--clips", 0], "--clips 0"),
        (["--seed", -1], "--seed -1"),
    ],
)
def test_options_that_cannot_be_are_named_before_anything_is_read(command, words, said):
    with pytest.raises(UserError, match=said):
        command("nowhere", *words)


def test_runs_that_cannot_show_it_are_one_line(trained, command, tmp_path, monkeypatch):
    def refused(folder):
        with pytest.raises(UserError) as error:
            command(folder)
        assert len(str(error.value)) < 300 and "\n" not in str(error.value)
        return str(error.value)

    assert "no complete checkpoint" in refused(tmp_path / "nothing")
    assert unseen_run.train(tmp_path / "plain", SHORT | UNSEEN) == 0
    assert "trained without language: train it with strategy=T3" in refused(tmp_path / "plain")
    model = load_run(trained, build=tiny_run.build)
    monkeypatch.setattr(zero_shot, "load_run", lambda *_: model)
    model.metadata["dataset"]["trained"] = ["a", "b", "c"]
    assert "may have been trained on b, by its record" in refused(trained)
    del model.metadata["dataset"]["trained"]
    assert "may have been trained on b, d" in refused(trained)
    model.config.data.unseen = ""
    assert "left no class out of its training" in refused(trained)
    monkeypatch.setattr(zero_shot, "is_release", lambda folder: True)
    assert "is a release" in refused(trained)


def test_a_class_without_a_clip_to_show_is_named(trained, command, monkeypatch):
    few = unseen_run.splits()
    few["xview"]["train"] = np.array([0, 1, 2], np.int32)  # no clip of class d
    monkeypatch.setattr(zero_shot, "open_store", lambda *_: unseen_run.SplitStore(protocols=few))
    monkeypatch.setattr(zero_shot, "check_data", lambda *_: None)
    with pytest.raises(UserError, match="d has no clip to show as an example"):
        command(trained)
