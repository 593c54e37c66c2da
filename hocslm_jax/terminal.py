"""Common to all commands: safe output, error messages, and the exit status.

In: a function that does the work. Out: its exit status. Names of classes, files and archive members
may come from untrusted files, so control characters in output are escaped.
"""

import contextlib
import errno
import json
import os
import sys
import unicodedata
from collections.abc import Callable
from typing import TextIO

from hocslm_jax.errors import UserError, brief

CLOSED = 141  # the status of a program whose output pipe was closed, e.g. by `head`
# Errors caused by the machine's limits or permissions. Any other OSError is a bug.
_REFUSALS = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EFBIG", "EIO", "ESTALE", "EMFILE")
REFUSALS = {getattr(errno, name) for name in _REFUSALS}

# Unicode's classes of characters that change the order of letters.
_TURNING = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")


class Printable:
    """A text stream that escapes control characters and characters that it cannot encode."""

    def __init__(self, stream: TextIO, keep: str):
        self._stream, self._keep = stream, keep

    def write(self, text: str) -> int:
        self._stream.write(self._safe(text))
        return len(text)

    def _safe(self, text: str) -> str:
        return text if text.isascii() and text.isprintable() else "".join(map(self._letter, text))

    def _letter(self, letter: str) -> str:
        """The letter, or its escape in JSON's notation, so that lines of JSON stay valid."""
        control = unicodedata.category(letter) == "Cc" and letter not in self._keep
        turns = unicodedata.bidirectional(letter) in _TURNING
        try:
            letter.encode(getattr(self._stream, "encoding", None) or "utf-8")
        except UnicodeEncodeError:
            control = True
        return json.dumps(letter)[1:-1] if control or turns else letter

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


def run(act: Callable[[], int | None]) -> int:
    """Does the work and returns the exit status; a UserError is printed as one line."""
    # Progress bars return to the start of their line.
    out, err = Printable(sys.stdout, "\n\t"), Printable(sys.stderr, "\n\t\r")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            try:
                return act() or 0
            finally:
                sys.stdout.flush()  # here, so that a closed pipe is still noticed
        except BrokenPipeError:
            _forget_output()
            return CLOSED
        except (UserError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in REFUSALS:
                raise
            print(f"error: {_message(error)}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            return 130


def _message(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return brief(f"{where}{error.strerror}; free some space or fix the permissions, then rerun")


def _forget_output() -> None:
    """Lets Python exit without another attempt to write to the closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
