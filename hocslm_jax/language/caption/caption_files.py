"""The JSONL files of a captioning run: `captions.jsonl`, and beside it `captions.rejected.jsonl`.

In: records with an id. Out: lines, written immediately, so that a killed run loses none; and the
records of earlier runs. An unfinished last line is removed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from hocslm_jax.errors import UserError
from hocslm_jax.files.text import parse_json

Write = Callable[[dict], None]


def rejected_file(path: str | Path) -> Path:
    """The file of rejected answers beside the captions file `path`."""
    return Path(path).with_suffix(".rejected.jsonl")


def way_of(settings: dict) -> str:
    """A short name for the settings of a request: a hash.

    Args:
      settings: JSON types, in any order.
    """
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


@contextlib.contextmanager
def appending(path: Path, key: str) -> Iterator[tuple[Write, list[tuple[str, str]]]]:
    """Opens a file for appending: a function that writes a record immediately, and its records.

    Each existing record is given as its id and its text of `key`, or "" if it has none.

    Raises:
      UserError: the file cannot be written, another run writes it, or a line is damaged.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is not a plain file: name another one for the captions")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another run is writing it; wait, or name another") from None
        except OSError:
            pass  # some network file systems do not support locks
        try:
            found = _records(path, file, key)
            yield lambda record: file.write(json.dumps(record).encode() + b"\n"), found
        finally:
            if not os.fstat(file.fileno()).st_size:
                path.unlink(missing_ok=True)


def _records(path: Path, file, key: str) -> list[tuple[str, str]]:
    """The records for `appending`; removes the unfinished last line of a killed run."""
    data, found = path.read_bytes(), []
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        try:
            if line.strip():
                record = parse_json(line)
                value = record.get(key, "")
                if not isinstance(value, str):
                    raise TypeError(key)
                found.append((str(record["id"]), value))
        except (ValueError, TypeError, KeyError, AttributeError):
            if line.endswith(b"\n"):
                raise UserError(f"{path}:{number}: not a caption; fix or delete the line") from None
            file.truncate(len(data) - len(line))
            return found
    if data and not data.endswith(b"\n"):
        file.write(b"\n")
    return found
