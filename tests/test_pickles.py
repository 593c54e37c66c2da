"""Pickles of plain values and arrays are read; anything else is refused and never called."""

import builtins
import collections
import contextlib
import datetime
import functools
import io
import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mutated import EDIT, mutated
from pickle_files import refusal, store

from hocslm_jax.errors import UserError
from hocslm_jax.files.pickles import read_pickle

PLAIN = {
    "none": None,
    "flags": [True, False],
    "numbers": [0, 255, 65535, -1, 2**31, -(2**40), 2**600, 1.5, float("inf")],
    "text": ["", "a", "é" * 100, "x" * 256],
    "bytes": [b"", b"\x00\xff", bytes(range(120, 220))],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, (2, (3, 4)))],
    "nested": {"a": {"b": [[], {}]}, 7: "number as a key"},
    "ordered": collections.OrderedDict(a=1),
    "scalars": [np.float32(0.5), np.int64(-3), np.bool_(True), np.str_("ab")],
}
ARRAY = np.arange(1200, dtype=np.float16).reshape(2, 10, 20, 3)
ARRAYS = [
    ARRAY,
    ARRAY[:1, :2, :2],
    ARRAY.astype(">f4"),
    ARRAY.astype(np.float64).T,
    ARRAY.transpose(1, 0, 3, 2),
    ARRAY[:, ::2],
    np.asfortranarray(ARRAY),
    np.zeros((0, 3), np.float32),
    np.array(3, np.int32),
    np.arange(600, dtype=np.uint8),  # every byte, so that text and bytes differ in length
    np.array([True, False]),
    np.array(["S001", "é"]),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.pkl"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values(path, protocol):
    assert read_pickle(store(path, pickle.dumps(PLAIN, protocol))) == PLAIN


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_both_numpys(path, protocol, core):
    found = read_pickle(store(path, numpy_pickle(ARRAYS, protocol, core)))
    for array, expected in zip(found, ARRAYS, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype.kind == expected.dtype.kind and array.shape == expected.shape


def numpy_pickle(content, protocol, core):
    """As `pickle.dumps` under NumPy 1 or 2, whichever is installed."""

    class Pickler(pickle._Pickler):
        def save_global(self, obj, name=None):
            module = (getattr(obj, "__module__", None) or "").replace("numpy._core", core)
            if not module.startswith(core):
                return super().save_global(obj, name)
            if self.proto >= 4:
                self.save(module)
                self.save(obj.__name__)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(f"c{module}\n{obj.__name__}\n".encode())
            self.memoize(obj)

        dispatch = pickle._Pickler.dispatch | {type(functools.reduce): save_global}
        dispatch[type(lambda: 0)] = save_global

    file = io.BytesIO()
    Pickler(file, protocol).dump(content)
    return file.getvalue()


class Call:
    """Pickles to a call of `function`."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


GADGETS = {
    "posix.system": Call(os.system, "touch /nonexistent/x"),
    "eval": Call(builtins.eval, "pytest.fail()"),
    "exec": Call(builtins.exec, "raise SystemExit"),
    "getattr": Call(getattr, "x", "upper"),
    "functools.partial": functools.partial(os.system, "true"),
    "numpy.load": Call(np.load, "x.npy", None, True),
    "numpy.fromfile": Call(np.fromfile, "/etc/passwd"),
    "numpy.memmap": Call(np.memmap, "/etc/passwd"),
    "numpy.zeros": Call(np.zeros, (10**6, 10**6)),
    "pickle.loads": Call(pickle.loads, b"N."),
    "bytearray": bytearray(b"x"),
    "complex": 1j,
    "defaultdict": collections.defaultdict(list),
    "date": datetime.date(2020, 1, 1),
    "class": io.StringIO,
    "ufunc": np.add,
    "recarray": np.rec.array([(1,)]),
    "masked": np.ma.masked_array([1]),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", GADGETS)
def test_other_globals_are_refused_and_never_called(path, name, protocol):
    content = {"split": {}, "annotations": [GADGETS[name]]}
    message = refusal(path, pickle.dumps(content, protocol))
    assert "it names '" in message and "refused" in message
    if "." in name:
        assert name in message


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.array([Call(os.system, "true")], object),
        np.array([None, "x"], object),
        np.array([[1], [1, 2], None], object),
        np.zeros(2, [("a", "O")]),
        np.zeros(2, [("a", "f4")]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, complex),
        np.zeros(2, "V8"),
    ],
    ids=lambda value: str(getattr(value, "dtype", value)),
)
def test_arrays_of_other_types_are_refused(path, array, protocol):
    assert "refused" in refusal(path, pickle.dumps(array, protocol))


def array_pickle(shape=b"K\x02\x85", dtype=b"\x8c\x02f4", values=b"C\x08" + bytes(8), more=b""):
    """An ndarray as protocol 4 spells it, with parts exchanged."""
    text = b"\x8c\x15numpy.core.multiarray\x8c\x0c_reconstruct\x93\x8c\x05numpy\x8c\x07ndarray\x93"
    kind = b"\x8c\x05numpy\x8c\x05dtype\x93" + dtype + b"\x89\x88\x87R"
    kind += b"(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    head = b"\x80\x04" + text + b"K\x00\x85C\x01b\x87R"
    return head + b"(K\x01" + shape + kind + b"\x89" + values + b"tb" + more + b"."


HUGE = b"\x8a\x07" + (2**50).to_bytes(7, "little")
BROKEN = {
    "huge shape": array_pickle(shape=HUGE + b"\x85"),
    "negative shape": array_pickle(shape=b"J\xff\xff\xff\xff\x85"),
    "shape of lists": array_pickle(shape=b"]\x85"),
    "shape that is a list": array_pickle(shape=b"]"),
    "many axes": array_pickle(shape=b"(" + b"K\x01" * 60 + b"t"),
    "values that are a list": array_pickle(values=b"]"),
    "object dtype": array_pickle(dtype=b"\x8c\x02O8", values=b"]"),
    "object dtype, bytes": array_pickle(dtype=b"\x8c\x02O8"),
    "dtype of fields": array_pickle(dtype=b"\x8c\x05f4,O8"),
    "dtype that is a tuple": array_pickle(dtype=b"\x8c\x01a\x85"),
    "state twice": array_pickle(more=b"(K\x01K\x02\x85NN)tb"),
    "state of a list": b"\x80\x02](K\x01tb.",
    "state of a dict": b"\x80\x02}}b.",
    "call of a list": b"\x80\x02])R.",
    "call of a string": b"\x80\x02X\x04\x00\x00\x00eval)R.",
    "call without a tuple": b"\x80\x02cnumpy\ndtype\n]R.",
    "call of ndarray": b"\x80\x02cnumpy\nndarray\nK\x02\x85R.",
    "global of numbers": b"\x80\x04K\x01K\x01\x93.",
    "global of lists": b"\x80\x04]]\x93.",
    "dotted global": b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.",
    "global line without end": b"\x80\x02c" + b"a" * 5000,
    "persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "extension": b"\x80\x02\x82\x01.",
    "new object": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "instance": b"(inumpy\nndarray\n.",
    "set": b"\x80\x04\x8f.",
    "out of band": b"\x80\x05\x97.",
    "huge text": b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**63 - 1) + b"a.",
    "huge bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"a.",
    "huge integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"a.",
    "bytes that end early": b"\x80\x04B\xff\xff\xff\x7fabc.",
    "text that is no UTF-8": b"\x80\x04\x8c\x02\xff\xfe.",
    "empty stack": b"\x80\x020.",
    "pop of nothing": b"\x80\x02\x87.",
    "append to nothing": b"\x80\x02K\x01a.",
    "append to a number": b"\x80\x02K\x01K\x01a.",
    "item of a list": b"\x80\x02]K\x01K\x01s.",
    "odd number of items": b"\x80\x02}(K\x01u.",
    "tuple as a key": b"\x80\x02})K\x01s.",
    "huge key": b"\x80\x02}" + HUGE + b"K\x01s.",
    "no mark": b"\x80\x02t.",
    "unknown memo": b"\x80\x02h\x07.",
    "no value": b"\x80\x02.",
    "no end": b"\x80\x02N",
    "nothing": b"",
    "protocol 0": pickle.dumps([1], 0),
    "protocol 9": b"\x80\x09N.",
    "unknown instruction": b"\x80\x02\xfe.",
    "a zip": b"PK\x03\x04" + bytes(100),
    "text": b"hello",
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_and_hostile_pickles(path, case):
    refusal(path, BROKEN[case])


def test_values_must_fit_the_shape(path):
    np.testing.assert_array_equal(read_pickle(store(path, array_pickle())), np.zeros(2, "f4"))
    for size in (7, 9):
        values = b"C" + bytes([size]) + bytes(size)
        assert f"{size} bytes for an array" in refusal(path, array_pickle(values=values))


def test_every_truncation(path):
    data = pickle.dumps({"a": ARRAY[:1, :1, :1], "b": [1, "x"]}, 4)
    for size in range(0, len(data), 3):
        refusal(path, data[:size])


SEEDS = [pickle.dumps({"k": ARRAYS[:3], "p": PLAIN}, protocol) for protocol in (2, 4, 5)]


@settings(max_examples=200, deadline=None)
@given(seed=st.sampled_from(SEEDS), edits=st.lists(EDIT, max_size=6))
def test_mutated_pickles_raise_only_user_errors(tmp_path_factory, seed, edits):
    path = store(tmp_path_factory.getbasetemp() / "fuzz.pkl", mutated(seed, edits))
    with contextlib.suppress(UserError):
        read_pickle(path)


def test_only_plain_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, reason in (("pipe", "not a plain file"), ("absent", "no such file"), (".", "plain")):
        with pytest.raises(UserError, match=reason):
            read_pickle(tmp_path / name)
