"""Reads arrays from untrusted .npy and .npz files: nothing is unpickled, and sizes are checked.

In: a path. Out: arrays of numbers or text. NumPy reads shape and type from a header with Python's
parser, whose errors become ValueErrors. Memory is allocated only after the file is known to hold as
many bytes as the header states.
"""

import math
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

MAX_BYTES = 256 << 20  # of a .npy file, and of all that an .npz file unpacks to
PLAIN = "biufcU"  # kinds of dtype: numbers, booleans, text
DAMAGED = (  # errors of zipfile and its decoders for a broken or hostile file
    *(OSError, EOFError, RuntimeError, ValueError, OverflowError, KeyError, IndexError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype) of an array; leaves the file at its first value.

    Raises:
      ValueError: an invalid header, or an array of objects or records.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. about odd escapes in a hostile header
            shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception as error:  # the parser raises many types, e.g. TokenError and SyntaxError
        raise ValueError(f"no readable header ({type(error).__name__})") from None
    if dtype.kind not in PLAIN or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
        raise ValueError("not an array of numbers or text")
    return shape, fortran, dtype


def read_npy(path: Path) -> np.ndarray:
    """The array in a .npy file, read-only.

    Raises:
      ValueError: with the reason: the file is missing, not a plain .npy file, truncated, or too
        large.
    """
    try:
        if not path.is_file():  # reading a pipe would block
            reason = "not a plain file" if path.exists() else "no such file"
            raise ValueError(f"{reason}: {path}")
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise ValueError("empty file")
            shape, fortran, dtype = read_header(file)
            size = path.stat().st_size - file.tell()
            return _values(shape, fortran, dtype, size, file, MAX_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"not a readable .npy file ({reason})") from None


def read_npz(path: Path, limit: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name, read-only.

    Raises:
      ValueError: with the reason: the file is missing or damaged, has an array of objects, or
        unpacks to more than `limit` bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if sum(info.file_size for info in infos) > limit or len(infos) > 1000:
                raise ValueError(f"it unpacks to over {limit} bytes")
            found = {}
            for info in infos:
                name = info.filename.removesuffix(".npy")
                with archive.open(info) as member:
                    header = _header_of(name, member)
                    size = info.file_size - member.tell()
                    found[name] = _values(*header, size, member, limit)
            return found
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(" ".join(str(reason).split())) from None


def _header_of(name: str, member: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        return read_header(member)
    except ValueError as error:
        raise ValueError(f"array {name[:50]!r}: {error}") from None


def _values(shape, fortran: bool, dtype, size: int, file: BinaryIO, limit: int) -> np.ndarray:
    needed = math.prod(shape) * dtype.itemsize
    if needed != size or needed > limit:
        raise ValueError(f"shape {shape} of {dtype} makes {needed} bytes, but {size} are there")
    data = file.read(needed)
    if len(data) != needed:
        raise ValueError(f"it ends after {len(data)} of {needed} bytes")
    if not needed:
        return np.empty(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
