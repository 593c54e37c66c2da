"""Reads files from a folder, a .zip or a .tar(.gz/.bz2/.xz) without extracting anything.

In: a path. Out: (name, bytes) of each member with a wanted suffix. Members of folders and zips are
sorted by name; those of tars keep their order, since tars can only be read forward. Sources come
from the internet, so links, devices, names that leave the archive, and sizes beyond the limits
raise a UserError that names the archive and the member.
"""

import dataclasses
import hashlib
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from hocslm_jax.errors import UserError

DAMAGED = (  # errors of the decoders for a broken or unknown archive
    OSError,
    EOFError,
    RuntimeError,  # encrypted zip or unknown compression (NotImplementedError is a subclass)
    ValueError,  # impossible names, sizes and dates
    ArithmeticError,
    LookupError,
    TypeError,  # tarfile, if a compressed stream ends early
    AttributeError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
)
_HEADER_TYPES = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_HEADER_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a source: members, bytes of one member, bytes of all members together."""

    members: int = 1_000_000
    member_bytes: int = 256 << 20
    total_bytes: int = 256 << 30


def read_members(
    source: str | Path, suffixes: tuple[str, ...], limits: Limits = Limits()
) -> Iterator[tuple[str, bytes]]:
    """Yields (name, bytes) for every member of `source` whose name ends in one of `suffixes`.

    Names are relative, with forward slashes. Metadata files of macOS (`__MACOSX/`, `._name`) are
    skipped.

    Raises:
      UserError: no such source, not an archive, damaged or encrypted, or unsafe (see the module).
    """
    source = Path(source)
    if source.is_dir():
        return _from_folder(source, suffixes, limits)
    if not source.is_file():
        raise UserError(f"{source}: no such folder or archive")
    reader = _from_zip if _starts_as_zip(source) else _from_tar
    return _guarded(source, reader(source, suffixes, limits))


def fingerprint(source: str | Path) -> dict:
    """Identifies a source without reading all of it; JSON types.

    For an archive: its size, and a hash of its first and last MiB. For a folder: a hash of the
    names, sizes and modification times of its files.

    Raises:
      UserError: no such source.
    """
    source, digest = Path(source), hashlib.sha256()
    if source.is_dir():
        for path in sorted(path for path in source.rglob("*") if path.is_file()):
            stat = path.stat()
            name = path.relative_to(source).as_posix()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return {"folder": digest.hexdigest()}
    if not source.is_file():
        raise UserError(f"{source}: no such folder or archive")
    size = source.stat().st_size
    with source.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return {"archive": digest.hexdigest(), "bytes": size}


def _guarded(source: Path, members: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Turns the decoders' errors about a damaged archive into one UserError."""
    last = "its start"
    while True:
        try:
            name, data = next(members)
        except StopIteration:
            return
        except DAMAGED as error:
            reason = " ".join(str(error).split())  # some messages have several lines
            raise UserError(f"{source}: unreadable archive after {last} ({reason})") from error
        yield name, data
        last = name


def _from_folder(source: Path, suffixes, limits) -> Iterator[tuple[str, bytes]]:
    root = source.resolve()
    check = _Checker(source, limits)
    for path in sorted(p for p in source.rglob("*") if p.is_file() or p.is_symlink()):
        name = path.relative_to(source).as_posix()
        if not _wanted(name, suffixes):
            continue
        if not path.resolve().is_relative_to(root):
            raise UserError(f"{source}: {name} is a link out of the folder; remove it")
        if not path.is_file():
            raise UserError(f"{source}: {name} is a broken link; remove it")
        check(name, path.stat().st_size)
        yield name, path.read_bytes()


def _from_zip(source: Path, suffixes, limits) -> Iterator[tuple[str, bytes]]:
    check = _Checker(source, limits)
    with zipfile.ZipFile(source) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            info_name = as_posix(info.filename)
            unix_type = (info.external_attr >> 16) & 0o170000
            if unix_type not in (0, 0o100000, 0o040000):  # neither unknown, file nor folder
                raise UserError(f"{source}: {info.filename} is a link or device; refused")
            check(info_name, info.file_size)
            if not info.is_dir() and _wanted(info_name, suffixes):
                with archive.open(info) as member:  # never yields more than the declared size
                    yield info_name, member.read(limits.member_bytes)


def _from_tar(source: Path, suffixes, limits) -> Iterator[tuple[str, bytes]]:
    check = _Checker(source, limits)
    with tarfile.open(source, "r|*", tarinfo=_BoundedTarInfo) as archive:
        for info in archive:
            archive.members.clear()  # or every header would stay in memory
            if not (info.isreg() or info.isdir()):
                raise UserError(f"{source}: {info.name} is a link or device; refused")
            check(info.name, info.size)
            if info.isreg() and _wanted(info.name, suffixes):
                yield info.name.removeprefix("./"), archive.extractfile(info).read()


class _BoundedTarInfo(tarfile.TarInfo):
    """Refuses extended headers that would be read into memory at any size they claim."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        info = super().frombuf(buf, encoding, errors)
        if info.type in _HEADER_TYPES and info.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"an extended header of {info.size} bytes")
        return info


class _Checker:
    """Counts members and bytes as they are read; raises a UserError if a limit is exceeded."""

    def __init__(self, source: Path, limits: Limits):
        self.source, self.limits, self.members, self.bytes = source, limits, 0, 0

    def __call__(self, name: str, size: int) -> None:
        self.members += 1
        self.bytes += size
        where = f"{self.source}: {name!r}"
        if _escapes(name):
            raise UserError(f"{where} would leave the archive's folder; refused")
        if size > self.limits.member_bytes:
            raise UserError(f"{where} is over {self.limits.member_bytes} bytes; refused")
        if self.bytes > self.limits.total_bytes:
            raise UserError(f"{where} makes it over {self.limits.total_bytes} bytes; refused")
        if self.members > self.limits.members:
            raise UserError(f"{where} is one of more than {self.limits.members} members; refused")


def _escapes(name: str) -> bool:
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    rooted = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    return rooted or ".." in posix.parts or ".." in windows.parts or "\0" in name


def as_posix(name: str) -> str:
    """A member's name with forward slashes; some archives made on Windows have backslashes."""
    return name.replace("\\", "/")


def _wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    path = PurePosixPath(name)
    litter = "__MACOSX" in path.parts or path.name.startswith("._")
    return path.name.endswith(suffixes) and not litter


def _starts_as_zip(source: Path) -> bool:
    """Unlike `zipfile.is_zipfile`, which reads the end of a file, where a tar may hold a zip."""
    with source.open("rb") as file:
        return file.read(2) == b"PK"
