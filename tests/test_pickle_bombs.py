"""Small pickles that would take much memory or time are refused, or read within bounds."""

import pickle
import struct
import time
import tracemalloc

import numpy as np
import pytest
from pickle_files import refusal, store

from hocslm_jax.errors import UserError
from hocslm_jax.files import pickles
from hocslm_jax.files.pickles import check_not_shared, read_pickle

DOUBLED = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(100))
BOMBS = {
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "doubled tuples": b"\x80\x02(" + DOUBLED + b"t.",
    "far memo": b"\x80\x02Nr\xff\xff\xff\xff.",
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pkl"


@pytest.mark.parametrize("case", BOMBS)
def test_bombs_take_little_time_and_memory(path, case):
    store(path, BOMBS[case])
    start = time.monotonic()
    tracemalloc.start()
    read_pickle(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.monotonic() - start < 10 and peak < 25 << 20


def test_nested_tuples_are_refused_as_keys(path):
    assert "dict key that is a tuple" in refusal(path, b"\x80\x02(" + DOUBLED + b"}hdNst.")


@pytest.mark.parametrize("code", [b"]", b"}", b"K\x01\x85", b"N\x94", b"K\xff"])
def test_memory_of_objects_is_bounded(path, monkeypatch, code):
    most = 8 << 20
    monkeypatch.setattr(pickles, "OBJECT_BYTES", most)
    store(path, b"\x80\x02" + code * 1_000_000 + b".")
    tracemalloc.start()
    with pytest.raises(UserError, match="objects of over"):
        read_pickle(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.1 * most


def many(one, count=20_000):
    """A list of one object, made anew `count` times from what the memo holds."""
    return b"\x80\x04" + one + b"](" + b"h\x00h\x01R" * count + b"e."


def test_repeated_bytes_are_refused(path):
    text = b"\x8c\x07_codecs\x8c\x06encode\x93\x94X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20)
    assert "again and again" in refusal(path, many(text + b"\x8c\x06latin1\x86\x940"[:-1]))


def test_shared_arrays_are_refused(path):
    array = np.ones(1000)
    found = read_pickle(store(path, pickle.dumps([array] * 1000)))
    with pytest.raises(UserError, match="share their arrays"):
        check_not_shared(path, found, "clips")
    found = read_pickle(store(path, pickle.dumps([array + n for n in range(9)])))
    check_not_shared(path, found, "clips")
