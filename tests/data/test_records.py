"""The joints of a record: parsed as TFDS decodes them, from disk or pinned in memory."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hocslm_jax.data import records
from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.build import prepare
from hocslm_jax.data.prepare.writer import Recipe
from hocslm_jax.data.records import open_records, parse_joints
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25


def make_clips():
    rng = np.random.default_rng(0)
    for row, frames in enumerate((1, 20, 127, 128, 300)):  # lengths of one to three bytes
        joints = rng.normal(size=(frames, 1 + row % 2, 25, 3)).astype(np.float32)
        yield Clip(id=f"joints/value{row}", joints=joints, label=row)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    recipe = Recipe(
        name="toy",
        graph=NTU25,
        classes=tuple("abcde"),
        shards=[make_clips],
        protocols=lambda columns: {"all": {"train": np.arange(5), "test": np.arange(5)}},
        source={"made": "here"},
    )
    prepare(recipe, folder, [])
    return folder


def test_a_record_is_parsed_as_tfds_decodes_it(data_dir):
    decoded = open_records(open_store("toy", data_dir).path)
    for row, clip in enumerate(make_clips()):
        joints = parse_joints(decoded.serialized[row])
        assert joints.dtype == np.float32 and joints.flags.aligned and joints.flags.writeable
        np.testing.assert_array_equal(joints, decoded[row]["joints"])
        np.testing.assert_array_equal(joints, clip.joints)


def test_what_is_not_such_a_record_is_refused(data_dir):
    record = open_records(open_store("toy", data_dir).path).serialized[1]
    tag = record.index(b"joints/shape") + len(b"joints/shape")
    odd = [
        *(b"", b"\xff" * 50, record[:100], record[:40], record.replace(b"joints/", b"joinds/")),
        record[: tag + 2] + b"\x0a" + record[tag + 3 :],  # floats or bytes instead of integers
        record.replace(b"\x14\x02\x19\x03", b"\x15\x02\x19\x03"),  # a frame more than there are
        record.replace(b"\x14\x02\x19\x03", b"\xff\xff\xff\xff"),
    ]
    for bad in odd:
        assert bad != record
        with pytest.raises(ValueError):
            parse_joints(bad)


def test_another_layout_is_left_to_tfds(data_dir, monkeypatch):
    def refuse(record):
        raise ValueError("laid out in another way")

    monkeypatch.setattr(records, "parse_joints", refuse)
    store = open_store("toy", data_dir)
    for row, clip in enumerate(make_clips()):
        joints = store.joints(row)
        np.testing.assert_array_equal(joints, clip.joints)
        assert joints.flags.writeable


def test_pinned_joints_are_equal_and_read_once(data_dir, monkeypatch):
    pinned, disk = open_store("toy", data_dir, "ram"), open_store("toy", data_dir)
    expected = [disk.joints(row) for row in range(5)]
    monkeypatch.setattr(records, "parse_joints", None)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(pinned.joints, [row % 5 for row in range(50)]))
    for row, joints in enumerate(found):
        np.testing.assert_array_equal(joints, expected[row % 5])
        assert not joints.flags.writeable  # all epochs share it


def test_pinned_store_is_pickled_without_clips(data_dir):
    pinned = open_store("toy", data_dir, "ram")
    copy = pickle.loads(pickle.dumps(pinned))
    assert len(pickle.dumps(pinned)) < 6000
    np.testing.assert_array_equal(copy.joints(3), pinned.joints(3))
    assert not copy.joints(3).flags.writeable


def test_unknown_cache_is_told(data_dir):
    with pytest.raises(UserError, match=r"data.cache 'disk': expected one of '', 'ram'"):
        open_store("toy", data_dir, "disk")
