"""Files and folders on disk: atomic writes, locks, and checks of paths.

In: paths. This module is independent of the files' content; all code that stores state on disk uses
it.
"""

import contextlib
import fcntl
import glob
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hocslm_jax.errors import UserError
from hocslm_jax.files import text

LOCK = "run.lock"
_SCHEME = re.compile(r"([a-zA-Z][\w+.-]+):/")


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yields the path of a new file to write, which replaces `path` atomically at the end.

    Readers see either the old file or the complete new one, also after a crash. After an exception
    the old file stays.
    """
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")  # writers depend on the suffix
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could lose the content
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, atomically."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Writes a JSON file, atomically."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def read_json(path: Path, advice: str, keys: tuple[str, ...] = ()) -> dict:
    """The JSON object in a file.

    Args:
        advice: tells the user what to do if that fails.
        keys: keys that the object must have.

    Raises:
        UserError: the file does not exist, or holds no JSON object with these keys.
    """
    try:
        value = text.read_json(path)
    except UserError as error:
        raise UserError(f"{error}: {advice}") from None
    if missing := set(keys) - set(value):
        raise UserError(f"{path} is damaged (no {sorted(missing)[0]!r} in it): {advice}")
    return value


@contextlib.contextmanager
def held(path: Path, doing: str) -> Iterator[None]:
    """Holds the lock file `path`; the operating system releases it if the process dies.

    Args:
        doing: what the holder does, for the message to others, e.g. "trains in runs/x".

    Raises:
        UserError: another process holds it (the message has its pid and host), or it cannot be
            created.
    """
    handle = _lock(path, doing)
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _lock(path: Path, doing: str) -> int:
    """Opens and locks the file at `path`, again if its last holder has removed it meanwhile."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            reason = f"cannot write {path}: {error.strerror}; choose another folder"
            raise UserError(reason) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(handle, 300).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise UserError(f"{who} {doing}: wait until it ends, or stop it") from None
        except OSError:
            return handle  # some network file systems have no locks
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)


def check_folder(flag: str, path: str | Path) -> None:
    """Refuses a path that is not on a file system, before anything is created there.

    Raises:
        UserError: a URL, or a name that a library would misread.
    """
    if match := _SCHEME.match(str(path)):
        raise UserError(f"{flag} {path}: {match[1]}:// is not supported; mount it as a folder")
    if "\\" in str(path) or "\0" in str(path) or not str(path):
        raise UserError(f"{flag} {str(path)!r}: choose a path without backslashes")


def make_folder(flag: str, path: Path) -> None:
    """Makes a folder with its parents. Raises UserError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{flag}: cannot create {path} ({error.strerror})") from error


def literal_globs() -> None:
    """Makes Orbax and TFDS work in folders whose name contains `[`, `*` or `?`.

    They search folders with `etils.epath`, which also treats the folder's own name as a pattern. In
    `runs/x[1]` it finds nothing, so that checkpoints could not be read.
    """
    from etils.epath.gpath import PosixGPath

    if PosixGPath.__dict__.get("glob") is not None:
        return
    general = PosixGPath.glob

    def literal(folder, pattern):
        if "://" in os.fspath(folder):
            return general(folder, pattern)
        return (folder / name for name in glob.glob(pattern, root_dir=os.fspath(folder)))

    PosixGPath.glob = literal
