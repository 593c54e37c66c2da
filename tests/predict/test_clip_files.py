"""Files for prediction: which are found, how they are read, and errors."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from made_clips import clip, skeleton_file

from hocslm_jax.data.prepare import nw_ucla
from hocslm_jax.data.prepare.ntu.bodies import COMPAT, actors
from hocslm_jax.data.prepare.ntu.classes import CLASSES, NTU120
from hocslm_jax.data.prepare.ntu.skeleton import parse_skeleton
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, UCLA20
from hocslm_jax.predict.clip_files import (
    check_clip,
    find_files,
    load_clip,
    read_joints,
    true_class,
)


def test_paths_folders_and_patterns(tmp_path):
    for name in ("b/2.npy", "b/1.json", "b/deep/3.skeleton", "b/._1.json", "b/notes.txt", "a.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "odd[1].npy").touch()

    def found(*arguments):
        return [
            str(p.relative_to(tmp_path)) for p in find_files(str(tmp_path / a) for a in arguments)
        ]

    assert found("b") == ["b/1.json", "b/2.npy", "b/deep/3.skeleton"]
    assert found("a.npy", "**/*.npy", "a.npy") == ["a.npy", "b/2.npy", "odd[1].npy"]
    assert found("odd[1].npy") == ["odd[1].npy"]
    assert found("none.npy", "*.gif", "b/notes.txt") == ["none.npy", "*.gif", "b/notes.txt"]


def test_arrays_with_and_without_a_person_axis(tmp_path):
    joints = clip(people=2)
    np.save(tmp_path / "two.npy", joints.astype(np.float64))
    np.save(tmp_path / "flat.npy", joints[:, 0])
    two = read_joints(tmp_path / "two.npy", UCLA20)
    np.testing.assert_array_equal(two, joints)
    assert two.dtype == np.float32
    np.testing.assert_array_equal(read_joints(tmp_path / "flat.npy", UCLA20), joints[:, :1])


def test_json_of_any_name_and_label(tmp_path):
    joints = clip()
    (tmp_path / "mine.json").write_text(json.dumps({"skeletons": joints[:, 0].tolist()}))
    np.testing.assert_array_equal(read_joints(tmp_path / "mine.json", UCLA20), joints)


def test_skeleton_files_are_centred_on_the_first_actor(tmp_path):
    body = clip(4, 1, 25)
    (tmp_path / "any.skeleton").write_text(skeleton_file(body))
    joints = read_joints(tmp_path / "any.skeleton", NTU25)
    np.testing.assert_allclose(joints, body - body[0, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.npy", None, "no such file"),
        ("clip.gif", b"", r"not one of .*\.npy"),
        ("clip.npy", b"text", "not a readable .npy"),
        ("clip.npy", clip(joints=25), "25 joints, .* ucla20 20"),
        ("clip.npy", 0 * clip(), "it shows nobody"),
        ("clip.npy", 1e8 * clip(), "cannot be metres"),
        ("clip.json", b"{", "damaged JSON"),
        ("clip.json", b'{"skeletons": [[[0, 0, 1]]]}', "shape"),
        ("clip.skeleton", b"1\n1\n", "line"),
        ("clip.skeleton", skeleton_file(clip(4, 1, 25)).encode(), "25 joints, .* ucla20 20"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, reason):
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    elif content is not None:
        np.save(tmp_path / name, content)
    with pytest.raises(ValueError, match=reason):
        read_joints(tmp_path / name, UCLA20)


def test_a_table_of_another_layout_is_mapped_to_the_models(tmp_path):
    names = [name.replace(" ", "_") for name in NTU25.joints]
    joints = np.random.default_rng(0).uniform(-0.8, 0.8, (4, 25, 3)).astype(np.float32)
    rows = [",".join(f"{name}_{axis}" for name in names for axis in "xyz")]
    rows += [",".join(map(str, frame.ravel())) for frame in joints]
    (tmp_path / "clip.csv").write_text("\n".join(rows))
    found = read_joints(tmp_path / "clip.csv", UCLA20)
    assert found.shape == (4, 1, 20, 3)
    here, there = UCLA20.joints.index("left elbow"), NTU25.joints.index("left elbow")
    np.testing.assert_allclose(found[:, 0, here], joints[:, there], rtol=1e-5)
    assert load_clip(tmp_path / "clip.csv").shape == (4, 1, 25, 3)  # no model: its own joints


def test_a_folder_without_clips(tmp_path):
    with pytest.raises(ValueError, match=r"no .*\.npy.* file in this folder"):
        read_joints(tmp_path, UCLA20)


@pytest.mark.parametrize(
    "joints",
    [np.zeros((0, 1, 20, 3)), np.ones((3, 20)), np.full((2, 20, 3), np.nan), np.array("text")],
    ids=["empty", "flat", "nan", "text"],
)
def test_arrays_that_are_no_clips(joints):
    with pytest.raises(ValueError):
        check_clip(joints, UCLA20)


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("S001C001P001R001A001.skeleton", CLASSES["ntu60"], "drink water"),
        ("S018C001P008R001A061.npy", CLASSES["ntu120"], NTU120[60]),
        ("S018C001P008R001A061.npy", CLASSES["ntu60"], None),  # a class it does not have
        ("S001C001P001R001A001.skeleton", ("drink", "phone call"), None),  # of another dataset
        ("a08_s01_e00_v01.json", nw_ucla.CLASSES, "donning"),
        ("a07_s01_e00_v01.json", nw_ucla.CLASSES, None),
        ("clip.npy", nw_ucla.CLASSES, None),
        ("clip.npy", CLASSES["ntu60"], None),
    ],
)
def test_true_class_is_read_only_from_names_of_the_dataset(name, classes, expected):
    assert true_class(Path(name), classes) == expected


def test_real_files(shared, tmp_path):
    for source, name, graph in (
        ("ntu_sample/skeletons.tar.xz", "S001C001P001R001A001.skeleton", NTU25),
        ("nw_ucla/all_sqe.tar.xz", "a01_s01_e00_v01.json", UCLA20),
    ):
        with tarfile.open(shared / "data" / source) as archive:
            member = next(entry for entry in archive if entry.name.endswith(name))
            (tmp_path / name).write_bytes(archive.extractfile(member).read())
        joints = read_joints(tmp_path / name, graph, COMPAT["ntu60"] if graph == NTU25 else None)
        height = np.ptp(joints[..., 1], axis=2)
        assert joints.shape[1:] == (1, graph.num_joints, 3) and len(joints) > 10
        assert 0.5 < np.median(height) < 2.5  # metres


def two_people(frames=30):
    """The second moves more, so he becomes the first; a third is seen too shortly to be one."""
    rng = np.random.default_rng(2)
    people = rng.normal(size=(frames, 3, 25, 3)).astype(np.float32) * [[[[0.2]], [[0.5]], [[1]]]]
    people += np.array([0.1, -0.3, 3.0])
    return [list(frame[: 2 + (number < 5)]) for number, frame in enumerate(people.astype("f4"))]


@pytest.mark.parametrize("compat", COMPAT.values(), ids=COMPAT)
@pytest.mark.parametrize("bodies", [clip(30, 1, 25) + 2, two_people()], ids=["one", "several"])
def test_an_array_goes_the_way_of_the_ntu_file(tmp_path, compat, bodies):
    (tmp_path / "a.skeleton").write_text(skeleton_file(bodies))
    wanted = read_joints(tmp_path / "a.skeleton", NTU25, compat)
    raw = load_clip(tmp_path / "a.skeleton")
    np.save(tmp_path / "raw.npy", np.insert(raw, [0, 7], 0, axis=0))  # two frames without anybody
    np.testing.assert_array_equal(read_joints(tmp_path / "raw.npy", NTU25, compat), wanted)
    np.testing.assert_array_equal(check_clip(wanted, NTU25, compat), wanted)  # centred already
    np.testing.assert_array_equal(check_clip(raw, NTU25), raw)  # of a model of another dataset


def test_real_ntu_clips_as_arrays(shared, tmp_path):
    seen, path = 0, tmp_path / "a.skeleton"
    with tarfile.open(shared / "data/ntu_sample/skeletons.tar.xz") as archive:
        for member in archive:
            if member.name.endswith(".skeleton") and seen < 30:
                path.write_bytes(archive.extractfile(member).read())
                try:
                    wanted = actors(parse_skeleton(path.read_bytes()))
                except ValueError:
                    continue
                found = check_clip(load_clip(path), NTU25, COMPAT["ntu60"])
                np.testing.assert_array_equal(found, wanted, err_msg=member.name)
                seen += 1
    assert seen == 30


def test_a_clip_is_loaded_without_a_model(tmp_path):
    joints = clip(joints=7)
    np.save(tmp_path / "own.npy", joints[:, 0])
    np.testing.assert_array_equal(load_clip(tmp_path / "own.npy"), joints)
    for name, content in (("none.npy", None), ("a.gif", b""), ("b.npy", b"text")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_clip(str(tmp_path / name))
    frame = [clip(1, 1, 25)[0, 0]]
    many = [frame * (row % 7 == 0) or [frame[0] + row] for row in range(700)]
    lines = skeleton_file(many).splitlines()
    for row, line in enumerate(lines):  # every frame has another body
        if line.startswith("72057594037920 "):
            lines[row] = line.replace("72057594037920", str(row), 1)
    (tmp_path / "bomb.skeleton").write_text("\n".join(lines))
    with pytest.raises(UserError, match="700 bodies in 700 frames"):
        load_clip(tmp_path / "bomb.skeleton")


@pytest.mark.parametrize(
    ("joints", "reason"),
    [
        (clip(30, 1)[None, :, 0], "1 frames of 30 persons"),
        (np.stack([clip(30)[:, 0], clip(30)[:, 0] + 1]), "2 frames of 30 persons"),
        (np.where(np.arange(60).reshape(1, 1, 20, 3) == 7, np.inf, 1), "1 coordinates"),
    ],
)
def test_arrays_that_cannot_be_meant(joints, reason):
    with pytest.raises(ValueError, match=reason):
        check_clip(joints, UCLA20)


def npy(header: bytes, version=b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1, 20, ",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (10**100, 1, 20, 3), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1, 20, 3), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1, 20, 3), }",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (True, 1, 20, 3), }",
        b"{'descr': '<f99999999999999', 'fortran_order': False, 'shape': (1, 1, 20, 3), }",
        b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1, 1, 20, 3), }",
        b"(" * 60_000,
        b"'\\",
        b"\xff\xfe\x00",
        b"",
    ],
)
@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x09\x00"])
def test_headers_that_break_numpys_parser(tmp_path, header, version):
    (tmp_path / "clip.npy").write_bytes(npy(header, version) + bytes(240))
    with pytest.raises(ValueError, match=r"npy|clip"):
        read_joints(tmp_path / "clip.npy", UCLA20)


def test_pipes_and_odd_names_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "clip.npy")
    for name in ("clip.npy", "x" * 300 + ".npy", "~nobody/x.npy"):
        (path,) = find_files([str(tmp_path / name)])
        with pytest.raises(ValueError):
            read_joints(path, UCLA20)
