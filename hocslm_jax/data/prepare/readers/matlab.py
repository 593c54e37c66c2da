"""Joints in MATLAB's .mat files, versions 5 to 7, such as UTD-MHAD's `d_skel`.

In: a path. Out: a Recording. Compressed variables are unpacked here, up to a limit, before SciPy
reads them; only the array of joints is read.
"""

import io
import struct
import warnings
import zlib
from pathlib import Path

import scipy  # loads scipy.io on first use

from hocslm_jax.data.prepare.readers.arrays import from_array, pick
from hocslm_jax.data.prepare.readers.recording import Recording, check_size
from hocslm_jax.files.text import read_bytes
from hocslm_jax.graph import GRAPHS, Graph

MAX_BYTES = 64 << 20  # of a file, packed or unpacked
MAX_VARIABLES = 1000
_HEADER, _COMPRESSED = 128, 15
_KINDS = (
    "double",
    "single",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
# Axes and layout of known variables.
KNOWN = {"d_skel": ("VCT", "utd20")}


def read_mat(
    path: Path, axes: str | None = None, layout: Graph | None = None, likely: int = 0
) -> Recording:
    """The joints of a .mat file: `d_skel` as in UTD-MHAD, or the only array with 3 or 4 axes.

    Raises:
      ValueError: with the reason: the file has another version, is damaged or too large, has no or
        several such arrays, or as `from_array`.
    """
    data = _unpacked(read_bytes(path, MAX_BYTES))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. about repeated names
            variables = scipy.io.whosmat(io.BytesIO(data))
    except Exception as error:  # SciPy's parser raises many types for damaged files
        raise ValueError(f"not a readable .mat file ({type(error).__name__})") from None
    shapes = {name: tuple(shape) for name, shape, kind in variables if kind in _KINDS}
    name = next((key for key in KNOWN if len(shapes.get(key, ())) == 3), None) or pick(shapes)
    check_size(shapes[name])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            array = scipy.io.loadmat(io.BytesIO(data), variable_names=[name])[name]
    except Exception as error:
        raise ValueError(f"variable {name[:50]!r} is damaged ({type(error).__name__})") from None
    if name in KNOWN and axes is None and array.shape[:2] == (20, 3):
        known_axes, known_layout = KNOWN[name]
        return from_array(array, known_axes, layout or GRAPHS[known_layout])
    return from_array(array, axes, layout, likely=likely)


def _unpacked(data: bytes) -> bytes:
    """The file with its compressed variables decompressed."""
    if data[:10] == b"MATLAB 7.3":
        raise ValueError("MATLAB 7.3 files are HDF5; save it with -v7")
    if len(data) < _HEADER or data[:6] != b"MATLAB" or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("not a .mat file of version 5 to 7")
    order = "<" if data[126:128] == b"IM" else ">"
    parts, at, left = [data[:_HEADER]], _HEADER, MAX_BYTES
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        body = data[at + 8 : at + 8 + size]
        if len(body) != size:
            raise ValueError("it is cut off")
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            try:
                body = unpacker.decompress(body, left)
            except zlib.error as error:
                raise ValueError(f"damaged ({error})") from None
            if unpacker.unconsumed_tail:
                raise ValueError(f"it unpacks to over {MAX_BYTES} bytes")
            parts.append(body)
        else:
            parts.append(data[at : at + 8] + body)
        left -= len(parts[-1])
        if left <= 0:
            raise ValueError(f"it unpacks to over {MAX_BYTES} bytes")
        at += 8 + size
        if len(parts) > MAX_VARIABLES:
            raise ValueError(f"over {MAX_VARIABLES} variables")
    return b"".join(parts)
