"""NW-UCLA files: the real set is read, and every kind of bad file is reported."""

import json
import zipfile

import numpy as np
import pytest

from hocslm_jax.data.prepare import nw_ucla

NAME = "a08_s03_e02_v01"


def content(frames=3, **changes):
    joints = np.arange(frames * 60, dtype=float).reshape(frames, 20, 3).tolist()
    return {"file_name": NAME, "skeletons": joints, "label": 7} | changes


def test_a_good_file_becomes_a_clip():
    clip = nw_ucla.parse_clip(NAME, json.dumps(content()).encode())
    assert clip.joints.shape == (3, 1, 20, 3) and clip.joints.dtype == np.float32
    assert clip.joints[1, 0, 0, 2] == 62
    assert (clip.id, clip.label) == (NAME, 6)  # action 8 is the seventh that exists
    assert (clip.subject, clip.camera, clip.setup, clip.replication) == (3, 1, 0, 2)


def test_actions_map_to_labels_in_order():
    labels = [
        nw_ucla.parse_clip(
            f"a{action:02}_s01_e00_v01",
            json.dumps({"skeletons": content()["skeletons"], "label": label + 1}).encode(),
        ).label
        for label, action in enumerate((1, 2, 3, 4, 5, 6, 8, 9, 11, 12))
    ]
    assert labels == list(range(10))


FRAME = [[0.0, 0.0, 0.0]] * 20
NAN, INF = float("nan"), float("inf")
BAD = {
    "empty": (b"", "empty file"),
    "truncated": (json.dumps(content()).encode()[:200], "damaged JSON"),
    "binary": (b"\xff\xfe\x00", "damaged JSON"),
    "deep": (b"[" * 100_000, "damaged JSON"),
    "list": (b"[1]", "not an object"),
    "no skeletons": (json.dumps({"label": 7}).encode(), "no frames"),
    "no frames": (json.dumps(content(skeletons=[])).encode(), "no frames"),
    "19 joints": (json.dumps(content(skeletons=[FRAME[:19]])).encode(), r"shape \(1, 19, 3\)"),
    "2 axes": (json.dumps(content(skeletons=[[[0, 0]] * 20])).encode(), "shape"),
    "ragged": (json.dumps(content(skeletons=[FRAME, FRAME[:5]])).encode(), "unequal shape"),
    "text": (json.dumps(content(skeletons=[[["x", 0, 0]] * 20])).encode(), "not numbers"),
    "nan": (json.dumps(content(skeletons=[[[NAN, 0, 0]] * 20])).encode(), "not finite"),
    "inf": (json.dumps(content(skeletons=[[[0, INF, 0]] * 20])).encode(), "not finite"),
    "overflow": (json.dumps(content(skeletons=[[[0, 1e300, 0]] * 20])).encode(), "not finite"),
    "label": (json.dumps(content(label=8)).encode(), "label is 8, but action 8 is 7"),
    "file_name": (json.dumps(content(file_name="a01")).encode(), "file_name is 'a01'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_refused_with_its_reason(case):
    data, reason = BAD[case]
    with pytest.raises(ValueError, match=reason):
        nw_ucla.parse_clip(NAME, data)


@pytest.mark.parametrize("name", ["clip", "a07_s01_e00_v01", "a01_s01_e00_v04", NAME + "x"])
def test_bad_names_are_refused(name):
    with pytest.raises(ValueError, match="not named"):
        nw_ucla.parse_clip(name, json.dumps(content(file_name=name)).encode())


def test_bad_files_are_reported_and_the_rest_is_sorted(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for folder, name in (("x", NAME), ("x", "a08_s01_e00_v01"), ("y", NAME), ("x", "odd")):
            archive.writestr(f"{folder}/{name}.json", json.dumps(content(file_name=name)))
        archive.writestr(f"__MACOSX/x/._{NAME}.json", b"\0")
    bad = []
    clips = list(nw_ucla.read_clips(tmp_path / "set.zip", lambda *entry: bad.append(entry)))
    assert [clip.id for clip in clips] == ["a08_s01_e00_v01", NAME]
    assert [name for name, _ in bad] == ["x/odd.json", f"y/{NAME}.json"]
    assert "second file" in bad[1][1]


def test_the_real_set_is_complete(shared):
    bad = []
    source = shared / "data/nw_ucla/all_sqe.tar.xz"
    clips = list(nw_ucla.read_clips(source, lambda *entry: bad.append(entry)))
    assert bad == [] and len(clips) == nw_ucla.NUM_CLIPS
    lengths = [len(clip.joints) for clip in clips]
    assert (min(lengths), max(lengths), round(np.mean(lengths), 1)) == (1, 201, 39.4)
    train = [clip.label for clip in clips if clip.camera != 3]
    test = [clip.label for clip in clips if clip.camera == 3]
    assert np.bincount(train).tolist() == [102, 102, 96, 124, 101, 102, 99, 99, 98, 97]
    assert np.bincount(test).tolist() == [48, 50, 45, 49, 47, 47, 43, 43, 47, 45]
    seen = {clip.joints.tobytes() for clip in clips if clip.camera != 3}
    again = [clip.id for clip in clips if clip.camera == 3 and clip.joints.tobytes() in seen]
    assert len(again) == 95 and again == [clip.id for clip in clips if nw_ucla.copied(clip.id)]


def test_class_names_match_the_published_list(shared):
    names = (shared / "data/class_names/nw_ucla.txt").read_text().split("\n")
    assert list(nw_ucla.CLASSES) == [name.strip() for name in names if name.strip()]
