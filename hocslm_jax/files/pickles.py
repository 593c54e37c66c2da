"""Reads pickles of arrays and plain containers without calling anything that they name.

In: a file that pickle wrote with protocol 2 to 5, under NumPy 1 or 2. Out: its dicts, lists,
tuples, text, bytes, numbers and ndarrays. It uses Python's own unpickler without the instructions
that such files do not need; methods of `_Reader` replace the few functions that NumPy's pickles
name. Memory is bounded by the file's size.
"""

import dataclasses
import math
import mmap
import pickle
import re
import struct
from pathlib import Path

import numpy as np

from hocslm_jax.errors import UserError

OBJECT_BYTES = 512 << 20  # for all objects except arrays; NTU RGB+D 120 needs two thirds of it

_PLAIN = re.compile(r"f[248]|[iu][1248]|b1|[US][1-9][0-9]{0,3}")  # numbers, booleans, text
# Memory that an instruction can add, besides the bytes in the file.
_COSTS = dict.fromkeys(
    (
        *("PROTO", "FRAME", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
        *("LONG1", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES"),
        *("BINBYTES", "BINBYTES8", "BYTEARRAY8", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
        *("BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "BUILD"),
    ),
    40,
) | dict.fromkeys(
    (
        *("MARK", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
        *("BINPUT", "LONG_BINPUT", "MEMOIZE", "REDUCE"),
    ),
    120,
)


def read_pickle(path: Path) -> object:
    """The object in a pickle file; its arrays may be read-only.

    Raises:
      UserError: the file is missing or damaged, or holds anything except arrays of numbers,
        booleans and text, and plain containers.
    """
    if not path.is_file():  # reading a pipe would block
        raise UserError(f"{path}: {'not a plain file' if path.exists() else 'no such file'}")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data).load()
    except Exception as error:  # a hostile file can raise any type
        known = isinstance(error, _Refused)
        reason = getattr(error, "strerror", None) or (str(error)[:150] if known else "damaged")
        raise UserError(
            f"{path}: not a readable pickle ({reason}); save NumPy arrays and plain containers "
            "alone, with protocol 2 to 5"
        ) from None


def check_not_shared(path: Path, arrays: list[np.ndarray], what: str) -> None:
    """Raises UserError if the arrays of a pickle have more bytes than its file.

    A small file can refer to one array thousands of times, which would fill the memory when copied.
    """
    if sum(array.nbytes for array in arrays) > path.stat().st_size:
        raise UserError(f"{path}: its {what} share their arrays, which real ones do not; refused")


class _Refused(ValueError):
    """The pickle holds something other than arrays and plain containers."""


@dataclasses.dataclass
class _Dtype:
    """A dtype as a pickle spells it: first a code, later the byte order."""

    code: str
    byte_order: str = "|"

    def resolve(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.byte_order)


def _costing(cost: int, action):
    def run(reader: "_Reader") -> None:
        reader.room -= cost
        if reader.room < 0:
            raise _Refused(f"objects of over {OBJECT_BYTES} bytes")
        action(reader)

    return run


class _Reader(pickle._Unpickler):
    """Python's unpickler with an allowlist of instructions and names, and with limits.

    `pickle.Unpickler`, written in C, is not used: 6 bytes make it allocate a memo of 64 GB, and it
    hashes all keys, which never ends for nested tuples.
    """

    def __init__(self, data: mmap.mmap):
        super().__init__(data)
        self.room = OBJECT_BYTES
        self.array_room = 2 * len(data)  # protocol 2 stores each array's bytes twice, once as text

    def find_class(self, module: str, name: str):
        module = module.replace("numpy._core", "numpy.core")  # its name in NumPy 2
        known = {
            ("numpy", "ndarray"): "ndarray",  # only named, never called
            ("numpy", "dtype"): self.make_dtype,
            ("numpy.core.multiarray", "_reconstruct"): self.empty_array,
            ("numpy.core.multiarray", "scalar"): self.scalar,
            ("numpy.core.numeric", "_frombuffer"): self.array,
            ("_codecs", "encode"): self.encode,  # how protocol 2 writes bytes
            ("builtins", "bytes"): lambda: b"",
            ("__builtin__", "bytes"): lambda: b"",
            ("collections", "OrderedDict"): lambda: {},
        }
        if (module, name) not in known:
            raise _Refused(f"it names {f'{module}.{name}'[:100]!r}, which is refused")
        return known[module, name]

    def make_dtype(self, code: str, align: bool = False, copy: bool = False) -> _Dtype:
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise _Refused(f"NumPy data of type {str(code)[:20]!r}, which is refused")
        return _Dtype(code)

    def empty_array(self, kind: str, shape, code) -> np.ndarray:
        return np.empty(0, np.int8)  # its content comes with its state

    def array(self, values, dtype: _Dtype, shape, order: str, axes=None) -> np.ndarray:
        self.check_size(values, dtype.resolve(), shape)
        order = "C" if order == "K" else order
        array = np.ndarray(shape, dtype.resolve(), values, order=order)
        return array if axes is None else array.transpose(axes)

    def scalar(self, dtype: _Dtype, values: bytes) -> int | float | bool | str | bytes:
        return self.array(values, dtype, (), "C").item()

    def encode(self, text: str, encoding: str) -> bytes:
        self.check_room(len(text))
        return text.encode("latin1")

    def check_size(self, values: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        if type(values) is not bytes or type(shape) is not tuple:
            raise _Refused("an array of objects, which is refused")
        if len(shape) > 8 or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
            raise _Refused("an array without a proper shape")
        if math.prod(shape) * dtype.itemsize != len(values):
            raise _Refused(f"{len(values)} bytes for an array of shape {str(shape)[:50]}")
        self.check_room(len(values))

    def check_room(self, size: int) -> None:
        self.array_room -= size
        if self.array_room < 0:
            raise _Refused("its arrays use the same bytes again and again")

    def load_build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if type(target) is _Dtype and state[1] in ("<", ">", "|"):
            target.byte_order = state[1]
        elif type(target) is np.ndarray:
            _, shape, dtype, fortran, values = state
            self.check_size(values, dtype.resolve(), shape)
            target.__setstate__((1, shape, dtype.resolve(), bool(fortran), values))
        else:
            raise _Refused("an object with its own state, which is refused")

    def load_setitem(self) -> None:
        self.check_items(self.stack[-3], [self.stack[-2]])
        super().load_setitem()

    def load_setitems(self) -> None:
        self.check_items(self.metastack[-1][-1], self.stack[::2])
        super().load_setitems()

    def check_items(self, target: object, keys: list) -> None:
        if type(target) is not dict:
            raise _Refused("items of something else than a dict")
        for key in keys:
            if type(key) is not str and not (type(key) is int and abs(key) < 2**31):
                raise _Refused(f"a dict key that is a {type(key).__name__}")

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))


def _dispatch() -> dict:
    """Code of an instruction -> its action; all other instructions are refused."""
    actions = {}
    for name, cost in _COSTS.items():
        (code,) = getattr(pickle, name)
        action = vars(_Reader).get(f"load_{name.lower()}", pickle._Unpickler.dispatch[code])
        actions[code] = _costing(cost, action)
    return actions


_Reader.dispatch = _dispatch()
