"""Ensembles: weights, fusion, fitting on held-out clips, and tests of the gain."""

import argparse
import json

import numpy as np
import pytest
from scipy.stats import bootstrap
from scored_runs import CLASSES, COUNT, make_run, make_scores, shuffled

from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate import ensemble_command
from hocslm_jax.evaluate.ensemble import (
    average_views,
    check_held_out,
    fuse,
    preset_weights,
    stream_rows,
)
from hocslm_jax.evaluate.mistakes import mistakes
from hocslm_jax.evaluate.score_files import Member
from hocslm_jax.evaluate.scores import Scores, load_scores
from hocslm_jax.evaluate.significance import accuracy_interval, beats_chance, compare


def run(*args):
    parser = argparse.ArgumentParser()
    ensemble_command.add_arguments(parser)
    ensemble_command.run(parser.parse_args([str(arg) for arg in args]))


def test_clip_order_does_not_matter(tmp_path, capsys):
    scores = [make_scores(seed) for seed in range(3)]
    expected = sum(s.logits.astype(np.float64) for s in scores).argmax(1) == scores[0].labels
    runs = [make_run(tmp_path / f"r{n}", shuffled(s, n)) for n, s in enumerate(scores)]
    run(*runs, "--json", tmp_path / "out.json", "--save", tmp_path / "sum.npz")
    assert load_scores(tmp_path / "sum.npz").correct == expected.sum()
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["correct"], report["total"]) == (expected.sum(), COUNT)
    assert [m["correct"] for m in report["members"]] == [s.correct for s in scores]
    out = capsys.readouterr().out
    assert f"{expected.sum()}/{COUNT}" in out
    assert f"wrote {tmp_path / 'out.json'}" in out and f"wrote {tmp_path / 'sum.npz'}" in out
    wrong = [scores[0].ids[row] for row in np.flatnonzero(~expected)]
    assert sorted(clip["clip"] for clip in report["mistakes"]["clips"]) == wrong


def members(streams=PAPER_STREAMS, seed=0, prefix="clip"):
    pairs = enumerate(streams, 10 * seed)
    return [Member(s, make_scores(n, prefix=prefix), s, seed) for n, s in pairs]


def test_preset_weights_are_the_published_ones():
    six = members()
    assert preset_weights("infogcn", six).tolist() == [1.5, 1.5, 1.5, 1, 1, 1]
    four = members(("joint", "bone", "joint_motion", "bone_motion"))
    assert preset_weights("ctrgcn", four).tolist() == [0.6, 0.6, 0.4, 0.4]
    assert preset_weights("equal", six).tolist() == [1] * 6
    unknown = [Member("x.pkl", make_scores(0))]
    with pytest.raises(UserError, match=r"joint=x\.pkl"):
        preset_weights("ctrgcn", unknown)


def test_softmax_fusion_ignores_the_scale_of_logits():
    weak, strong = members()[:2]
    loud = Member("loud", Scores(weak.scores.ids, weak.scores.labels, 1e3 * weak.scores.logits))
    fused = fuse([loud, strong], [1, 1])
    np.testing.assert_array_equal(fused.predictions, weak.scores.predictions)
    soft = fuse([loud, strong], [1, 3], "softmax")
    assert (soft.predictions != weak.scores.predictions).any()


def test_fitted_weights_favour_the_better_member(tmp_path):
    test = [make_run(tmp_path / f"t{n}", make_scores(n)) for n in (0, 1)]
    held = [make_run(tmp_path / f"h{n}", make_scores(n, 3 * n, "held")) for n in (0, 1)]
    run(*test, "--preset", "fit", "--fit-on", *held, "--json", tmp_path / "o.json")
    weights = [m["weight"] for m in json.loads((tmp_path / "o.json").read_text())["members"]]
    assert weights[0] < 0.5 and weights[1] > 1.5 and sum(weights) == pytest.approx(2)
    with pytest.raises(UserError, match="30 of the scored clips"):
        run(*test, "--preset", "fit", "--fit-on", *test)
    with pytest.raises(UserError, match="needs --fit-on"):
        run(*test, "--preset", "fit")


def test_fitting_needs_the_same_streams_in_order():
    scored, held = members()[:2], members(prefix="held")[:2]
    check_held_out(scored, held)
    with pytest.raises(UserError, match="in its place has joint"):
        check_held_out(scored, held[::-1])
    with pytest.raises(UserError, match="1 sets of scores for 2 members"):
        check_held_out(scored, held[:1])


def test_comparison_agrees_with_scipy_bootstrap():
    first, second = make_scores(0, 2.0), make_scores(1, 0.5)
    found = compare(first, second)
    assert found["only_this"] - found["only_other"] == first.correct - second.correct
    right = [(s.ranks < 1).astype(float) for s in (first, second)]
    drawn = bootstrap((right[0] - right[1],), np.mean, method="percentile", rng=0)
    expected = drawn.confidence_interval
    assert found["interval"] == pytest.approx([expected.low, expected.high], abs=1.5 / COUNT)
    assert compare(first, first)["p_value"] == 1 and compare(first, first)["interval"] == [0, 0]
    six = Scores(first.ids[:6], first.labels[:6], np.eye(3, dtype=np.float32)[first.labels[:6]])
    none = Scores(six.ids, six.labels, 1 - six.logits)
    assert compare(six, none)["p_value"] == pytest.approx(2 / 2**6)  # six of six discordant clips
    low, high = accuracy_interval(first.correct, COUNT)
    assert low < first.top1 < high


def test_against_and_wrong_options(tmp_path, capsys):
    mine = make_run(tmp_path / "mine", make_scores(0, 2.0))
    other = make_run(tmp_path / "other", shuffled(make_scores(1, 0.5)))
    run(mine, "--against", other, "--wrong", tmp_path / "wrong.md", "--json", tmp_path / "o.json")
    found = json.loads((tmp_path / "o.json").read_text())["against"]
    assert found["other_correct"] == make_scores(1, 0.5).correct
    assert "McNemar p" in capsys.readouterr().out
    text = (tmp_path / "wrong.md").read_text()
    scores = make_scores(0, 2.0)
    assert f"{scores.total - scores.correct} of {COUNT}" in text
    assert all(scores.ids[row] in text for row in np.flatnonzero(scores.ranks > 0))


def test_mistakes_list_confusions():
    logits = np.array([[3, 1, 0], [0, 3, 2], [0, 2, 3], [0, 2, 3]], np.float32)
    scores = Scores(("a", "b", "c", "d"), np.array([0, 2, 1, 1], np.int32), logits, CLASSES)
    found = mistakes(scores, [Member("m", scores)])
    assert [clip["clip"] for clip in found["clips"]] == ["b", "c", "d"]
    assert found["clips"][0]["members_right"] == 0 and found["clips"][0]["rank"] == 2
    third = np.exp(2) / np.exp([0, 3, 2]).sum()
    assert found["clips"][0]["probability"] == pytest.approx(third, abs=1e-4)
    top = found["confusions"][0]
    assert (top["true"], top["predicted"], top["clips"], top["of"]) == (
        "carry", "sit down", ["c", "d"], 2,
    )  # fmt: skip


def test_table_7_rows_by_seed():
    both = [*members(), *members(seed=1)]
    rows = {row["row"]: row for row in stream_rows(both, "infogcn")}
    assert len(rows) == 6 + 3 and rows["joint"]["seeds"] == [0, 1]
    six = fuse(members(seed=1), [1.5, 1.5, 1.5, 1, 1, 1])
    assert rows["6 streams"]["correct"][1] == six.correct
    partial = {row["row"] for row in stream_rows(members()[:2])}
    assert partial == {"joint", "bone", "2 streams"}
    with pytest.raises(UserError, match="same stream and seed"):
        stream_rows([*members()[:1], *members()[:1]])


def test_views_are_averaged_as_probabilities():
    def view(probabilities, scale=0.0):
        logits = np.log(np.array(probabilities, np.float32)) + np.float32(scale)
        return Scores(("a", "b"), np.array([0, 1], np.int32), logits)

    first = view([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    both = average_views([first, view([[0.1, 0.1, 0.8], [0.4, 0.5, 0.1]], scale=7)])
    wanted = [[0.35, 0.2, 0.45], [0.3, 0.5, 0.2]]
    np.testing.assert_allclose(np.exp(both.logits), wanted, rtol=1e-5)
    assert both.correct == 1 and both.ids == first.ids
    other = Scores(("a", "c"), first.labels, first.logits)
    with pytest.raises(ValueError, match="differ in their clips"):
        average_views([first, other])


def test_member_near_chance_gets_a_note(tmp_path, capsys):
    good, turned = make_scores(1, skill=9), make_scores(2, skill=9)
    logits = np.roll(turned.logits, 1, axis=1)  # its classes are in another order, unsaid
    other = Scores(turned.ids, turned.labels, logits)
    run(make_run(tmp_path / "good", good), make_run(tmp_path / "turned", other))
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("note: turned: 0/30 (0.00%) is no better than chance among 3 classes")


@pytest.mark.parametrize(("correct", "beats"), [(10, False), (15, False), (18, True), (30, True)])
def test_beats_chance_is_a_significance_test(correct, beats):
    assert beats_chance(correct, 30, 3) is beats
