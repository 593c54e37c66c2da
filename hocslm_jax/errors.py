"""The one exception for mistakes that a user can make and fix.

Its message says in one line what is wrong, where (file or id) and what to do, in about 300
characters. Command lines print it as `error: …` and exit with status 2; anything else that is
raised is a bug and keeps its traceback.
"""

from collections.abc import Iterable

LONGEST = 300  # characters of a line of a message that had to be cut
_TOLERATED = 400  # that is left whole, since several long paths may be in it
MOST_LINES = 20  # of a message that is a list
_END = 120  # characters kept of a long line's end, where a message says what to do


class UserError(Exception):
    """A mistake in what the user asked for or supplied; its text is bounded as by `brief`."""

    def __str__(self) -> str:
        return brief(super().__str__())


def brief(text: object) -> str:
    """`text` with at most 20 lines of at most 300 characters; a long one loses its middle."""
    lines = str(text).split("\n")
    more = [f"  … and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return "\n".join([_shortened(line) for line in lines[:MOST_LINES]] + more)


def few(items: Iterable[object], separator: str = ", ", most: int = 5) -> str:
    """The first five, and how many more there are."""
    items = list(map(str, items))
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more


def _shortened(line: str) -> str:
    return line if len(line) <= _TOLERATED else f"{line[: LONGEST - _END - 3]} … {line[-_END:]}"
