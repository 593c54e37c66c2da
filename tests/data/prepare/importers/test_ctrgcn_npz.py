"""CTR-GCN's .npz files: clips are read row by row; a wrong file is refused in one line."""

import functools
import io
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutated import EDIT, mutated

from hocslm_jax.data.prepare.importers import ctrgcn_npz
from hocslm_jax.data.prepare.index import make_index
from hocslm_jax.data.prepare.writer import write_records
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, UCLA20

FRAMES = 40


def body(length, seed=0, persons=1):
    return np.random.default_rng(seed).normal(size=(length, 75 * persons)).astype(np.float32)


def padded(clips, second="zeros"):
    """Rows T x 75 or T x 150 as the reference's [N, FRAMES, 150]."""
    x = np.zeros((len(clips), FRAMES, 150), np.float32)
    for row, clip in enumerate(clips):
        x[row, : len(clip), : clip.shape[1]] = clip
        if clip.shape[1] == 75 and second == "copy":
            x[row, : len(clip), 75:] = clip
    return x


def one_hot(labels, classes=60):
    return np.eye(classes)[np.array(labels, int) % classes]


def arrays(train, test, classes=60, second="zeros"):
    return {
        "x_train": padded(train, second),
        "y_train": one_hot(range(len(train)), classes),
        "x_test": padded(test, second),
        "y_test": one_hot(range(len(test)), classes),
    }


TRAIN, TEST = [body(9), body(FRAMES, 1, persons=2)], [body(1, 2)]


def write(path, content, save=np.savez):
    save(path, **content)
    return path


def read(path, dataset="ntu60", **options):
    bad = []
    recipe = ctrgcn_npz.recipe(dataset, path, lambda *entry: bad.append(entry), **options)
    return [clip for shard in recipe.shards for clip in shard()], bad, recipe


def flat(clip):
    """[T, M, 25, 3] as the reference's T x 75 or T x 150."""
    return clip.joints.reshape(len(clip.joints), -1)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("second", ["zeros", "copy"])
def test_clips_are_read_without_padding(tmp_path, save, second):
    path = write(tmp_path / "NTU60_CS.npz", arrays(TRAIN, TEST, second=second), save)
    clips, bad, recipe = read(path)
    assert [clip.id for clip in clips] == ["train000000", "train000001", "test000000"]
    assert [clip.label for clip in clips] == [0, 1, 0] and not bad and recipe.expected == 3
    assert [clip.joints.shape[1] for clip in clips] == [1, 2, 1]
    for clip, joints in zip(clips, TRAIN + TEST, strict=True):
        np.testing.assert_array_equal(flat(clip), joints)


def test_real_clips_are_read_unchanged(tmp_path, shared):
    golden = np.load(shared / "golden/ntu_preprocessed.npz")
    names = [name for name in golden.files if name.endswith(("A050", "A023"))][:40]
    clips = [golden[name] for name in names] + [golden["S017C003P020R002A059"]]  # a late second
    length = max(map(len, clips))
    x = np.zeros((len(clips), length, 150), np.float32)
    for row, clip in enumerate(clips):
        x[row, : len(clip), : clip.shape[1]] = clip
    assert {clip.shape[1] for clip in clips} == {75, 150}
    content = arrays([], TEST) | {"x_train": x, "y_train": one_hot([3] * len(clips))}
    found, bad, _ = read(write(tmp_path / "NTU60_CV.npz", content))
    assert len(found) == len(clips) + 1 and not bad
    for clip, rows in zip(found, clips, strict=False):
        np.testing.assert_array_equal(flat(clip), rows)


def test_empty_frames_and_a_late_first_person_are_kept(tmp_path):
    clip = body(6, persons=2)
    clip[3] = 0
    clip[:2, :75] = 0
    (found, *_), _, _ = read(write(tmp_path / "NTU60_CS.npz", arrays([clip], TEST)))
    np.testing.assert_array_equal(flat(found), clip)


@pytest.mark.parametrize(
    ("dataset", "name", "protocol"),
    [
        ("ntu60", "NTU60_CS.npz", "xsub"),
        ("ntu60", "NTU60_CV_aligned.npz", "xview"),
        ("ntu120", "ntu120_csub.npz", "xsub"),
        ("ntu120", "NTU120_CSet.npz", "xset"),
    ],
)
def test_index(tmp_path, dataset, name, protocol):
    path = write(tmp_path / name, arrays(TRAIN, TEST, {"ntu60": 60, "ntu120": 120}[dataset]))
    _, _, recipe = read(path, dataset)
    records = write_records(dataset, (25, 3), recipe.shards, tmp_path / "data")
    index = make_index(recipe, records)
    assert index["protocols"] == {protocol: {"train": [0, 1], "test": [2]}}
    assert index["columns"]["num_frames"] == [9, FRAMES, 1] and index["num_persons"] == 2
    assert index["classes"][0] == "drink water" and index["source"]["protocol"] == protocol


def test_protocol_of_a_renamed_file(tmp_path):
    path = write(tmp_path / "mine.npz", arrays(TRAIN, TEST))
    assert read(path, protocol="xview")[2].source["protocol"] == "xview"
    for options in ({}, {"protocol": "xset"}):  # xset is none of NTU60's
        with pytest.raises(UserError, match=r"mine\.npz: its name does not say.*xsub, xview"):
            read(path, **options)


def test_bad_rows_are_reported_and_skipped(tmp_path):
    content = arrays([body(4, seed) for seed in range(6)], TEST)
    content["x_train"][1] = 0
    content["x_train"][2, 0, 5] = np.nan
    content["y_train"][3] = 0
    content["y_train"][4, :2] = 1
    clips, bad, _ = read(write(tmp_path / "NTU60_CS.npz", content))
    assert [clip.id for clip in clips] == ["train000000", "train000005", "test000000"]
    assert [name for name, _ in bad] == [f"NTU60_CS.npz: x_train[{row}]" for row in (1, 2, 3, 4)]
    reasons = ["nothing but zeros", "not finite", "not one-hot", "not one-hot"]
    assert all(text in reason for text, (_, reason) in zip(reasons, bad, strict=True))


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def header(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


class Payload:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


GOOD = functools.partial(arrays, TRAIN, TEST)
SHAPE = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s)}\n"
WRONG = {
    "keys": ({"x": np.ones(3)}, r"lacks the arrays x_train.*it has 'x\.npy'"),
    "one key": ({"y_test": None}, "lacks the arrays y_test"),
    "layout": ({"x_train": np.ones((2, 3, 300, 25, 2), np.float32)}, "x_train has shape"),
    "width": ({"x_train": np.ones((2, 300, 75), np.float32)}, "x_train has shape"),
    "no frames": ({"x_train": np.ones((2, 0, 150), np.float32)}, "x_train has shape"),
    "labels": ({"y_train": np.zeros(2)}, r"y_train has shape \(2,\), but ntu60 has 60"),
    "dataset": ({"y_train": one_hot([0, 1], 120)}, "of another dataset: prepare folder"),
    "lengths": ({"y_train": one_hot([0])}, "2 rows of x_train, but 1 of y_train"),
    "integers": ({"x_train": np.ones((2, 40, 150), int)}, "C-ordered array of floats"),
    "fortran": ({"x_train": np.asfortranarray(padded(TRAIN))}, "C-ordered array of floats"),
    "scalar": ({"x_train": np.float32(1)}, "C-ordered array of floats"),
    "objects": ({"x_train": npy(np.array([Payload()], object))}, "floats|damaged"),
    "pickle": ({"x_train": pickle.dumps(Payload())}, "x_train is damaged"),
    "huge": ({"x_train": header(SHAPE % b"9999999999, 300, 150")}, "x_train is damaged"),
    "negative": ({"x_train": header(SHAPE % b"-2, 300, 150")}, "damaged|shape"),
    "code": ({"x_train": header(b"__import__('pytest').fail()\n")}, "x_train is damaged"),
    "deep": ({"x_train": header(b"(" * 5000 + b"\n")}, "x_train is damaged"),
    "no header": ({"x_train": b""}, "x_train is damaged"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_refused_in_one_line(tmp_path, case):
    changes, message = WRONG[case]
    path = tmp_path / "NTU60_CS.npz"
    content = changes if case == "keys" else GOOD() | changes
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in content.items():
            if array is not None:
                archive.writestr(f"{name}.npy", array if isinstance(array, bytes) else npy(array))
    with pytest.raises(UserError, match=message) as error:
        read(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_absent_and_foreign_files(tmp_path):
    with pytest.raises(UserError, match="no such"):
        read(tmp_path / "NTU60_CS.npz")
    (tmp_path / "NTU60_CS.npz").write_bytes(b"no zip" * 100)
    with pytest.raises(UserError, match="is damaged"):
        read(tmp_path / "NTU60_CS.npz")
    with pytest.raises(UserError, match="ntu60 and ntu120 only"):
        read(tmp_path / "NTU60_CS.npz", "nw_ucla")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_truncated_and_flipped(tmp_path, save):
    path = write(tmp_path / "NTU60_CS.npz", GOOD(), save)
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="is damaged"):
        read(path)
    data[len(data) // 4] ^= 0x10  # within x_train
    path.write_bytes(data)
    with pytest.raises(UserError, match="x_train is damaged"):
        read(path)


def test_member_that_is_shorter_than_the_list_says(tmp_path):
    path = write(tmp_path / "NTU60_CS.npz", GOOD(), np.savez_compressed)
    data, name = bytearray(path.read_bytes()), b"x_train.npy"
    entry = data.rindex(name) - 46
    rows = struct.unpack_from("<I", data, entry + 24)[0]
    struct.pack_into("<I", data, entry + 24, rows + 1000 * FRAMES * 600)
    path.write_bytes(data.replace(b"'shape': (2, 40, 150), }   ", b"'shape': (1002, 40, 150), }"))
    with pytest.raises(UserError, match="damaged"):
        read(path)


def test_zip_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr("hocslm_jax.data.prepare.importers.npz_rows.FREE_BYTES", 1 << 20)
    content = arrays([body(3)] * 200, TEST)
    assert len(read(write(tmp_path / "NTU60_CS.npz", content))[0]) == 201  # stored: no ratio
    content["x_train"][:] = 0
    with pytest.raises(UserError, match=r"x_train unpacks to \d+ bytes"):
        read(write(tmp_path / "NTU60_CS.npz", content, np.savez_compressed))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_only_a_few_rows_are_in_memory(tmp_path, save, monkeypatch):
    monkeypatch.setattr(ctrgcn_npz, "SHARD_CLIPS", 64)
    path = write(tmp_path / "NTU60_CS.npz", arrays([body(FRAMES, persons=2)] * 300, TEST), save)
    recipe = ctrgcn_npz.recipe("ntu60", path, pytest.fail)
    row_bytes = FRAMES * 150 * 4
    tracemalloc.start()
    count = sum(1 for shard in recipe.shards for _ in shard())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 301 and peak < 24 * row_bytes, peak / row_bytes  # the array has 300 rows


def test_shards_run_in_any_order_and_pickle(tmp_path, monkeypatch):
    monkeypatch.setattr(ctrgcn_npz, "SHARD_CLIPS", 2)
    content = arrays([body(3, seed) for seed in range(5)], TEST)
    path = write(tmp_path / "NTU60_CS.npz", content, np.savez_compressed)
    clips, _, recipe = read(path)
    again = pickle.loads(pickle.dumps(ctrgcn_npz.recipe("ntu60", path, print).shards))
    for shards in (recipe.shards, again):
        found = {clip.id: clip for shard in reversed(shards) for clip in shard()}
        assert all(np.array_equal(found[clip.id].joints, clip.joints) for clip in clips)


@pytest.fixture(scope="module", params=[np.savez, np.savez_compressed])
def intact(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "NTU60_CS.npz"
    write(path, arrays([np.ones((2, 75), np.float32)], [body(1)]), request.param)
    return path, path.read_bytes()


@settings(max_examples=100, deadline=None)
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_mutated_files_raise_only_user_errors(intact, edits):
    path, data = intact
    # Most changes are near the end, where the zip lists its members.
    path.write_bytes(mutated(data, [(1 - place**3, kind, new) for place, kind, new in edits]))
    try:
        clips, bad, recipe = read(path)
        assert len(clips) + len(bad) == recipe.expected
    except UserError as error:
        assert "\n" not in str(error)


def test_npz_of_any_dataset(tmp_path):
    path = write(tmp_path / "own.npz", arrays(TRAIN, TEST, classes=3))
    bad = []
    recipe = ctrgcn_npz.own_recipe("own", path, lambda *entry: bad.append(entry), NTU25)
    clips = [clip for shard in recipe.shards for clip in shard()]
    assert not bad and [clip.id for clip in clips] == ["train000000", "train000001", "test000000"]
    np.testing.assert_array_equal(flat(clips[1]), TRAIN[1])
    assert recipe.classes == ("0", "1", "2") and recipe.name == "own"
    found = recipe.protocols({"id": np.array([clip.id for clip in clips])})
    assert list(found) == ["split"] and found["split"]["test"].tolist() == [2]
    with pytest.raises(UserError, match="expected \\(N, 300, 120\\)"):
        ctrgcn_npz.own_recipe("own", path, print, UCLA20)
    with pytest.raises(UserError, match="but own has 2 classes"):
        ctrgcn_npz.own_recipe("own", path, print, NTU25, ("a", "b"))
