"""Own datasets: from a table and .npy files to a store; bad rows are reported with their line."""

import json
import os
import re

import numpy as np
import pytest
import scipy.io

from hocslm_jax.__main__ import main
from hocslm_jax.data.prepare import folder
from hocslm_jax.data.prepare.folder import in_order
from hocslm_jax.data.prepare.readers.clips import as_clip
from hocslm_jax.data.store import open_store
from hocslm_jax.graph import NTU25, resolve_graph

GRAPH = {"name": "stick", "joints": ["hip", "head", "foot"], "edges": [[1, 0], [2, 0]], "root": 0}
COCO17 = resolve_graph("coco17")
HEADER = "id,file,label,split,subject,caption\n"
ROWS = "x,x.npy,wave,train,4,A person waves.\ny,sub/y.npy,bow,test,5,\n"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "clips.csv").write_text(HEADER + ROWS)
    (folder / "graph.json").write_text(json.dumps(GRAPH))
    np.save(folder / "x.npy", np.arange(18.0).reshape(2, 3, 3))
    np.save(folder / "sub/y.npy", np.ones((4, 2, 3, 3), np.float32))
    return folder


def run(source, *more):
    arguments = ["--name", "mine", "--source", source, "--data-dir", source.parent / "data", *more]
    return main(["prepare", "folder", *map(str, arguments)])


def test_a_folder_becomes_a_store(source, capsys):
    assert run(source) == 0
    store = open_store("mine", source.parent / "data")
    assert store.ids == ("x", "y") and store.classes == ("bow", "wave")
    assert store.labels.tolist() == [1, 0] and store.columns["subject"].tolist() == [4, 5]
    assert store.graph.joints == ("hip", "head", "foot") and store.num_persons == 2
    np.testing.assert_array_equal(store.joints(0)[:, 0], np.arange(18.0).reshape(2, 3, 3))
    assert store.rows("split", "test").tolist() == [1]
    captions = (source.parent / "data/mine/captions.jsonl").read_text().splitlines()
    assert [json.loads(line)["caption"] for line in captions] == ["A person waves."]


def test_other_formats_are_mapped_to_the_graph(source, capsys):
    """MediaPipe's landmarks and a table with named columns, in a folder with clips of COCO-17."""
    body = np.linspace([0.0, 0.9, 0.0], [0.4, -0.8, 0.1], 33)  # y points down, as MediaPipe has it
    points = [dict(zip("xyz", map(float, point), strict=True)) for point in body]
    frames = [{"pose_world_landmarks": [{**p, "visibility": 0.9} for p in points]}] * 4
    (source / "x.json").write_text(json.dumps(frames))
    names = [name.replace(" ", "_") for name in COCO17.joints]
    header = ",".join(f"{name}_{axis}" for name in names for axis in "xyz")
    row = ",".join(map(str, np.linspace(0.1, 1.7, 51)))
    (source / "sub/y.csv").write_text("\n".join([header, row, row, row]))
    (source / "clips.csv").write_text(
        HEADER + ROWS.replace("x.npy", "x.json").replace("y.npy", "y.csv")
    )
    assert run(source, "--graph", "coco17") == 0, capsys.readouterr().err
    store = open_store("mine", source.parent / "data")
    assert store.graph.joints == COCO17.joints and store.joints(1).shape == (3, 1, 17, 3)
    np.testing.assert_allclose(store.joints(1)[0, 0].ravel(), np.linspace(0.1, 1.7, 51), rtol=1e-6)
    nose = COCO17.joints.index("nose")
    assert store.joints(0).shape == (4, 1, 17, 3)
    assert abs(store.joints(0)[0, 0, nose, 1]) == pytest.approx(0.9)


def test_a_format_without_the_graphs_joints_is_a_bad_row(source, capsys):
    (source / "x.json").write_text('{"what": 1}')
    (source / "clips.csv").write_text(HEADER + ROWS.replace("x.npy", "x.json"))
    assert run(source) == 2
    assert "no known format" in (source.parent / "data/mine/bad_files.json").read_text()


def test_a_folder_of_frames_is_a_clip(source, capsys):
    """As OpenPose writes a video: a JSON file for each frame."""
    for number in range(4):
        points = np.random.default_rng(number).uniform(50, 400, (25, 3)) * [1, 1, 0.002]
        people = [{"person_id": [-1], "pose_keypoints_2d": points.ravel().tolist()}]
        frame = {"version": 1.3, "people": people if number else []}
        (source / f"sub/y_{number:012d}_keypoints.json").write_text(json.dumps(frame))
    (source / "clips.csv").write_text("id,file,label,split\ny,sub,bow,test\n")
    assert run(source, "--graph", "openpose25") == 0, capsys.readouterr().err
    store = open_store("mine", source.parent / "data")
    assert store.joints(0).shape == (4, 1, 25, 3) and store.channels == "xyc"
    (source / "clips.csv").write_text("id,file,label,split\ny,.,bow,test\n")
    assert run(source, "--graph", "openpose25", "--force") == 2
    assert "not a plain file" in capsys.readouterr().err


def test_suffixes_in_capitals(source):
    (source / "x.npy").rename(source / "x.NPY")
    (source / "clips.csv").write_text(HEADER + ROWS.replace("x.npy", "x.NPY"))
    assert run(source) == 0
    assert open_store("mine", source.parent / "data").joints(0).shape == (2, 1, 3, 3)


@pytest.mark.parametrize("suffix", [".mat", ".npz", ".npy"])
def test_arrays_are_read_in_the_usual_order_with_the_graphs_joints(source, suffix):
    """Frames first, without --axes; from all three kinds of files alike."""
    joints = np.random.default_rng(0).normal(size=(30, 20, 3)).astype(np.float32)
    if suffix == ".mat":
        scipy.io.savemat(source / "x.mat", {"skeleton": joints})
    else:
        (np.save if suffix == ".npy" else np.savez)(source / f"x{suffix}", joints)
    (source / "clips.csv").write_text(f"id,file,label,split\nx,x{suffix},bow,train\n")
    assert run(source, "--graph", "ucla20") == 0
    store = open_store("mine", source.parent / "data")
    np.testing.assert_array_equal(store.joints(0)[:, 0], joints)


def test_an_archive_is_no_folder(source, capsys):
    path = source.parent / "clips.zip"
    path.write_bytes(b"PK")
    assert run(path) == 2
    assert "it is a file; unpack archives" in capsys.readouterr().err


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


WALK = np.random.default_rng(0).normal(size=(1, 3, 3)) + np.arange(12)[:, None, None] / 30
HERE = np.random.default_rng(1).normal(size=(30, 1, 3))

BAD_ARRAYS = {
    "shape": (np.ones((2, 4, 3)), r"shape \(2, 1, 4, 3\), expected"),
    "two axes": (np.ones((2, 3)), "shape"),
    "empty": (np.ones((0, 3, 3)), "no frames"),
    "overflow": (np.full((1, 3, 3), 1e300), "not finite"),
    "far": (np.where(np.arange(18).reshape(2, 3, 3) == 16, 1e30, 1), r"1 coord.*\[1, 0, 2, 1\]"),
    "a body of frames": (WALK[None], "1 frames of 12 persons"),
    "persons first": (np.stack([WALK, WALK + 1]), "2 frames of 12 persons"),
    "many clips": (np.tile(WALK, (30, 1, 1, 1)) + HERE[:, None], "30 frames of 12 persons"),
    "pickle": (np.array([Payload()], dtype=object), "not a readable .npy"),
    "complex": (np.ones((1, 3, 3), complex), "not a .npy file of numbers"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(source, capsys, case):
    array, reason = BAD_ARRAYS[case]
    np.save(source / "x.npy", array, allow_pickle=True)
    assert run(source) == 2
    (bad,) = json.loads((source.parent / "data/mine/bad_files.json").read_text())
    assert bad["file"] == "clips.csv:2 (x)"
    assert re.search(reason, bad["reason"])


@pytest.mark.parametrize("value", [np.nan, 0, -1])
def test_empty_clips_are_reported_and_left_out(source, capsys, value):
    np.save(source / "x.npy", np.full((2, 3, 3), value))
    assert run(source, "--missing", "-1") == 0
    said = capsys.readouterr()
    assert "left out clips.csv:2 (x): it shows nobody" in said.err and "1 of 2 clips" in said.out
    assert open_store("mine", source.parent / "data").ids == ("y",)
    (noted,) = json.loads((source.parent / "data/mine/bad_files.json").read_text())
    assert noted["empty"]


BAD_ROWS = {
    "z,z.npy,wave,train,1,": "no such file",
    "z,x.npy,wave,dev,1,": "split is 'dev'",
    "z,x.npy,,train,1,": "no label",
    ",x.npy,wave,train,1,": "no id",
    "x,x.npy,wave,train,1,": "second row of this id",
    "z,x.npy,wave,train,one,": "subject is 'one'",
    "z,../outside.npy,wave,train,1,": "outside the folder",
    "z,clips.csv,wave,train,1,": "no columns",
    "z,sub,wave,train,1,": "not a plain file: ",
    "z,sub\\y.npy,wave,train,1,": "its file 'sub/y.npy' is that of 'y' too",
    "z,pipe.npy,wave,train,1,": "not a plain file: ",
    "z,none\\z.npy,wave,train,1,": "no such file: ",
}


@pytest.mark.parametrize("row", BAD_ROWS)
def test_bad_rows(source, capsys, row):
    np.save(source.parent / "outside.npy", np.ones((1, 3, 3)))
    os.mkfifo(source / "pipe.npy")
    (source / "clips.csv").write_text(HEADER + ROWS + row + "\n")
    assert run(source) == 2
    err = capsys.readouterr().err
    assert f"bad file clips.csv:4 ({row.split(',')[0]}): " in err and BAD_ROWS[row] in err
    assert run(source, "--allow-bad") == 0
    assert "2 of 3 clips" in capsys.readouterr().out


def test_npy_header_that_claims_a_huge_array(source, capsys):
    data = bytearray((source / "x.npy").read_bytes())
    old, new = b"(2, 3, 3), }", b"(2222222222222, 3, 3), }"
    position = data.index(old)
    data[position : position + len(new)] = new
    (source / "x.npy").write_bytes(data)
    assert run(source) == 2
    assert "not a readable .npy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("clips.csv", "id,file\nx,x.npy\n", "lacks the columns label, split"),
        ("clips.csv", HEADER, "has no rows"),
        ("clips.csv", b"id,\xff", "is not UTF-8 text: byte 0x"),
        ("clips.csv", None, "no such file"),
        ("graph.json", None, "write one or pass --graph"),
        ("graph.json", "{", "is not JSON"),
        ("graph.json", "[]", "must hold an object"),
        ("graph.json", "[" * 100_000, "is not JSON"),
        ("graph.json", json.dumps(GRAPH | {"joints": ["j"] * 100_000}), "at most 1000 names"),
        ("clips.csv", "Name;File\nx;x.npy\n", "it has 'Name', 'File'"),
        ("graph.json", json.dumps(GRAPH | {"edges": [[1, 0]]}), "stick"),
    ],
)
def test_unusable_table_or_graph(source, capsys, name, text, message):
    (source / name).unlink()
    if text is not None:
        (source / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert run(source) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


WAYS = {
    "blanks": lambda text: text.replace(",", " , "),
    "capitals": lambda text: text.replace("id,file,label", "ID,File,LABEL"),
    "semicolons": lambda text: text.replace(",", ";"),
    "tabs": lambda text: text.replace(",", "\t"),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "a mark": lambda text: "\ufeff" + text,
    "empty lines": lambda text: "\n" + text.replace("\n", "\n\n"),
    "Windows paths": lambda text: text.replace("sub/y.npy", "sub\\y.npy"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_tables_as_spreadsheets_write_them(source, way, encoding):
    (source / "clips.csv").write_bytes(WAYS[way](HEADER + ROWS).encode(encoding))
    (source / "graph.json").write_text("\ufeff" + (source / "graph.json").read_text())
    rows = folder.recipe("mine", source, None, lambda *bad: pytest.fail(str(bad)))
    assert [clip.id for shard in rows.shards for clip in shard()] == ["x", "y"]


def test_a_built_in_graph(source, capsys):
    (source / "graph.json").unlink()
    for name in ("x.npy", "sub/y.npy"):
        np.save(source / name, np.ones((2, 25, 3)))
    assert run(source, "--graph", "ntu25") == 0
    assert open_store("mine", source.parent / "data").graph == NTU25


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "1"], ("1", "9", "10")),
        (["2.5", "-1", "02", "x", "10"], ("-1", "02", "2.5", "10", "x")),
        (["wave", "Sit", "wave"], ("Sit", "wave")),
    ],
)
def test_classes_that_are_numbers_go_by_value(labels, classes):
    assert in_order(labels) == classes


@pytest.mark.parametrize(
    ("text", "message"),
    [("wave\nwave\n", "names the class 'wave' twice"), ("\n", "contains no class")],
)
def test_unusable_list_of_classes(source, capsys, text, message):
    (source / "classes.txt").write_text(text)
    assert run(source) == 2
    assert message in capsys.readouterr().err


def test_a_label_that_the_list_of_classes_lacks(source, capsys):
    (source / "classes.txt").write_text("sit\n")
    assert run(source) == 2
    assert "label 'wave' is not in classes.txt" in capsys.readouterr().err


def test_absent_persons_are_dropped():
    clip = np.stack([np.zeros_like(WALK), WALK, np.zeros_like(WALK)], axis=1)
    np.testing.assert_array_equal(as_clip(clip, 3), WALK[:, None].astype(np.float32))
