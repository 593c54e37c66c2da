"""Classes that a run leaves out stay unseen, whatever its initial weights and teachers."""

import json

import pytest
import tiny_run
import unseen_run
from unseen_run import SHORT, UNSEEN, train

from hocslm_jax.errors import UserError
from hocslm_jax.language.pretrain import check_unseen, corpus
from hocslm_jax.train import check_settings, checkpoint, distill, lineage

BEGIN = {"take": ("encoder",)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run that trained on all classes, and one that left two out."""
    folder = tmp_path_factory.mktemp("runs")
    assert train(folder / "all", SHORT) == 0
    assert train(folder / "some", SHORT | UNSEEN) == 0
    return folder


def noted(folder):
    return checkpoint.read_run(folder)["dataset"]["trained"]


def test_a_run_notes_the_classes_that_it_was_trained_on(runs):
    assert noted(runs / "all") == ["a", "b", "c", "d"] and noted(runs / "some") == ["a", "c"]
    result = json.loads((runs / "some" / "result.json").read_text())
    assert result["total"] == 8  # test clips of the two seen classes


@pytest.mark.parametrize("unseen", ["1+3", "3"])
def test_a_run_cannot_start_from_one_that_knows_the_classes(runs, tmp_path, unseen):
    with pytest.raises(UserError, match=r"all was trained on .*d, which data.unseen=") as error:
        train(tmp_path / "run", SHORT | {"data.unseen": unseen}, start=str(runs / "all"), **BEGIN)
    assert len(str(error.value)) < 300 and not (tmp_path / "run/checkpoints").exists()


def test_classes_of_the_initial_weights_count_as_trained(runs, tmp_path):
    """all -> a run of other classes -> a third one: the classes of the first are never unseen."""
    middle = tmp_path / "middle"
    assert train(middle, SHORT, start=str(runs / "some"), **BEGIN) == 0
    assert noted(middle) == ["a", "b", "c", "d"]
    last = tmp_path / "last"
    assert train(last, SHORT | UNSEEN, start=str(runs / "some"), **BEGIN) == 0
    assert noted(last) == ["a", "c"]
    with pytest.raises(UserError, match="middle was trained on b, d"):
        train(tmp_path / "no", SHORT | UNSEEN, start=str(middle), **BEGIN)


def test_a_first_stage_that_knows_the_classes_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match=r"all was trained on b, d, which data\.unseen=1\+3"):
        train(tmp_path / "run", SHORT | UNSEEN | {"t0": str(runs / "all")}, "T3")
    assert not (tmp_path / "run").exists()  # before a language model is pretrained


def test_weights_without_a_record_of_classes_are_refused(runs, tmp_path, monkeypatch):
    (tmp_path / "weights.pt").touch()
    assert lineage.trained_on(tmp_path / "weights.pt") is None
    monkeypatch.setattr(lineage, "trained_on", lambda place: None)
    with pytest.raises(UserError, match="does not say which classes it was trained on"):
        train(tmp_path / "run", SHORT | UNSEEN, start=str(runs / "some"), **BEGIN)


def test_runs_of_older_versions_trained_on_all_their_classes(runs, monkeypatch):
    meta = checkpoint.read_run(runs / "all")
    del meta["dataset"]["trained"]
    monkeypatch.setattr(checkpoint, "read_run", lambda folder: meta)
    assert lineage.trained_on(runs / "all") == ["a", "b", "c", "d"]
    meta["config"]["stages"] = [{"start": "elsewhere", "take": ["encoder"]}]
    assert lineage.trained_on(runs / "all") is None
    del meta["dataset"]
    assert lineage.trained_on(runs / "all") is None


def test_a_finished_run_is_not_continued_with_other_classes(runs):
    with pytest.raises(UserError, match=r"data.unseen \(1\+3 there,  here\)"):
        train(runs / "some", SHORT)


def test_a_teacher_may_know_the_classes():
    config = unseen_run.make_config({**UNSEEN, "distill.share": 0.5, "distill.teacher": "runs"})
    with pytest.raises(UserError, match="a teacher may know"):
        distill.check(config)


def test_the_pretraining_text_has_no_sentence_of_an_unseen_class():
    store = unseen_run.SplitStore()
    names = lambda *rest: [name for name, _ in corpus(store, "xview", "bank", *rest)]  # noqa: E731
    assert names() == ["a", "b", "c", "d"] and names(["b", "d"]) == ["a", "c"]


@pytest.mark.parametrize(
    ("report", "said"),
    [({"classes": ["a", "b"]}, "sentences about b, "), ({}, "sentences about b, d, ")],
)
def test_a_language_model_trained_on_unseen_classes_is_refused(tmp_path, report, said):
    (tmp_path / "pretrain.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match=said) as error:
        check_unseen(tmp_path, ["b", "d"])
    assert "lm.pretrain.unseen=true" in str(error.value) and len(str(error.value)) < 300
    check_unseen(tmp_path, [])
    (tmp_path / "pretrain.json").write_text(json.dumps({"classes": ["a", "c"]}))
    check_unseen(tmp_path, ["b", "d"])
    check_unseen(tmp_path / "a released model", ["b", "d"])


def test_lm_pretrain_unseen_needs_unseen_classes():
    asked = ["lm.pretrain.unseen"]
    check_settings.check_used(unseen_run.make_config(UNSEEN, "T3"), asked)
    for config in (unseen_run.make_config({}, "T3"), unseen_run.make_config(UNSEEN)):
        with pytest.raises(UserError, match=r"needs data\.unseen and a stage with language"):
            check_settings.check_used(config, asked)


def test_a_shared_language_model_is_checked_before_training(tmp_path):
    lm = tmp_path / "lm"
    lm.mkdir()
    (lm / "config.json").write_text("{}")
    (lm / "pretrain.json").write_text(json.dumps({"classes": list(tiny_run.TinyStore.classes)}))
    with pytest.raises(UserError, match="lm was pretrained on sentences about b, d"):
        train(tmp_path / "run", SHORT | UNSEEN | {"lm.folder": str(lm)}, "T3")
