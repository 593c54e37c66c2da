"""Text in figures, in any script that the installed fonts have.

In: names of classes and clips, in any language. Out: the font families that draw them, and the
texts with an escape such as \\u5750 for each letter that no font has.
"""

import functools
from collections.abc import Iterable

from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

USUAL = "DejaVu Sans"  # comes with Matplotlib
PLACEHOLDERS = ("Last Resort",)  # families that draw a box for every letter
LONGEST = 80  # the most characters of a text that are drawn


def families(texts: str | Iterable[str]) -> list[str]:
    """Matplotlib's `family=` for texts: the usual family, and others for the letters it lacks."""
    found, missing = [USUAL], set("".join(texts)) - _letters(USUAL)
    while missing:
        best = max(_installed(), key=lambda name: len(missing & _letters(name)))
        if not missing & _letters(best):
            break
        found.append(best)
        missing -= _letters(best)
    return found


def drawable(text: str) -> str:
    """`text`, at most `LONGEST` characters, with escapes for letters that no font has."""
    text = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    known = frozenset().union(*map(_letters, families(text)))
    return "".join(c if c in known else c.encode("unicode_escape").decode() for c in text)


@functools.cache
def _installed() -> tuple[str, ...]:
    names = {font.name for font in font_manager.fontManager.ttflist}
    return tuple(sorted(name for name in names if not name.startswith(PLACEHOLDERS)))


@functools.cache
def _letters(family: str) -> frozenset[str]:
    """The letters of the plain style of a family, without control characters."""
    try:
        path = font_manager.findfont(family, fallback_to_default=False)
        codes = FT2Font(path).get_charmap()
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    return frozenset(chr(code) for code in codes if code >= 32 and not 0x7F <= code < 0xA0)
