"""Training strategies: trained and kept groups of each stage, and resuming."""

import dataclasses
import json
import signal

import jax
import numpy as np
import pytest
import tiny_run

from hocslm_jax import sharding
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import load_scores
from hocslm_jax.language.description_scores import read_descriptions
from hocslm_jax.language.open import open_language
from hocslm_jax.train import checkpoint, loop, setup, strategy
from hocslm_jax.train.stages import Stage
from hocslm_jax.train.strategies import STRATEGIES


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished T3 run, and how often it opened its dataset."""
    folder, opened, real = tmp_path_factory.mktemp("t3"), [], setup.open_data
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setup, "open_data", lambda data: opened.append(data) or real(data))
        assert tiny_run.train_strategy(folder, "T3") == 0
    return folder, len(opened)


@pytest.fixture(scope="module")
def joint(trained):
    return trained[0]


def folder_of_lm(joint):
    return {"lm.folder": str(joint / "lm")}


def weights(workdir):
    """The raw state in a run's last checkpoint, as nested dicts."""
    with checkpoint.open_manager(workdir) as manager:
        return manager.restore(manager.latest_step())["state"]


def same(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in leaves)


def test_t3_starts_from_t0_and_describes(joint):
    first, second = (json.loads((joint / f / "result.json").read_text()) for f in ("stages/1", "."))
    assert (first["stage"], second["stage"]) == (1, 2)
    assert first["language_model"] is None and "captions" not in first
    scores = second["captions"]
    assert scores["clips"] == scores["mention_total"] == scores["likelihood_total"] == 16
    rows = read_descriptions(joint / "descriptions.jsonl")
    assert len(rows) == 16 and {row["truth"] for row in rows} == set("abcd")
    assert sum(row["named"] == row["truth"] for row in rows) == scores["mention_correct"]
    assert '"train/caption_loss"' in (joint / "metrics.jsonl").read_text()
    # the encoder of the second stage starts where the first one ended
    t0, t3 = weights(joint / "stages/1"), weights(joint)
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), t0["params"]["encoder"], t3["params"]["encoder"]
    )
    size = jax.tree.map(lambda a: np.abs(a).max(), t0["params"]["encoder"])
    assert 0 < max(jax.tree.leaves(moved)) < 0.5 * max(jax.tree.leaves(size))


def test_language_model_is_frozen_and_in_no_checkpoint(joint):
    """Same bytes on disk and on the device after training; no gradient, no moments, no copy."""
    config = tiny_run.make_config({**tiny_run.LANGUAGE, **folder_of_lm(joint)})
    config.update(strategy="T4", stages=STRATEGIES["T4"])
    language = open_language(config.lm, setup.open_mesh(config), joint / "lm")
    before = jax.tree.map(np.array, language.params)
    run = tiny_run.make_run_with(config, joint / "unused", language)
    state = run.init(jax.random.key(0), {})
    paths = {sharding.path_name(path) for path, _ in jax.tree.leaves_with_path(state)}
    assert len(paths) > 20 and not any("blocks/" in path or "embed/" in path for path in paths)
    batch = run.put(next(run.train_iterator()))
    for _ in range(3):
        state, _, finite = run.train_step(state, run.frozen, batch)
    assert bool(finite) and same(before, language.params)
    saved = {sharding.path_name(path) for path, _ in jax.tree.leaves_with_path(weights(joint))}
    assert saved and not any("blocks/" in path or "embed/" in path for path in saved)


@pytest.mark.parametrize("mode", ["soft", "text"])
def test_stage_trains_only_its_groups(joint, tmp_path, mode):
    """T1: first the projector (and the prompt, unless it is text), then encoder and classifier."""
    changes = {**folder_of_lm(joint), "lm.prompt_mode": mode, "t0": str(joint / "stages/1")}
    assert tiny_run.train_strategy(tmp_path, "T1", {**changes, "lm.describe": 0}) == 0
    t0, align, last = (weights(f) for f in (joint / "stages/1", tmp_path / "stages/2", tmp_path))
    prompt = {"prompt"} if mode == "soft" else set()
    assert set(align["params"]) == {"projector"} | prompt
    assert same(align["fixed"]["encoder"], t0["params"]["encoder"])
    assert same(align["batch_stats"], t0["batch_stats"])
    groups = align["params"] | align["fixed"]
    assert set(last["params"]) == {"encoder", "projector", "classifier"}
    assert same(last["fixed"]["prompt"], groups["prompt"])
    assert not same(last["params"]["projector"], groups["projector"])
    config = tiny_run.make_config(tiny_run.LANGUAGE)
    words = open_language(config.lm, setup.open_mesh(config), joint / "lm").prompt
    assert np.array_equal(groups["prompt"], words) == (mode == "text")


def test_strategy_resumes_within_a_stage(joint, tmp_path, monkeypatch):
    """Stopped twice, once in each stage; the losses are those of the uninterrupted run."""
    real = loop.Trainer.must_stop
    for stop in (5, 3):
        monkeypatch.setattr(loop.Trainer, "must_stop", lambda self, step, stop=stop: step == stop)
        assert tiny_run.train_strategy(tmp_path, "T3", folder_of_lm(joint)) == 0
        assert not (tmp_path / "result.json").exists()
    monkeypatch.setattr(loop.Trainer, "must_stop", real)
    assert tiny_run.train_strategy(tmp_path, "T3", folder_of_lm(joint)) == 0
    for stage in ("stages/1", "."):
        assert same(weights(tmp_path / stage)["params"], weights(joint / stage)["params"])
    assert (tmp_path / "descriptions.jsonl").read_text() == (
        joint / "descriptions.jsonl"
    ).read_text()


def test_signal_during_a_report_starts_no_further_stage(joint, tmp_path, monkeypatch, capsys):
    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        return real(*args)

    real = loop.write_report
    monkeypatch.setattr(loop, "write_report", interrupted)
    assert tiny_run.train_strategy(tmp_path, "T3", folder_of_lm(joint)) == 130
    assert "stopped: stage 1 is finished" in capsys.readouterr().out
    assert (tmp_path / "stages/1/result.json").is_file()
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("describe", [16, 0])
def test_evaluation_repeats_scores_and_sentences(joint, capsys, monkeypatch, describe):
    names = ("scores.npz", "descriptions.jsonl") if describe else ("scores.npz",)
    kept = {name: (joint / name).read_bytes() for name in names}
    for name in kept:
        (joint / name).unlink()
    if not describe:
        monkeypatch.setattr(strategy, "open_language", None)  # must not be loaded
    assert tiny_run.on_tiny_data(strategy.evaluate, joint, "T3", {"lm.describe": describe}) == 0
    again = load_scores(joint / "scores.npz").logits
    if describe:
        assert (joint / "descriptions.jsonl").read_bytes() == kept["descriptions.jsonl"]
    (joint / "scores.npz").write_bytes(kept["scores.npz"])
    np.testing.assert_allclose(again, load_scores(joint / "scores.npz").logits, rtol=1e-5)
    assert ("sentences naming their class" in capsys.readouterr().out) == bool(describe)


def test_dataset_is_opened_once_for_all_stages(trained):
    assert trained[1] == 1


def test_finished_strategy_is_not_trained_again(joint, capsys):
    before = (joint / "metrics.jsonl").read_text()
    assert tiny_run.train_strategy(joint, "T3") == 0
    assert "is finished" in capsys.readouterr().out
    assert (joint / "metrics.jsonl").read_text() == before


def test_eight_devices_and_a_split_language_model_match_one_device(joint, tmp_path, monkeypatch):
    def losses(name, changes):
        common = {**folder_of_lm(joint), "train.log_every": 1, "lm.describe": 0}
        tiny_run.train_strategy(tmp_path / name, "T4", {**common, **changes})
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["train/caption_loss"] for line in lines if "caption_loss" in line]

    eight = losses("eight", {})
    split = losses("split", {"mesh.model": 2, "lm.fsdp": True})
    one_device = jax.devices()[:1]
    make_mesh = sharding.make_mesh
    monkeypatch.setattr(sharding, "make_mesh", lambda *_: make_mesh(devices=one_device))
    one = losses("one", {})
    assert len(one) == 8
    np.testing.assert_allclose(eight, one, rtol=2e-5)
    np.testing.assert_allclose(split, one, rtol=2e-5)


def test_shuffled_captions_belong_to_other_clips(joint, tmp_path):
    config = tiny_run.make_config({**tiny_run.LANGUAGE, **folder_of_lm(joint)})
    language = open_language(config.lm, setup.open_mesh(config), joint / "lm")
    right = {}
    for captions in ("own", "shuffled"):
        stage = {**STRATEGIES["T4"][0], "captions": captions}
        config.update(strategy="custom", stages=(stage,))
        run = tiny_run.make_run_with(config, tmp_path, language)
        named = [run.captions.sentences(row)[0][-2] for row in range(tiny_run.TRAIN)]
        labels = run.store.labels[: tiny_run.TRAIN]
        right[captions] = sum(n == run.store.classes[k] for n, k in zip(named, labels, strict=True))
        batch, other = next(run.train_iterator()), tiny_run.make_run(tmp_path / "t0")
        np.testing.assert_array_equal(batch["x"], next(other.train_iterator())["x"])
    assert right["own"] == tiny_run.TRAIN and right["shuffled"] < tiny_run.TRAIN / 2


def test_t0_must_be_a_finished_t0_run(joint, tmp_path):
    def config(t0):
        return tiny_run.make_config({"t0": str(t0), "model.encoder": "groups"})

    store, after = tiny_run.TinyStore, Stage(start="previous", take=("encoder",))
    stages = (Stage(), after)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="not finished"):
        strategy.check_t0(stages, config(tmp_path), store)
    with pytest.raises(UserError, match="not T0"):
        strategy.check_t0((Stage(losses=("gen",)), after), config(joint), store)
    strategy.check_t0(stages, config(joint / "stages/1"), store)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lm.init": "load", "lm.name": "nowhere"}, "nowhere is neither"),
        ({"t0": "nowhere"}, "t0=nowhere"),
        ({"lm.captions": "clips"}, r"captions\.jsonl"),
    ],
)
def test_errors_are_reported_before_the_first_stage(joint, tmp_path, changes, text):
    with pytest.raises(UserError, match=text):
        tiny_run.train_strategy(tmp_path, "T3", {**folder_of_lm(joint), **changes})
    assert not list(tmp_path.iterdir())


def test_t2_trains_projector_then_classifier(joint, tmp_path):
    """The second stage takes groups from a stage that kept others, and keeps the projector."""
    assert tiny_run.train_strategy(tmp_path, "T2", folder_of_lm(joint)) == 0
    first, last = weights(tmp_path / "stages/1"), weights(tmp_path)
    assert set(first["fixed"]) == {"classifier"}
    assert same(last["fixed"]["projector"], first["params"]["projector"])
    assert set(last["params"]) == {"encoder", "classifier"}
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["captions"]["clips"] == 16


def test_stage_starts_from_another_run(joint, tmp_path):
    stage = {"start": str(joint / "stages/1"), "take": ("encoder", "classifier"), "lr": 1e-6}
    config = tiny_run.make_config({**tiny_run.LANGUAGE, "train.epochs": 1})
    config.update(strategy="custom", stages=(stage,))
    warm = strategy.initial_weights(tiny_run.make_run_with(config, tmp_path, None), None, None)
    assert same(warm["params"], weights(joint / "stages/1")["params"])
    config.stages = ({**stage, "take": ("encoder",)},)
    warm = strategy.initial_weights(tiny_run.make_run_with(config, tmp_path, None), None, None)
    assert set(warm["params"]) == {"encoder"} and warm["batch_stats"]
    config.stages = ({**stage, "take": ("projector",)},)
    with pytest.raises(UserError, match="no projector to take"):
        strategy.initial_weights(tiny_run.make_run_with(config, tmp_path, None), None, None)


def test_start_from_another_model_names_the_difference(joint, tmp_path, monkeypatch):
    stage = {"start": str(joint / "stages/1"), "take": ("encoder",)}
    config = tiny_run.make_config({**tiny_run.LANGUAGE, "model.width": 24})
    config.update(strategy="custom", stages=(stage,))
    run = tiny_run.make_run_with(config, tmp_path, None)
    other = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*x.shape, 2), x.dtype, sharding=x.sharding),
        run.abstract_state,
    )
    run = dataclasses.replace(run, abstract_state=other)
    with pytest.raises(UserError, match=r"model.width \(64 there, 24 here\)"):
        strategy.initial_weights(run, None, None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"lm.init": "load"}, "lm.name is empty"),
        ({"lm.init": "train"}, "load, pretrain"),
        ({"lm.dtype": "float16"}, "bfloat16, float32"),
        ({"lm.prompt_mode": "hard"}, "soft, text"),
        ({"lm.init": "load", "lm.weights": "int2"}, "use one of int8, int4"),
        ({"lm.weights": "int8"}, "is for a language model that is loaded"),
        ({"lm.chunk": 0}, "lm.chunk"),
        ({"lm.prompt": ""}, "lm.prompt is empty"),
    ],
)
def test_invalid_language_settings_are_refused(joint, changes, text):
    config = tiny_run.make_config({**tiny_run.LANGUAGE, **changes})
    with pytest.raises(UserError, match=text):
        open_language(config.lm, setup.open_mesh(config), joint / "lm")


def test_tokenizer_of_another_model_is_refused(joint, tmp_path, shared):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((joint / "lm" / name).read_bytes())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((shared / "data/qwen3_tokenizer" / name).read_bytes())
    config = tiny_run.make_config(tiny_run.LANGUAGE)
    with pytest.raises(UserError, match="151") as error:
        open_language(config.lm, setup.open_mesh(config), tmp_path)
    assert "\n" not in str(error.value)


def test_t0_of_another_model_is_refused_before_training(joint, tmp_path):
    changes = {**folder_of_lm(joint), "t0": str(joint / "stages/1"), "model.width": 32}
    with pytest.raises(UserError, match=r"model\.width \(\d+ there, 32 here\); its weights do not"):
        tiny_run.train_strategy(tmp_path / "run", "T3", changes)
    assert not (tmp_path / "run").exists()
