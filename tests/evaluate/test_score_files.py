"""Files of scores: clips matched by id, score pickles, and what is refused."""

import os
import pickle
import tarfile

import numpy as np
import pytest
from scored_runs import CLASSES, COUNT, make_run, make_scores, shuffled

from hocslm_jax.data.prepare import nw_ucla
from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.score_files import read_clip_list, read_members
from hocslm_jax.evaluate.scores import Scores, save_scores


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
def test_different_clips_labels_or_classes_are_refused(tmp_path, what, message):
    runs = [make_run(tmp_path / "a", make_scores(0)), make_run(tmp_path / "b", changed(what))]
    with pytest.raises(UserError, match=message):
        read_members(runs)


def test_repeated_and_missing_members_are_named(tmp_path):
    path = make_run(tmp_path / "a", make_scores(0))
    with pytest.raises(UserError, match="given twice"):
        read_members([path, f"{path}/scores.npz"])
    with pytest.raises(UserError, match="no such file"):
        read_members([path, str(tmp_path / "b")])
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match=r"holds no scores\.npz"):
        read_members([path, str(tmp_path / "c")])
    with pytest.raises(UserError, match="of the stream joint, not bone"):
        read_members([f"bone={path}"])


def test_folder_of_runs_gives_the_paper_streams_in_order(tmp_path):
    for stream in sorted(PAPER_STREAMS):
        make_run(tmp_path / "six" / stream, make_scores(1), stream)
    save_scores(tmp_path / "six" / "scores.npz", make_scores(1))  # of all together
    assert tuple(m.stream for m in read_members([str(tmp_path / "six")])) == PAPER_STREAMS


def test_members_of_one_name_get_distinct_names(tmp_path):
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


def test_pickle_of_numbered_clips_needs_a_clip_list(tmp_path):
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
    with pytest.raises(UserError, match="line 2: 'a' occurs twice"):
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
def test_numbered_nw_ucla_clips_need_no_list(tmp_path, capsys, keys):
    (member,) = read_members([ucla_pickle(tmp_path / "s.pkl", keys)])
    assert member.scores.correct == 463
    assert member.scores.ids[:2] == ("a05_s04_e02_v03", "a12_s09_e04_v03")
    assert "NW-UCLA's test clips in CTR-GCN's order" in capsys.readouterr().err


def test_nw_ucla_list_is_its_test_split(shared):
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
