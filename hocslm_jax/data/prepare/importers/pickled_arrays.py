"""What NumPy's pickles say of an array, without NumPy's own code for reading them.

In: the arguments that a pickle by NumPy 1 or 2 would call its constructors with, already plain
values. Out: an Array that knows dtype, shape and where in the file its values lie, and `read_array`
that fetches these. Everything else that could be constructed is refused, objects in arrays above
all; nothing is allocated until as many bytes as a shape needs are known to be there.
"""

import dataclasses
import math
import re
from typing import BinaryIO

import numpy as np

_NO_DTYPE = np.dtype(np.int8)
_PLAIN = re.compile(r"f[248]|[iu][1248]|b1|[US][0-9]{1,4}")  # numbers, booleans, text


class Refused(ValueError):
    """Something that a pickle of arrays and plain containers does not hold."""


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """A long string left in the file; `text` if it is stored as UTF-8."""

    offset: int
    size: int
    text: bool


@dataclasses.dataclass(slots=True)
class Array:
    """An ndarray whose values are still in the file.

    Attributes:
      dtype: of numbers, booleans or fixed-width text; never of objects.
      shape: of the values as they lie in the file.
      order: "C" or "F", how they lie.
      axes: a transposition to apply after all, or None.
      values: their bytes, or where these are; None until the pickle says, as rarely one does not.
    """

    dtype: np.dtype = _NO_DTYPE
    shape: tuple[int, ...] = (0,)
    order: str = "C"
    axes: tuple[int, ...] | None = None
    values: Blob | bytes | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def stored(self) -> int:
        """Bytes in the file; several arrays may claim the same ones."""
        return self.values.size if isinstance(self.values, Blob) else len(self.values or b"")


@dataclasses.dataclass(slots=True)
class Dtype:
    """A dtype as a pickle spells it: a code, and later the byte order."""

    code: str
    byte_order: str = "|"

    def resolve(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.byte_order)


@dataclasses.dataclass(frozen=True, slots=True)
class Global:
    """One of the few names that a pickle may mention; a key of CALLS, or the class ndarray."""

    name: str


def read_array(file: BinaryIO, array: Array) -> np.ndarray:
    """The values of `array`, from the pickle file it belongs to; possibly read-only.

    Raises:
      ValueError: fewer or more bytes than its shape needs, or the file changed.
    """
    values, needed = array.values or b"", array.nbytes
    if isinstance(values, Blob):
        most = 2 * needed if values.text else needed  # bytes from 128 on take two in UTF-8
        if not needed <= values.size <= most:
            raise ValueError(f"{values.size} bytes for an array of shape {array.shape}")
        file.seek(values.offset)
        text, values = values.text, file.read(values.size)
        values = values.decode().encode("latin1") if text else values
    if len(values) != needed:
        raise ValueError(f"{len(values)} bytes for an array of shape {array.shape}")
    flat = np.frombuffer(values, array.dtype) if needed else np.empty(0, array.dtype)
    shaped = flat.reshape(array.shape, order=array.order)
    return shaped if array.axes is None else shaped.transpose(array.axes)


def build(target: object, state: object) -> None:
    """Completes a Dtype with its byte order, or an Array with everything, in place."""
    if isinstance(target, Dtype) and isinstance(state, tuple) and state[1] in ("<", ">", "|"):
        target.byte_order = state[1]
    elif isinstance(target, Array) and isinstance(state, tuple) and target.values is None:
        _, shape, dtype, fortran, values = state
        _fill(target, shape, dtype, "F" if fortran else "C", values)
    else:
        raise Refused("an object with a state of its own")


def _fill(array: Array, shape, dtype, order, values, axes=None) -> Array:
    if not isinstance(dtype, Dtype):
        raise Refused("an array of no plain dtype")
    if not isinstance(values, Blob | bytes):
        raise Refused("an array whose values are objects")
    if not _counts(shape) or order not in ("C", "F"):
        raise Refused("an array without a proper shape")
    if axes is not None and not (_counts(axes) and sorted(axes) == list(range(len(shape)))):
        raise Refused("an array without a proper shape")
    array.dtype, array.shape, array.order = dtype.resolve(), shape, order
    array.axes, array.values = axes, values
    return array


def _counts(values: object) -> bool:
    return (
        isinstance(values, tuple)
        and len(values) <= 8
        and all(isinstance(value, int) and 0 <= value < 2**40 for value in values)
    )


def _dtype(code, align=False, copy=False) -> Dtype:
    del align, copy
    if not isinstance(code, str) or not _PLAIN.fullmatch(code):
        raise Refused(f"NumPy data of type {code[:20] if isinstance(code, str) else type(code)!r}")
    return Dtype(code)


def _reconstruct(kind, shape, code) -> Array:
    del shape, code  # always (0,) and b"b"; the real ones come with the state
    if not isinstance(kind, Global) or kind.name != "ndarray":
        raise Refused("a subclass of ndarray")
    return Array()


def _frombuffer(values, dtype, shape, order, axes=None) -> Array:
    return _fill(Array(), shape, dtype, "C" if order == "K" else order, values, axes)


def _scalar(dtype, values) -> int | float | bool | str | bytes:
    array = _fill(Array(), (), dtype, "C", values)
    if isinstance(values, Blob):
        raise Refused("a NumPy scalar of many bytes")
    return read_array(None, array).item()


def _encode(text, encoding) -> bytes | Blob:
    """How protocol 2 spells bytes."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str | Blob):
        raise Refused("a call of _codecs.encode on something else than bytes")
    return text if isinstance(text, Blob) else text.encode("latin1")


def _bytes() -> bytes:
    return b""


CALLS = {
    "dtype": _dtype,
    "_reconstruct": _reconstruct,
    "_frombuffer": _frombuffer,
    "scalar": _scalar,
    "encode": _encode,
    "bytes": _bytes,
}
GLOBALS = {
    ("numpy", "ndarray"): Global("ndarray"),
    ("numpy", "dtype"): Global("dtype"),
    **{
        (f"numpy.{core}.{module}", name): Global(name)
        for core in ("core", "_core")  # NumPy 1 and 2
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    },
    ("_codecs", "encode"): Global("encode"),
    ("__builtin__", "bytes"): Global("bytes"),  # protocol 2 uses Python 2's names
    ("builtins", "bytes"): Global("bytes"),
}
