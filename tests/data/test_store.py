"""A prepared dataset opens fast, returns what was written, and reports damage."""

import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from toy_dataset import make_clips, make_recipe

from hocslm_jax.data.prepare.build import prepare
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError
from hocslm_jax.graph import UCLA20


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(make_recipe(make_clips()), folder, [])
    return folder


def test_records_come_back_bit_for_bit(data_dir):
    store = open_store("toy", data_dir)
    clips = {clip.id: clip for clip in make_clips()}
    assert sorted(store.ids) == sorted(clips) and len(store) == 7
    for row, name in enumerate(store.ids):
        joints = store.joints(row)
        assert joints.dtype == np.float32 and joints.flags.writeable
        np.testing.assert_array_equal(joints, clips[name].joints)
        assert store.labels[row] == clips[name].label
        assert store.columns["num_frames"][row] == len(joints)
        assert store.columns["subject"][row] == clips[name].subject
        assert store.columns["camera"][row] == clips[name].camera
    assert store.graph == UCLA20 and store.classes == ("a", "b", "c")
    assert store.num_persons == 2


def test_rows_follow_the_shards(data_dir):
    assert open_store("toy", data_dir).ids[:4] == ("clip00", "clip03", "clip06", "clip01")


def test_store_pickles_and_serves_threads(data_dir):
    store = open_store("toy", data_dir)
    expected = [store.joints(row) for row in range(len(store))]
    pickled = pickle.dumps(store)
    assert len(pickled) == len(pickle.dumps(open_store("toy", data_dir)))  # no reader travels
    copy = pickle.loads(pickled)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(copy.joints, [row % 7 for row in range(200)]))
    assert all(np.array_equal(a, expected[row % 7]) for row, a in enumerate(found))


def test_protocol_rows(data_dir):
    store = open_store("toy", data_dir)
    assert (store.columns["subject"][store.rows("half", "train")] < 4).all()
    assert len(store.rows("half", "train")) + len(store.rows("half", "test")) == 7
    with pytest.raises(UserError, match="no protocol 'xsub'; known: half"):
        store.rows("xsub", "train")
    with pytest.raises(UserError, match="no split 'dev'; known: train, test, val"):
        store.rows("half", "dev")
    with pytest.raises(UserError, match="val split of half has no clips"):
        store.rows("half", "val")


def test_missing_dataset_message_has_the_command(tmp_path):
    with pytest.raises(UserError, match=r"not prepared; run: python -m hocslm_jax prepare nw_ucla"):
        open_store("nw_ucla", tmp_path)
    with pytest.raises(UserError, match=rf"prepare quickstart --data-dir {tmp_path}"):
        open_store("quickstart", tmp_path)
    with pytest.raises(UserError, match=r"prepare folder --name mine --source"):
        open_store("mine", tmp_path)
    with pytest.raises(UserError, match="dataset name"):
        open_store("../mine", tmp_path)


@pytest.mark.parametrize(
    "damage", ["no index", "cut index", "odd index", "old index", "cut record", "no record"]
)
def test_half_prepared_and_damaged_datasets_are_refused(data_dir, tmp_path, damage):
    shutil.copytree(data_dir / "toy", tmp_path / "toy")
    index, (record, *_) = tmp_path / "toy/index.json", (tmp_path / "toy/1.0.0").glob("*-of-*")
    if damage == "no index":
        index.unlink()
    elif damage == "cut index":
        index.write_text(index.read_text()[:100])
    elif damage == "odd index":
        index.write_text(json.dumps(["toy"]))
    elif damage == "old index":
        fields = json.loads(index.read_text())
        index.write_text(json.dumps({key: fields[key] for key in fields if key != "columns"}))
    elif damage == "cut record":
        record.write_bytes(record.read_bytes()[:-1])
    else:
        record.unlink()
    reason = "half-prepared" if damage == "no index" else "damaged"
    reason = "missing or not" if "record" in damage else reason
    with pytest.raises(UserError, match=f"{reason}.* run: python -m"):
        open_store("toy", tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "../elsewhere"},
        {"version": 1},
        {"files": {"../x": 1}},
        {"files": []},
        {"num_persons": "two"},
        {"classes": [1, 2, 3]},
        {"columns": {"id": ["a"]}},
        {"columns": []},
        {"protocols": {"half": {"train": [10**6]}}},
        {"protocols": {"half": {"train": [[0]]}}},
        {"protocols": {"half": {"train": ["a"]}}},
        {"protocols": [1]},
        {"graph": 5},
        {"graph": {"joints": 3, "edges": [], "root": 0}},
    ],
    ids=str,
)
def test_indices_that_cannot_be_are_one_line(data_dir, tmp_path, change):
    (tmp_path / "toy").mkdir()
    index = json.loads((data_dir / "toy/index.json").read_text())
    shutil.copytree(data_dir / "toy/1.0.0", tmp_path / "toy/1.0.0")
    (tmp_path / "toy/index.json").write_text(json.dumps(index | change))
    with pytest.raises(UserError):
        open_store("toy", tmp_path)


@pytest.mark.parametrize("cache", ["", "ram"])
def test_a_damaged_record_names_its_clip(data_dir, tmp_path, cache):
    shutil.copytree(data_dir / "toy", tmp_path / "toy")
    (record, *_) = (tmp_path / "toy/1.0.0").glob("*-of-*")
    data = record.read_bytes()
    record.write_bytes(data[:100] + bytes(byte ^ 0x55 for byte in data[100:1000]) + data[1000:])
    with pytest.raises(UserError, match=r"the record of clip \w+ is damaged; run: python -m"):
        store = open_store("toy", tmp_path, cache)
        for row in range(len(store)):
            store.joints(row)


def test_opening_imports_neither_tfds_nor_jax(data_dir):
    code = (
        "import sys; from hocslm_jax.data.store import open_store;"
        f"open_store('toy', {str(data_dir)!r});"
        "print([m for m in ('tensorflow_datasets', 'jax', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_validation_protocols_need_no_new_preparation(tmp_path):
    """They are not in the index; a dataset prepared before there were any has them."""
    recipe = make_recipe(
        make_clips(12),
        name="nw_ucla",
        protocols=lambda columns: {
            "xview": {
                "train": np.flatnonzero(columns["camera"] < 3),
                "test": np.flatnonzero(columns["camera"] == 3),
            }
        },
    )
    prepare(recipe, tmp_path, [])
    index = json.loads((tmp_path / "nw_ucla/index.json").read_text())
    assert list(index["protocols"]) == ["xview"]
    store = open_store("nw_ucla", tmp_path)
    for split, cameras in (("train", {1}), ("test", {2})):
        rows = store.rows("view2_val", split)
        assert rows.dtype == np.int32 and set(store.columns["camera"][rows].tolist()) == cameras
    held = store.columns["subject"][store.rows("xview_val", "test")]
    assert sorted(held.tolist()) == [9, 10]
