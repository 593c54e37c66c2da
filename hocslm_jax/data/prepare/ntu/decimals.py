"""Decimal numbers at known places in a text to float64: what `float()` gives, all at once.

In: the text, and where each number starts and ends. Out: float64, correctly rounded. Of a number
like `-0.04977756` the 16 letters before its end are gathered; the digits among them are joined to a
whole number and divided by a power of ten, both of which float64 holds exactly. The few that have
an exponent or more than 15 letters go through `float()`.
"""

import numpy as np

_WIDTH = 16  # letters; one fewer is used, because 10**15 < 2**53
_BLOCK = np.dtype(f"V{_WIDTH}")

# by length: which of a block's letters belong to the number, as bytes and as bits
_INSIDE = np.arange(_WIDTH) >= _WIDTH - np.arange(_WIDTH)[:, None]
_INSIDE_BLOCK, _INSIDE_BITS = _INSIDE.view(_BLOCK)[:, 0], (1 << np.arange(_WIDTH)) - 1

# by the bits of the dots: the power of ten that the dot stands for; NaN if there are several
_POWERS = np.full(1 << _WIDTH, np.nan)
_POWERS[1 << np.arange(_WIDTH)] = 10.0 ** np.arange(_WIDTH)
_POWERS[0] = 1


def read_decimals(text: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """float64 [n], the numbers text[start:end].

    Args:
      starts, ends: int [n], start < end.

    Raises:
      ValueError: one of them is not a number.
    """
    text = text.ljust(_WIDTH)
    negative = np.frombuffer(text, np.uint8)[starts] == ord("-")
    length = ends - starts - negative
    length *= (length < _WIDTH) & (ends >= _WIDTH)
    blocks = np.ndarray(len(text) - _WIDTH + 1, _BLOCK, text, strides=(1,))
    letters = _bytes(blocks[np.maximum(ends - _WIDTH, 0)])  # [n, 16], the number at the right
    inside = _bytes(_INSIDE_BLOCK[length]).view(bool)
    digits = letters - np.uint8(ord("0"))
    is_digit = (digits < 10) & inside
    is_dot = (letters == ord(".")) & inside

    dot, known = _bits(is_dot), _bits(is_digit | is_dot)
    power = _POWERS[dot]
    whole = _join(digits * is_digit)  # 12.34 is 12034, the dot a zero
    before = np.floor(whole / (10 * power))  # 12
    values = np.where(dot, whole - 9 * power * before, whole) / power
    values = np.where(negative, -values, values)
    others = np.isnan(power) | (known != _INSIDE_BITS[length]) | (known == dot)
    for i in np.flatnonzero(others):
        values[i] = float(text[starts[i] : ends[i]])
    return values


def _bytes(blocks: np.ndarray) -> np.ndarray:
    return blocks.view(np.uint8).reshape(-1, _WIDTH)


def _bits(flags: np.ndarray) -> np.ndarray:
    """uint16 [n]: the rows of bool [n, 16] as numbers, the last letter lowest."""
    return np.packbits(flags).view(">u2")


def _join(digits: np.ndarray) -> np.ndarray:
    """float64 [n]: the numbers whose digits are the rows of uint8 [n, 16], joined in pairs."""
    x = digits.view("<u8")  # [n, 2]
    x = (x * 10 + (x >> 8)) & 0x00FF00FF00FF00FF
    x = (x * 100 + (x >> 16)) & 0x0000FFFF0000FFFF
    x = (x * 10000 + (x >> 32)) & 0x00000000FFFFFFFF
    high, low = x.astype(np.float64).T
    return high * 1e8 + low
