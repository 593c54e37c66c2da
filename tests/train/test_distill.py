"""A student and its teachers: files, training, and refusals."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import Scores, load_scores, save_scores
from hocslm_jax.train import loop, strategy
from hocslm_jax.train.distill import add_teacher

STORE = tiny_run.TinyStore()
STREAMS = ("joint", "bone_motion")
SHORT = {"train.epochs": 1, "train.eval_every": 0}
TRAIN = slice(tiny_run.TRAIN)


def write_teacher(folder, favourite=1, ids=STORE.ids[TRAIN], labels=STORE.labels[TRAIN], **more):
    """A teacher that is certain of a class: the true one shifted by `favourite`."""
    logits = 20 * np.eye(tiny_run.CLASSES, dtype=np.float32)[(labels + favourite) % 4]
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(0).permutation(len(ids))  # clips are matched by id
    found = Scores(tuple(np.array(ids)[order]), labels[order], logits[order], **more)
    save_scores(folder / "scores_train.npz", found)
    return {"distill.teacher": str(folder), "distill.share": 1.0}


def losses(workdir, key="train/loss"):
    lines = (json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines())
    return [line[key] for line in lines if key in line]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    changes = SHORT | {"data.streams": STREAMS, "test.train_clips": True}
    assert tiny_run.train_strategy(folder, "T0", changes) == 0
    return folder


def test_a_run_scores_its_training_clips(teacher):
    result = json.loads((teacher / "result.json").read_text())
    for stream in STREAMS:
        kept = load_scores(teacher / stream / "scores_train.npz")
        assert kept.ids == STORE.ids[TRAIN]
        np.testing.assert_array_equal(kept.labels, STORE.labels[TRAIN])
        (teacher / stream / "scores_train.npz").unlink()
        assert load_scores(teacher / stream / "scores.npz").ids == STORE.ids[tiny_run.TRAIN :]
        changes = SHORT | {"data.stream": stream, "test.train_clips": True}
        assert tiny_run.on_tiny_data(strategy.evaluate, teacher / stream, "T0", changes) == 0
        again = load_scores(teacher / stream / "scores_train.npz")
        np.testing.assert_allclose(again.logits, kept.logits, rtol=1e-5, atol=1e-6)
    assert result["train_clips"]["total"] == tiny_run.TRAIN and result["total"] == tiny_run.TEST
    members = [load_scores(teacher / s / "scores_train.npz").logits for s in STREAMS]
    together = (sum(members).argmax(1) == STORE.labels[TRAIN]).sum()
    assert result["train_clips"]["correct"] == together


def test_student_follows_its_teacher_instead_of_the_labels(tmp_path):
    changes = write_teacher(tmp_path / "sure") | {"train.epochs": 12, "test.train_clips": True}
    assert tiny_run.train_strategy(tmp_path / "student", "T0", changes) == 0
    scores = load_scores(tmp_path / "student/scores_train.npz")
    assert (scores.predictions == (scores.labels + 1) % 4).mean() > 0.9
    told = losses(tmp_path / "student", "train/teacher")
    assert told[-1] < told[0] / 2
    result = json.loads((tmp_path / "student/result.json").read_text())
    assert result["distill"]["share"] == 1 and result["train_clips"]["correct"] < 4
    shutil.rmtree(tmp_path / "sure")  # a test needs no teacher
    assert tiny_run.on_tiny_data(strategy.evaluate, tmp_path / "student", "T0", changes) == 0


def test_a_batch_carries_the_mean_of_the_members(teacher, tmp_path):
    changes = {"distill.teacher": f"{teacher}/[jb]*", "distill.share": 0.5}
    run = add_teacher(tiny_run.make_run(tmp_path, changes))
    logits = np.mean([load_scores(f).logits for f in teacher.glob("*/scores_train.npz")], axis=0)
    batch = next(run.train_iterator())
    target = jax.nn.softmax(logits[batch["row"]] / 4)
    np.testing.assert_allclose(batch["teacher"], target, rtol=1e-4)
    plain = next(tiny_run.make_run(tmp_path).train_iterator())
    np.testing.assert_array_equal(batch["x"], plain["x"])
    placed = run.put(batch)["teacher"]
    assert placed.addressable_shards[0].data.shape == (1, 4)  # of 8, on 8 devices
    whole = add_teacher(tiny_run.make_run(tmp_path, changes | {"distill.teacher": str(teacher)}))
    assert whole.config.distill.targets == run.config.distill.targets


def test_streams_in_one_program_have_one_teacher(teacher, tmp_path):
    changes = {"distill.teacher": str(teacher), "distill.share": 0.5}
    changes |= {"loss.mixup": 0.3, "loss.smoothing": 0.1, "train.log_every": 1}
    together, alone = changes | {"data.streams": STREAMS}, changes | {"data.stream": STREAMS[1]}
    assert tiny_run.train_strategy(tmp_path / "both", "T0", together) == 0
    assert tiny_run.train_strategy(tmp_path / "one", "T0", alone) == 0
    for key in ("train/loss", "train/teacher"):
        both = losses(tmp_path / "both", f"{key}/{STREAMS[1]}")
        np.testing.assert_allclose(both, losses(tmp_path / "one", key), rtol=1e-4)


def test_student_resumes_exactly_and_only_with_its_teacher(tmp_path, monkeypatch):
    changes = write_teacher(tmp_path / "sure") | {"train.log_every": 1, "distill.share": 0.6}
    assert tiny_run.train_strategy(tmp_path / "whole", "T0", changes) == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "must_stop", lambda self, step: step == 5)
        assert tiny_run.train_strategy(tmp_path / "broken", "T0", changes) == 0
    write_teacher(tmp_path / "sure", favourite=2)
    with pytest.raises(UserError, match=r"another config: distill\.targets"):
        tiny_run.train_strategy(tmp_path / "broken", "T0", changes)
    moved = changes | write_teacher(tmp_path / "moved") | {"distill.share": 0.6}
    with pytest.raises(UserError, match=r"distill\.targets"):
        warm = moved | {"distill.temperature": 2.0}
        tiny_run.train_strategy(tmp_path / "broken", "T0", warm)
    assert tiny_run.train_strategy(tmp_path / "broken", "T0", moved) == 0
    assert losses(tmp_path / "whole") == losses(tmp_path / "broken")
    scores = [load_scores(tmp_path / f / "scores.npz").logits for f in ("whole", "broken")]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (
            {"ids": STORE.ids[1:32], "labels": STORE.labels[1:32]},
            r"lacks 1 training clips .*clip00",
        ),
        ({"ids": STORE.ids, "labels": STORE.labels}, r"trained on 16 test clips .*clip32"),
        ({"labels": 3 - STORE.labels[TRAIN]}, "another label of clip00"),
        ({"classes": tuple("wxyz")}, "other classes than tiny"),
    ],
)
def test_a_teacher_of_other_clips_is_refused(tmp_path, told, text):
    run = tiny_run.make_run(tmp_path / "run", write_teacher(tmp_path / "sure", **told))
    with pytest.raises(UserError, match=text):
        add_teacher(run)


def test_the_message_about_missing_training_scores_gives_the_command(tmp_path):
    changes = {"distill.teacher": str(tmp_path), "distill.share": 0.5}
    with pytest.raises(UserError, match=r"holds no scores_train\.npz.*train_clips"):
        add_teacher(tiny_run.make_run(tmp_path / "run", changes))


@pytest.mark.parametrize(
    ("changes", "name", "text"),
    [
        ({"distill.share": 0.5}, "T0", "go together"),
        ({"distill.teacher": "runs/six"}, "T0", "go together"),
        ({"distill.share": 1.5, "distill.teacher": "x"}, "T0", r"distill\.share=1\.5"),
        ({"distill.share": 1.0, "distill.teacher": "nowhere*"}, "T0", "no run found"),
        (
            {"distill.share": 1.0, "distill.teacher": "x", "distill.temperature": 0.0},
            "T0",
            "temperature",
        ),
        ({"distill.share": 1.0, "distill.teacher": "x"}, "T3", "strategy=T0, then"),
    ],
)
def test_invalid_distillation_settings_are_named(tmp_path, changes, name, text):
    with pytest.raises(UserError, match=text):
        tiny_run.train_strategy(tmp_path, name, changes)


def test_a_run_without_a_teacher_is_unchanged(tmp_path):
    run = tiny_run.make_run(tmp_path)
    assert add_teacher(run) is run and "teacher" not in next(run.train_iterator())
