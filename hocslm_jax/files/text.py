"""Reads text files of people and other programs: lines, tables and JSON.

In: a path. Out: text, lines, rows or JSON values. A byte order mark, Windows line ends, blanks
around cells, and tables with `;` or tabs are accepted, since spreadsheets write them. Errors are
UserErrors that name the file and the content found.
"""

import codecs
import csv
import io
import json
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from hocslm_jax.errors import UserError

MAX_BYTES = 256 << 20  # of a text
MAX_ROWS = 500_000  # of a table
MAX_JSON_BYTES = 16 << 20  # JSON needs up to twenty times as much memory
SEPARATORS = ",;\t"
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def read_bytes(path: str | Path, limit: int = MAX_BYTES, advice: str = "") -> bytes:
    """A file's content.

    Args:
      advice: tells the user what to do if there is no such file.

    Raises:
      UserError: no such file, not a plain one (a folder, a pipe), too large, or unreadable.
    """
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f"{path} is not a plain file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file{advice and '; '}{advice}") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(path)!r} cannot be read ({reason})") from None
    if len(data) > limit:
        raise UserError(f"{path} has over {limit} bytes, too many for such a file")
    return data


def decode(data: bytes, where: object) -> str:
    """Decodes UTF-8, or UTF-16 with a byte order mark; the mark is removed.

    Raises:
      UserError: the bytes are not text; names `where` and the first wrong byte.
    """
    encoding = _MARKS.get(data[:2], "utf-8-sig")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        wrong, line = data[error.start], data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where} is not UTF-8 text: byte 0x{wrong:02x} in line {line}; save it as UTF-8"
        ) from None


def read_lines(path: str | Path, advice: str = "", limit: int = MAX_BYTES) -> list[tuple[int, str]]:
    """(number from 1, text without outer blanks) of every line that is not empty.

    Raises:
      UserError: as `read_bytes` and `decode`.
    """
    lines = io.StringIO(decode(read_bytes(path, limit, advice), path), newline=None)
    return [(number, text) for number, line in enumerate(lines, 1) if (text := line.strip())]


def parse_json(data: bytes | str) -> object:
    """A JSON value. Raises ValueError for invalid JSON, deep nesting and too long numbers."""
    try:
        return json.loads(decode(data, "it") if isinstance(data, bytes) else data)
    except (RecursionError, UserError) as error:
        raise ValueError(str(error)) from None


def read_json(
    path: str | Path, advice: str = "", limit: int = MAX_JSON_BYTES, kind: type = dict
) -> dict | list:
    """The object, or the list if `kind` says so, in a JSON file.

    Raises:
      UserError: as `read_bytes`, or the file holds another type.
    """
    data = read_bytes(path, limit, advice)
    try:
        found = parse_json(data)
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, kind):
        want = "an object" if kind is dict else "a list"
        raise UserError(f"{path} must hold {want}, but holds {type(found).__name__}")
    return found


def read_table(
    path: str | Path, required: Sequence[str], optional: Sequence[str] = (), advice: str = ""
) -> list[tuple[int, dict[str, str]]]:
    """(line, cell by column) of a table with a header; `,`, `;` or tabs separate its cells.

    Only the requested columns are kept; case and blanks in their names are ignored. Missing cells
    are "".

    Raises:
      UserError: as `read_bytes` and `decode`, no rows, or missing columns; lists the existing ones.
    """
    text = decode(read_bytes(path, advice=advice), path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)  # the comma if there is none
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    found, places = [], {}
    try:
        for row in table:
            cells = [cell.strip() for cell in row]
            if places and any(cells):
                kept = {name: cells[at] if at < len(cells) else "" for name, at in places.items()}
                found.append((table.line_num, kept))
            elif any(cells):
                places = _columns(path, cells, required, optional)
            if len(found) > MAX_ROWS:
                raise UserError(f"{path} has over {MAX_ROWS} rows, too many for such a file")
    except csv.Error as error:
        raise UserError(f"{path} is not a table ({error})") from None
    if not found:
        raise UserError(f"{path} has no rows")
    return found


def _columns(path, header: list[str], required, optional) -> dict[str, int]:
    """Column: its place."""
    names = [name.lower() for name in header]
    if missing := [name for name in required if name not in names]:
        raise UserError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(map(repr, header))}"
        )
    if twice := [name for name in (*required, *optional) if names.count(name) > 1]:
        raise UserError(f"{path} has the column {twice[0]!r} twice")
    return {name: names.index(name) for name in (*required, *optional) if name in names}


def find_inside(folder: Path, name: str, fits: Callable[[Path], bool] = Path.is_file) -> Path:
    r"""The file that a table in `folder` names, resolved; `a\b` is read as `a/b` if necessary.

    Args:
      fits: whether a path is of the kind that is looked for.

    Raises:
      ValueError: the file is outside the folder, does not exist, or does not fit; names it.
    """
    root = folder.resolve()
    names = [name, name.replace("\\", "/")]
    try:
        path = next((p for n in names if (p := (root / n).resolve()).exists()), root / names[1])
        if not path.resolve().is_relative_to(root):
            raise ValueError(f"{name} is outside the folder")
        if not path.exists():
            raise ValueError(f"no such file: {path}")
        if not fits(path):
            raise ValueError(f"not a plain file: {path}")
    except (OSError, RuntimeError) as error:  # a too long name, or a link to itself
        raise ValueError(f"{name[:100]!r} cannot be looked for ({error})") from None
    return path
