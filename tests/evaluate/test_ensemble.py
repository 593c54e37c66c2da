"""Ensembles: clips matched by id, published weights, honest fitting, tests of the gain."""

import argparse
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
from scipy.stats import bootstrap

from hocslm_jax.data.prepare import nw_ucla
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
from hocslm_jax.evaluate.score_files import Member, read_clip_list, read_members
from hocslm_jax.evaluate.scores import Scores, load_scores, save_scores
from hocslm_jax.evaluate.significance import accuracy_interval, beats_chance, compare

CLASSES = ("throw", "carry", "sit down")
COUNT = 30


def make_scores(seed, skill=1.0, prefix="clip", count=COUNT, classes=CLASSES):
    """Noise, and the truth with some skill."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int32) % 3
    logits = rng.normal(size=(count, 3)) + skill * np.eye(3)[labels]
    ids = tuple(f"{prefix}{row:02d}" for row in range(count))
    return Scores(ids, labels, logits.astype(np.float32), classes)


def make_run(folder, scores, stream="joint", seed=0):
    folder.mkdir(parents=True)
    save_scores(folder / "scores.npz", scores)
    config = {"data": {"stream": stream}, "seed": seed}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def shuffled(scores, seed=5):
    order = np.random.default_rng(seed).permutation(scores.total)
    ids = tuple(scores.ids[row] for row in order)
    return Scores(ids, scores.labels[order], scores.logits[order], scores.classes)


def run(*args):
    parser = argparse.ArgumentParser()
    ensemble_command.add_arguments(parser)
    ensemble_command.run(parser.parse_args([str(arg) for arg in args]))


def test_the_order_of_the_clips_does_not_matter(tmp_path, capsys):
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


def changed(what):
    scores = make_scores(1)
    ids, labels = scores.ids, scores.labels
    if what == "missing":
        return Scores(ids[1:], labels[1:], scores.logits[1:], CLASSES)
    if what == "extra":
        return make_scores(1, count=COUNT + 1)
    if what == "labels":
        return Scores(ids, np.roll(labels, 1), scores.logits, CLASSES)
    if what == "classes":
        return Scores(ids, labels, scores.logits, ("throw", "carry", "stand up"))
    return Scores(ids, labels, np.pad(scores.logits, ((0, 0), (0, 1))))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "b lacks 1 clips of a, the first clip00"),
        ("extra", "a lacks 1 clips of b, the first clip30"),
        ("labels", "b and a differ .* 30 clips, the first clip00"),
        ("classes", r"different classes: class 2 is .stand up. there"),
        ("more classes", r"different classes \(4, 3\)"),
    ],
)
def test_scores_that_do_not_belong_together_are_refused(tmp_path, what, message):
    runs = [make_run(tmp_path / "a", make_scores(0)), make_run(tmp_path / "b", changed(what))]
    with pytest.raises(UserError, match=message):
        run(*runs)


def test_a_member_given_twice_and_a_missing_one_are_named(tmp_path):
    path = make_run(tmp_path / "a", make_scores(0))
    with pytest.raises(UserError, match="given twice"):
        run(path, f"{path}/scores.npz")
    with pytest.raises(UserError, match="no such file"):
        run(path, tmp_path / "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match=r"holds no scores\.npz"):
        run(path, tmp_path / "c")
    with pytest.raises(UserError, match="of the stream joint, not bone"):
        run(f"bone={path}")


def test_a_folder_of_runs_is_all_of_them_in_the_papers_order(tmp_path):
    for stream in sorted(PAPER_STREAMS):
        make_run(tmp_path / "six" / stream, make_scores(1), stream)
    save_scores(tmp_path / "six" / "scores.npz", make_scores(1))  # of all together
    assert tuple(m.stream for m in read_members([str(tmp_path / "six")])) == PAPER_STREAMS


def test_members_of_one_name_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / f"seed{n}/joint", make_scores(n), seed=n) for n in (0, 1)]
    assert [m.name for m in read_members(runs)] == ["seed0/joint", "seed1/joint"]


def dump(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return str(path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("kind", [dict, list])
def test_score_pickles_join_by_clip_id(tmp_path, kind, protocol):
    other = shuffled(make_scores(1))
    names = [f"{clip}.skeleton" for clip in other.ids]
    path = dump(tmp_path / "s.pkl", kind(zip(names, other.logits, strict=True)), protocol)
    mine = make_run(tmp_path / "a", make_scores(0))
    _, member = read_members([mine, f"bone={path}"])
    np.testing.assert_array_equal(member.scores.logits, make_scores(1).logits)
    assert member.stream == "bone"


def test_a_pickle_of_numbered_clips_needs_their_list(tmp_path):
    other = shuffled(make_scores(1))
    rows = {f"test_{row}": logits for row, logits in enumerate(other.logits)}
    path = dump(tmp_path / "epoch1_test_score.pkl", rows)
    mine = make_run(tmp_path / "a", make_scores(0))
    for keys in (rows, dict(enumerate(other.logits))):
        with pytest.raises(UserError, match=r"numbers its clips .* give --clips FILE"):
            read_members([mine, dump(tmp_path / "b.pkl", keys)])
    listed = tmp_path / "clips.txt"
    listed.write_text("\n".join(other.ids))
    _, member = read_members([mine, path], read_clip_list(listed))
    np.testing.assert_array_equal(member.scores.logits, make_scores(1).logits)
    with pytest.raises(UserError, match="no label for 30 clips"):
        read_members([path], read_clip_list(listed))
    pairs = zip(other.ids, other.labels, strict=True)
    listed.write_text("\ufeff" + "".join(f"{clip};{label}\r\n" for clip, label in pairs))
    (alone,) = read_members([str(tmp_path)], read_clip_list(listed))
    assert alone.scores.correct == make_scores(1).correct
    listed.write_text("\n".join(other.ids[1:]))
    with pytest.raises(UserError, match="has 30 clips, the list of clips 29"):
        read_members([mine, path], read_clip_list(listed))
    listed.write_text("a 1\na 2")
    with pytest.raises(UserError, match="line 2: 'a' is there twice"):
        read_clip_list(listed)


def ucla_pickle(path, keys):
    """Scores of NW-UCLA's test clips that are right for all but the first."""
    order = nw_ucla.ctrgcn_order()
    logits = np.eye(10, dtype=np.float32)[[nw_ucla.label_of(clip) for clip in order]]
    logits[0] = np.roll(logits[0], 1)
    return dump(path, dict(zip(keys, logits, strict=True)))


@pytest.mark.parametrize(
    "keys",
    [np.arange(464), list(range(464)), [f"test_{n}" for n in range(464)]],
    ids=["NumPy's integers", "integers", "texts"],
)
def test_numbered_clips_of_nw_ucla_need_no_list(tmp_path, capsys, keys):
    (member,) = read_members([ucla_pickle(tmp_path / "s.pkl", keys)])
    assert member.scores.correct == 463
    assert member.scores.ids[:2] == ("a05_s04_e02_v03", "a12_s09_e04_v03")
    assert "NW-UCLA's test clips in CTR-GCN's order" in capsys.readouterr().err


def test_the_list_of_nw_ucla_is_its_test_split(shared):
    with tarfile.open(shared / "data/nw_ucla/all_sqe.tar.xz") as archive:
        stems = {name.rpartition("/")[2].removesuffix(".json") for name in archive.getnames()}
    assert {name for name in stems if name.endswith("_v03")} == set(nw_ucla.ctrgcn_order())


class Evil:
    def __reduce__(self):
        return (os.system, ("echo run > /dev/null",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"clip00": Evil()}, "refused"),
        ({"clip00": 3.0}, "not a pickle of scores"),
        ([], "not a pickle of scores"),
        (dict.fromkeys("abcdefgh", np.zeros(1000, np.float32)), "share their arrays"),
        ({"clip00": np.zeros(3), "clip01": np.zeros(4)}, "do not fit together"),
        ([("clip00", np.zeros(3)), ("clip00", np.zeros(3))], "one clip twice"),
    ],
)
def test_bad_pickles_are_refused(tmp_path, value, message):
    mine = make_run(tmp_path / "a", make_scores(0))
    with pytest.raises(UserError, match=message):
        read_members([mine, dump(tmp_path / "s.pkl", value)])


def members(streams=PAPER_STREAMS, seed=0, prefix="clip"):
    pairs = enumerate(streams, 10 * seed)
    return [Member(s, make_scores(n, prefix=prefix), s, seed) for n, s in pairs]


def test_presets_weigh_as_published():
    six = members()
    assert preset_weights("infogcn", six).tolist() == [1.5, 1.5, 1.5, 1, 1, 1]
    four = members(("joint", "bone", "joint_motion", "bone_motion"))
    assert preset_weights("ctrgcn", four).tolist() == [0.6, 0.6, 0.4, 0.4]
    assert preset_weights("equal", six).tolist() == [1] * 6
    unknown = [Member("x.pkl", make_scores(0))]
    with pytest.raises(UserError, match=r"joint=x\.pkl"):
        preset_weights("ctrgcn", unknown)


def test_softmax_fusion_ignores_a_members_scale():
    weak, strong = members()[:2]
    loud = Member("loud", Scores(weak.scores.ids, weak.scores.labels, 1e3 * weak.scores.logits))
    fused = fuse([loud, strong], [1, 1])
    np.testing.assert_array_equal(fused.predictions, weak.scores.predictions)
    soft = fuse([loud, strong], [1, 3], "softmax")
    assert (soft.predictions != weak.scores.predictions).any()


def test_fitted_weights_trust_the_better_member(tmp_path):
    test = [make_run(tmp_path / f"t{n}", make_scores(n)) for n in (0, 1)]
    held = [make_run(tmp_path / f"h{n}", make_scores(n, 3 * n, "held")) for n in (0, 1)]
    run(*test, "--preset", "fit", "--fit-on", *held, "--json", tmp_path / "o.json")
    weights = [m["weight"] for m in json.loads((tmp_path / "o.json").read_text())["members"]]
    assert weights[0] < 0.5 and weights[1] > 1.5 and sum(weights) == pytest.approx(2)
    with pytest.raises(UserError, match="30 of the scored clips"):
        run(*test, "--preset", "fit", "--fit-on", *test)
    with pytest.raises(UserError, match="go together"):
        run(*test, "--preset", "fit")


def test_fitted_weights_are_of_the_same_streams_in_order():
    scored, held = members()[:2], members(prefix="held")[:2]
    check_held_out(scored, held)
    with pytest.raises(UserError, match="in its place has joint"):
        check_held_out(scored, held[::-1])
    with pytest.raises(UserError, match="1 sets of scores for 2 members"):
        check_held_out(scored, held[:1])


def test_comparison_counts_and_agrees_with_scipys_bootstrap():
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


def test_against_another_ensemble_and_the_wrong_clips(tmp_path, capsys):
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


def test_mistakes_say_what_was_taken_for_what():
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


def test_rows_of_table_7_by_seed():
    both = [*members(), *members(seed=1)]
    rows = {row["row"]: row for row in stream_rows(both, "infogcn")}
    assert len(rows) == 6 + 3 and rows["joint"]["seeds"] == [0, 1]
    six = fuse(members(seed=1), [1.5, 1.5, 1.5, 1, 1, 1])
    assert rows["6 streams"]["correct"][1] == six.correct
    partial = {row["row"] for row in stream_rows(members()[:2])}
    assert partial == {"joint", "bone", "2 streams"}
    with pytest.raises(UserError, match="same stream and seed"):
        stream_rows([*members()[:1], *members()[:1]])


def test_views_are_averaged_as_probabilities_and_not_as_logits():
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


def test_a_member_near_chance_is_named(tmp_path, capsys):
    good, turned = make_scores(1, skill=9), make_scores(2, skill=9)
    logits = np.roll(turned.logits, 1, axis=1)  # its classes are in another order, unsaid
    other = Scores(turned.ids, turned.labels, logits)
    run(make_run(tmp_path / "good", good), make_run(tmp_path / "turned", other))
    (note,) = capsys.readouterr().err.splitlines()
    assert note.startswith("note: turned: 0/30 (0.00%) is no better than chance among 3 classes")


@pytest.mark.parametrize(("correct", "beats"), [(10, False), (15, False), (18, True), (30, True)])
def test_chance_is_a_bound_not_a_share(correct, beats):
    assert beats_chance(correct, 30, 3) is beats
