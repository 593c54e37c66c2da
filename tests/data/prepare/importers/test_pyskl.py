"""pyskl's pickles: clips, metadata and protocols; a bad annotation is skipped and reported."""

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutated import EDIT, mutated

from hocslm_jax.data.prepare.importers import annotations, pyskl
from hocslm_jax.data.prepare.index import make_index
from hocslm_jax.data.prepare.writer import write_records
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, Graph

IDS = ("S001C001P001R001A001", "S001C002P003R002A050", "S002C003P008R001A060")


def keypoint(frames=5, persons=1, seed=0, dtype=np.float32):
    """[M, T, 25, 3], in camera coordinates: some 3 m away."""
    values = np.random.default_rng(seed).normal(size=(persons, frames, 25, 3))
    return (values + np.array([0, 0, 3])).astype(dtype)


def annotation(key, **changes):
    joints = keypoint(seed=int(key[-1]), persons=1 + (key[-3:] == "050"))
    content = {"frame_dir": key, "label": int(key[-3:]) - 1, "keypoint": joints, "total_frames": 5}
    return content | changes


def content(ids=IDS):
    """X-Sub trains on persons 1 and 8, X-View on cameras 2 and 3."""
    return {
        "split": {
            "xsub_train": [i for i in ids if "P003" not in i],
            "xsub_val": [i for i in ids if "P003" in i],
            "xview_train": [i for i in ids if "C001" not in i],
            "xview_val": [i for i in ids if "C001" in i],
        },
        "annotations": [annotation(key) for key in ids],
    }


def read(path, what, dataset="ntu60", protocol=4, **options):
    path.write_bytes(what if isinstance(what, bytes) else pickle.dumps(what, protocol))
    bad = []
    recipe = pyskl.recipe(dataset, path, lambda *entry: bad.append(entry), **options)
    return [clip for shard in recipe.shards for clip in shard()], bad, recipe


def read_own(path, what, graph=NTU25, classes=()):
    path.write_bytes(pickle.dumps(what, 4))
    bad = []
    recipe = pyskl.own_recipe("own", path, lambda *entry: bad.append(entry), graph, classes)
    return [clip for shard in recipe.shards for clip in shard()], bad, recipe


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pkl"


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_clips_are_read(path, protocol, dtype):
    what = content()
    for item in what["annotations"]:
        item["keypoint"] = item["keypoint"].astype(dtype)
    clips, bad, recipe = read(path, what, protocol=protocol, centre=False)
    assert [clip.id for clip in clips] == list(IDS) and not bad and recipe.expected == 3
    assert [clip.label for clip in clips] == [0, 49, 59]
    for clip, item in zip(clips, what["annotations"], strict=True):
        assert clip.joints.dtype == np.float32
        np.testing.assert_array_equal(
            clip.joints, item["keypoint"].astype(np.float32).swapaxes(0, 1)
        )
    clip = clips[1]
    assert (clip.setup, clip.camera, clip.subject, clip.replication) == (1, 2, 3, 2)


def test_first_mid_spine_becomes_the_origin(path):
    what = content()
    what["annotations"][1]["keypoint"][1, 2:] = 0  # the second person leaves
    for clip, item in zip(read(path, what)[0], what["annotations"], strict=True):
        joints = item["keypoint"].swapaxes(0, 1)
        expected = joints - joints[0, 0, 1]
        expected[~joints.any(axis=(2, 3))] = 0
        np.testing.assert_allclose(clip.joints, expected, atol=1e-6)
        assert not clip.joints[0, 0, 1].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_real_clips_are_read_unchanged(path, shared, dtype):
    golden = np.load(shared / "golden/ntu_preprocessed.npz")
    ids = ["S017C003P020R002A059", *(i for i in golden.files if i.endswith(("A050", "A023")))][:40]
    rows = {key: golden[key].reshape(len(golden[key]), -1, 25, 3).astype(dtype) for key in ids}
    annotations = [
        annotation(key, keypoint=rows[key].swapaxes(0, 1), total_frames=len(rows[key]))
        for key in ids
    ]
    clips, bad, _ = read(path, {"split": {}, "annotations": annotations})
    assert {clip.joints.shape[1] for clip in clips} == {1, 2} and not bad
    for clip in clips:  # translated already, so that nothing is left to move
        np.testing.assert_array_equal(clip.joints, rows[clip.id].astype(np.float32))


@pytest.mark.parametrize("splits", [True, False])
def test_protocols_are_those_of_the_dataset(path, splits, tmp_path):
    what = content()
    if not splits:
        del what["split"]
    _, _, recipe = read(path, what)
    index = make_index(recipe, write_records("ntu60", (25, 3), recipe.shards, tmp_path / "data"))
    assert index["protocols"] == {
        "xsub": {"train": [0, 2], "test": [1]},
        "xview": {"train": [1, 2], "test": [0]},
    }
    assert index["classes"][49] == "punching/slapping other person"
    assert index["columns"]["subject"] == [1, 3, 8]


def columns(recipe):
    clips = [clip for shard in recipe.shards for clip in shard()]
    keys = ("id", "label", "subject", "camera", "setup")
    return {key: np.asarray([getattr(clip, key) for clip in clips]) for key in keys}


def test_further_splits_become_protocols(path):
    what = content()
    what["split"] |= {"few_train": [IDS[2]], "few_val": [IDS[0], "absent"], "note": "x"}
    _, _, recipe = read(path, what)
    found = recipe.protocols(columns(recipe))
    assert set(found) == {"xsub", "xview", "few"}
    assert {side: rows.tolist() for side, rows in found["few"].items()} == {
        "train": [2],
        "test": [0],
    }


def test_own_ids_need_a_split(path):
    what = {
        "split": {"mine_train": ["a"], "mine_val": ["b"], "mine_test": ["c"]},
        "annotations": [annotation(IDS[0], frame_dir=key, label=7) for key in "abc"],
    }
    with pytest.raises(UserError, match=r"a is not an id of ntu60.* prepare folder .*--from pyskl"):
        read(path, what)
    clips, _, recipe = read_own(path, what)
    assert {clip.setup for clip in clips} == {0} and recipe.classes == tuple("01234567")
    mine = recipe.protocols(columns(recipe))["mine"]
    assert [mine[side].tolist() for side in ("train", "val", "test")] == [[0], [1], [2]]
    del what["split"]
    with pytest.raises(UserError, match="it has no splits"):
        read_own(path, what)


def test_pickles_of_any_dataset(path):
    clip = keypoint(persons=3)[:, :, :3]
    clip[1] = 0
    items = [
        {"frame_dir": key, "label": label, "keypoint": clip + label, "total_frames": 5}
        for label, key in enumerate(("S001C001P001R001A009", "b"))
    ]
    items[0]["keypoint"], items[1]["keypoint"] = clip + 1, clip
    what = {"split": {"train": [items[0]["frame_dir"]], "val": ["b"]}, "annotations": items}
    graph = Graph("three", ("a", "b", "c"), ((1, 0), (2, 0)), 0)
    clips, bad, recipe = read_own(path, what, graph, ["sit", "stand"])
    assert not bad and recipe.classes == ("sit", "stand") and recipe.graph == graph
    assert [clip.joints.shape for clip in clips] == [(5, 3, 3, 3), (5, 2, 3, 3)]
    np.testing.assert_array_equal(clips[1].joints, clip[[0, 2]].swapaxes(0, 1))
    found = recipe.protocols(columns(recipe))["split"]
    assert {side: rows.tolist() for side, rows in found.items()} == {"train": [0], "test": [1]}
    _, bad, _ = read_own(path, what, graph, ["sit"])
    assert bad == [("a.pkl: annotations[1]", "label 1, but 1 classes")]


def test_annotations_that_share_an_array_are_refused(path):
    shared = keypoint(persons=1, frames=300)
    items = [annotation(IDS[0], frame_dir=str(n), keypoint=shared) for n in range(3)]
    with pytest.raises(UserError, match="share their arrays"):
        read_own(path, {"split": {"train": ["0"]}, "annotations": items})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xsub_train": [IDS[1]], "xsub_val": []}, f"its train split of xsub holds {IDS[1]}"),
        ({"xsub_val": [IDS[0]], "xsub_train": []}, f"its test split of xsub holds {IDS[0]}"),
        ({"few_train": [IDS[0]], "few_val": [IDS[0]]}, "the splits of few share clips"),
        ({"xsub_train": [1]}, "split 'xsub_train' is not a list of ids"),
    ],
)
def test_contradicting_splits_are_refused(path, change, message):
    what = content()
    what["split"] |= change
    with pytest.raises(UserError, match=message):
        read(path, what)


BAD = {
    "no dict": (None, "no usable frame_dir"),
    "no id": ({"frame_dir": None}, "no usable frame_dir"),
    "odd id": ({"frame_dir": "../x\ny"}, "no usable frame_dir"),
    "a second one": ({"frame_dir": IDS[0], "label": 0}, "a second annotation of S001C001P001"),
    "label": ({"label": 3}, "label 3, but S001C002P003R002A050 is action 50"),
    "label of text": ({"label": "49"}, "no usable label"),
    "no keypoint": ({"keypoint": [1, 2]}, "not an array of floats"),
    "integers": ({"keypoint": np.ones((1, 5, 25, 3), int)}, "not an array of floats"),
    "joints": ({"keypoint": keypoint()[:, :, :24]}, r"shape \(1, 5, 24, 3\)"),
    "axes": ({"keypoint": keypoint()[0]}, r"shape \(5, 25, 3\)"),
    "frames": ({"total_frames": 6}, "5 frames, total_frames is different"),
    "three persons": ({"keypoint": keypoint(persons=3)}, "3 persons, expected 1 to 2"),
    "nobody": ({"keypoint": keypoint(persons=0)}, "0 persons, expected 1 to 2"),
    "no frames": ({"keypoint": keypoint(0), "total_frames": 0}, "no frames"),
    "zeros": ({"keypoint": 0 * keypoint()}, "nothing but zeros"),
    "nan": ({"keypoint": keypoint() * np.float32("nan")}, "not finite"),
    "overflow": ({"keypoint": keypoint(dtype=np.float64) * 1e300}, "not finite"),
    "far away": ({"keypoint": np.sign(keypoint()) * np.float32(3e38)}, "beyond all bounds"),
    "no first person": ({"keypoint": keypoint(persons=2) * [[[[0]]], [[[1]]]]}, "actor 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_annotations_are_reported_and_skipped(path, case):
    changes, reason = BAD[case]
    what = content()
    what["annotations"][1] = changes and what["annotations"][1] | changes
    clips, bad, _ = read(path, what)
    assert [clip.id for clip in clips] == [IDS[0], IDS[2]]
    ((where, found),) = bad
    assert where.startswith("a.pkl: annotations[1]")
    assert re.search(reason, found)


def test_too_large_clips_are_skipped(path, monkeypatch):
    monkeypatch.setattr(annotations, "MAX_CLIP_BYTES", 5 * 75 * 4)
    what = content()
    what["annotations"][0]["keypoint"] = keypoint(6)
    clips, ((_, reason), _), _ = read(path, what)  # the second has two persons
    assert [clip.id for clip in clips] == [IDS[2]] and "too many for a clip" in reason


WRONG = {
    "a list": ([1], "no list of annotations"),
    "no annotations": ({"split": {}}, "no list of annotations"),
    "none at all": ({"annotations": []}, "no list of annotations"),
    "2D": ({"annotations": [{"keypoint": np.ones((1, 5, 17, 2), np.float16)}]}, "17 joints in 2D"),
    "2D NTU": ({"annotations": [{"keypoint": np.ones((1, 5, 25, 2))}]}, "key points are in 2D"),
    "NTU120": (content(("S018C001P008R001A061",)), "is not a clip of ntu60"),
    "subject": (content(("S001C001P041R001A001",)), "subject 41 belongs to neither"),
    "a call": ({"annotations": [np.add]}, "it names 'numpy"),
    "objects": ({"annotations": [{"keypoint": np.array([{}], object)}]}, "type 'O8'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files(path, case):
    what, message = WRONG[case]
    what = copy.deepcopy(what)
    if case == "subject":
        what["split"] = {}
    with pytest.raises(UserError, match=message):
        read(path, what)


def test_absent_file_and_other_dataset(path):
    with pytest.raises(UserError, match="no such"):
        pyskl.recipe("ntu60", path, print)
    with pytest.raises(UserError, match="ntu60 and ntu120 only"):
        read(path, content(), "nw_ucla")


def test_file_without_usable_annotations(path):
    what = content()
    for item in what["annotations"]:
        item["label"] = None
    clips, bad, recipe = read(path, what)
    assert not clips and len(bad) == 3 and recipe.shards


SEEDS = [pickle.dumps(content(), protocol) for protocol in (2, 4, 5)]


@settings(max_examples=150, deadline=None)
@given(seed=st.sampled_from(SEEDS), edits=st.lists(EDIT, min_size=1, max_size=4))
def test_mutated_pyskl_files_raise_only_user_errors(tmp_path_factory, seed, edits):
    path = tmp_path_factory.getbasetemp() / "fuzz.pkl"
    try:
        clips, bad, recipe = read(path, mutated(seed, edits))
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert len(clips) + len(bad) == recipe.expected
    for clip in clips:
        assert clip.joints.shape[2:] == (25, 3) and np.isfinite(clip.joints).all()
        assert 0 <= clip.label < 60
