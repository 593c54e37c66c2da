"""Reads an array in an .npz file a few rows at a time, since such files can exceed the memory.

In: a zip of .npy members, stored or deflated. Out: `Rows`, which knows shape and dtype of one array
and reads rows of it. Reading forward is cheap; a jump back or ahead reads all the data in between.
The zip's checksum is compared when the last row is read.
"""

import dataclasses
import functools
import math
import zipfile
from pathlib import Path

import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.files.npy import DAMAGED, read_header

MAX_BYTES = 64 << 30  # of an array; NTU 120's takes 11 GB
MAX_RATIO = 100  # of an array's bytes to the file's; padded NTU has about 10
FREE_BYTES = 256 << 20  # an array up to this size may have any ratio, as one-hot labels do

CHUNK = 1 << 20  # bytes that are read and forgotten at a time

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclasses.dataclass(frozen=True)
class Rows:
    """A float array [N, ...] in an .npz file.

    Attributes:
      path: the .npz file.
      name: of the array.
      shape, dtype: of the array, C order.
      start: bytes of the member before the first row.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, first: int, last: int) -> np.ndarray:
        """Rows `first` to `last` (exclusive), [last - first, ...], read-only.

        Raises:
          UserError: the file is damaged.
        """
        count = (last - first) * self.row_bytes
        try:
            self._go_to(self.start + first * self.row_bytes)
            data = self._member.read(count)
        except DAMAGED as error:
            raise _unreadable(self.path, self.name, error) from None
        if len(data) != count:
            raise _unreadable(self.path, self.name, f"it ends before row {last}")
        return np.frombuffer(data, self.dtype).reshape(-1, *self.shape[1:])

    def _go_to(self, place: int) -> None:
        """Reads up to a byte; since Python 3.12, no checksum is compared after a jump ahead."""
        if place < self._member.tell():
            self._member.seek(0)
        while self._member.tell() < place:
            if not self._member.read(min(place - self._member.tell(), CHUNK)):
                return

    @functools.cached_property
    def _member(self) -> zipfile.ZipExtFile:
        return zipfile.ZipFile(self.path).open(f"{self.name}.npy")

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_member"}


def open_rows(path: Path, names: tuple[str, ...]) -> dict[str, Rows]:
    """The arrays with these names in an .npz file.

    Raises:
      UserError: the file is missing or damaged, or an array is missing, not of floats, or too
        large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = {info.filename: info for info in archive.infolist()}
            if missing := [name for name in names if f"{name}.npy" not in found]:
                has = ", ".join(found)[:100]
                raise UserError(f"{path} lacks the arrays {', '.join(missing)}; it has {has!r}")
            return {name: _header(path, archive, name, found[f"{name}.npy"]) for name in names}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except DAMAGED as error:
        raise _unreadable(path, "its list of arrays", error) from None


def _header(path: Path, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> Rows:
    if info.compress_type not in _METHODS:
        raise UserError(f"{path}: {name} is neither stored nor deflated; save it with numpy.savez")
    with archive.open(info) as member:
        try:
            shape, fortran, dtype = read_header(member)
        except ValueError as error:
            raise _unreadable(path, name, error) from None
        rows = Rows(path, name, shape, dtype, member.tell())
    if dtype.kind != "f" or fortran or not shape:
        raise UserError(f"{path}: {name} is not a C-ordered array of floats ({dtype}, {shape})")
    size = rows.start + shape[0] * rows.row_bytes
    if size != info.file_size:
        raise _unreadable(path, name, f"shape {shape} makes {size} bytes, not {info.file_size}")
    if size > min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * info.compress_size)):
        raise UserError(f"{path}: {name} unpacks to {size} bytes, too many for what it is; refused")
    return rows


def _unreadable(path: Path, name: str, reason: object) -> UserError:
    reason = " ".join(str(reason).split())[:200]
    return UserError(f"{path}: {name} is damaged ({reason}); fetch the file again")
