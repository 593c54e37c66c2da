"""Bad source files: one entry each with file, line and reason, as `bad_files.json` lists them."""

import re
import sys
from pathlib import Path

from hocslm_jax.errors import brief
from hocslm_jax.files.atomic import write_json

BAD_FILES = "bad_files.json"
MAX_LISTED = 50  # on the terminal

BadFile = dict[str, str | int | None]  # file, line, reason

_LINE = re.compile(r"line (\d+): (.*)", re.DOTALL)


def bad_file(file: str, reason: str) -> BadFile:
    """With the line that a reason may begin with as a number."""
    match = _LINE.fullmatch(reason)
    line, reason = (int(match[1]), match[2]) if match else (None, reason)
    return {"file": file, "line": line, "reason": reason}


def report(bad: list[BadFile], folder: Path) -> None:
    """Lists them in `folder`, and the first ones on the terminal; a list that was there goes."""
    (folder / BAD_FILES).unlink(missing_ok=True)
    if bad:
        write_json(folder / BAD_FILES, bad)
    for entry in bad[:MAX_LISTED]:
        line = f", line {entry['line']}" if entry["line"] else ""
        print(brief(f"bad file {entry['file']}{line}: {entry['reason']}"), file=sys.stderr)
