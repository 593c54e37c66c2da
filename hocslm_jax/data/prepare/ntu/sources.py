"""Lists `.skeleton` files in folders, zips and tars without extracting them.

In: a path. Out: a Member for each file, small and picklable, from which a worker process reads the
bytes by itself. Tars can only be read forward, so they are read once to be listed and once more by
`open_tar`. Unreadable files are reported by name.
"""

import functools
import hashlib
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from hocslm_jax.data.prepare.archive import DAMAGED, Limits, as_posix, fingerprint, read_members
from hocslm_jax.errors import UserError

SUFFIX = ".skeleton"
MAX_BYTES = 16 << 20  # of one file; the longest real ones have 3 MB
_LIMITS = Limits(member_bytes=MAX_BYTES)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Member(NamedTuple):
    """A file: `name` within the folder or archive `source`.

    `place` is None for a file of a folder or a zip, and its number for a file of a tar.
    """

    source: str
    name: str
    place: int | None

    @property
    def stem(self) -> str:
        """The name without folders and suffix."""
        return as_posix(self.name).rpartition("/")[2].removesuffix(SUFFIX)


OnBad = Callable[[str, str], None]


def list_members(source: Path, on_bad: OnBad) -> tuple[list[Member], dict]:
    """All files of one source, and its fingerprint, as JSON types.

    Raises:
      UserError: no such source, or an unreadable archive.
    """
    if source.is_dir():
        return _list_folder(source, on_bad)
    if not source.is_file():
        raise UserError(f"{source}: no such folder or archive")
    with source.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if is_zip:
        return _list_zip(source, on_bad), fingerprint(source)
    names = (name for name, _ in read_members(source, (SUFFIX,), _LIMITS))
    members = [Member(str(source), name, number) for number, name in enumerate(names)]
    return members, fingerprint(source)


def read_member(member: Member) -> bytes:
    """The bytes of a file of a folder or a zip.

    Raises:
      ValueError: the file is missing, damaged or has changed.
    """
    try:
        if os.path.isdir(member.source):
            with open(os.path.join(member.source, member.name), "rb") as file:
                data = file.read(MAX_BYTES + 1)
        else:
            archive = _open_zip(member.source, os.stat(member.source).st_mtime_ns)
            with archive.open(member.name) as file:
                data = file.read(MAX_BYTES + 1)
    except DAMAGED as error:
        raise ValueError(f"cannot be read ({error})") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"over {MAX_BYTES} bytes")
    return data


def open_tar(source: str) -> Iterator[bytes]:
    """The bytes of a tar's files, in the order of their numbers."""
    return (data for _, data in read_members(source, (SUFFIX,), _LIMITS))


def _list_folder(source: Path, on_bad: OnBad) -> tuple[list[Member], dict]:
    members, digest, root = [], hashlib.sha256(), source.resolve()
    for folder, folders, files in os.walk(source):
        folders.sort()
        for name in (name for name in folders if os.path.islink(os.path.join(folder, name))):
            on_bad(name, "a link to a folder; name that folder with another --source")
        for file in sorted(files):
            path = os.path.join(folder, file)
            name = os.path.relpath(path, source).replace(os.sep, "/")
            if not _wanted(name):
                continue
            try:
                if os.path.islink(path) and not Path(path).resolve().is_relative_to(root):
                    raise OSError("a link out of the folder")
                found = os.stat(path)
                if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
                    raise OSError(f"not a plain file of at most {MAX_BYTES} bytes")
            except OSError as error:
                on_bad(name, str(error))
                continue
            members.append(Member(str(source), name, None))
            digest.update(f"{name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return members, {"folder": digest.hexdigest()}


def _list_zip(source: Path, on_bad: OnBad) -> list[Member]:
    try:
        with zipfile.ZipFile(source) as archive:
            infos = [info for info in archive.infolist() if _wanted(info.filename)]
    except DAMAGED as error:
        raise UserError(f"{source}: unreadable archive ({error})") from error
    members = []
    for info in infos:
        if info.flag_bits & 1:
            on_bad(info.filename, "encrypted")
        elif info.compress_type not in _METHODS:
            on_bad(info.filename, f"packed by method {info.compress_type}; zip it with deflate")
        elif info.file_size > MAX_BYTES:
            on_bad(info.filename, f"over {MAX_BYTES} bytes")
        else:
            members.append(Member(str(source), info.filename, None))
    return members


@functools.lru_cache(maxsize=8)
def _open_zip(source: str, changed: int) -> zipfile.ZipFile:
    del changed  # `changed` reopens a file that has changed
    return zipfile.ZipFile(source)


def _wanted(name: str) -> bool:
    *folders, file = as_posix(name).split("/")
    litter = file.startswith("._") or "__MACOSX" in folders
    return file.endswith(SUFFIX) and not litter
