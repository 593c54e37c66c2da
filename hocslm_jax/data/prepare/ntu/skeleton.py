"""NTU RGB+D `.skeleton` files: bytes in, the tracked bodies out, or the line that is wrong.

A file is text: the number of frames; for each frame the number of bodies; for each body a line of
10 numbers that begins with its id, the number of joints (25) and a line of 12 numbers for each
joint, x y z in metres first. All lines are found and checked by whole-array operations; only a file
that fails them is walked line by line, to say where. Nothing is allocated from what a file claims.
"""

import dataclasses
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hocslm_jax.data.prepare.ntu.decimals import read_decimals

NUM_JOINTS = 25
_BODY_LINES = 2 + NUM_JOINTS
_HEADER_WIDTH, _JOINT_WIDTH = 10, 12  # tokens of a line
_BODY_SHAPE = np.array([_HEADER_WIDTH, 1] + NUM_JOINTS * [_JOINT_WIDTH])
_LETTERS = b" \n\r\t+-.0123456789eENnAaIiFfTtYy"  # of numbers, NaN, Infinity
MAX_LINES = 400_000  # of a file; the longest real ones have some 30,000
_LONGEST_LINE = 2000  # letters; real ones have 150
_LARGEST = float(np.finfo(np.float32).max)
_COUNT = re.compile(rb"[0-9]{1,9}\r?")
_ID = re.compile(rb"[0-9]{1,20}")
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")

# Once it has freed one large block, glibc keeps what is freed for the next file instead of giving
# it back to the system page by page, a quarter of the time.
np.empty(24 << 20, np.uint8)


@dataclasses.dataclass(frozen=True)
class Body:
    """One tracked person.

    Attributes:
      frames: int [n], where it was seen, ascending, counting only frames that hold any body.
      joints: float32 [n, 25, 3], metres.
    """

    frames: np.ndarray
    joints: np.ndarray


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A whole file: `num_frames` that hold any body, and the bodies by id, first seen first."""

    num_frames: int
    bodies: dict[str, Body]


class Name(NamedTuple):
    """The numbers in `SsssCcccPpppRrrrAaaa`, all counted from 1."""

    setup: int
    camera: int
    performer: int
    replication: int
    action: int


def parse_name(name: str) -> Name:
    """The fields of a file's name without folder and suffix; ValueError for any other."""
    match = _NAME.fullmatch(name)
    if not match or not all(fields := tuple(map(int, match.groups()))):
        raise ValueError("not named SsssCcccPpppRrrrAaaa")
    return Name(*fields)


def parse_skeleton(data: bytes) -> Skeleton:
    """The bodies of one `.skeleton` file.

    Raises:
      ValueError: "line N: reason", if anything in the file is not as the format says, a coordinate
        is not finite, or no frame holds a body. Columns after x y z may hold NaN, as real ones do.
    """
    if data.count(b"\n") > MAX_LINES:
        raise ValueError(f"line {MAX_LINES + 1}: too many lines for a recording")
    found = _read(data if data.endswith(b"\n") else data + b"\n")
    if found is None:  # perhaps only for odd blanks
        text = _tidy(data)
        found = _read(text)
        if found is None:
            raise ValueError(_complaint(text))
    counts, ids, joints = found
    counts = counts[counts > 0]
    if not len(counts):
        raise ValueError("line 1: no frame holds a body")
    frames = np.repeat(np.arange(len(counts)), counts)
    rows: dict[bytes, list[int]] = {}
    for row, key in enumerate(ids):
        rows.setdefault(key, []).append(row)
    bodies = {key.decode(): Body(frames[index], joints[index]) for key, index in rows.items()}
    return Skeleton(len(counts), bodies)


def _read(text: bytes) -> tuple[np.ndarray, list[bytes], np.ndarray] | None:
    """(bodies in each frame, id of each body, joints [bodies, 25, 3]); None if a line is wrong."""
    tokens = _Tokens.of(text)
    found = tokens and _find_bodies(tokens)
    if not found:
        return None
    counts, headers = found
    ids, joints = tokens.heads(headers), _read_joints(tokens, headers)
    if joints is None or not all(map(_ID.fullmatch, ids)):
        return None
    return counts, ids, joints


def _tidy(text: bytes) -> bytes:
    """The same lines with one space between tokens and none around them, up to the last token."""
    lines = text.rstrip().splitlines()
    if max(map(len, lines), default=0) <= _LONGEST_LINE and not text.translate(None, _LETTERS):
        lines = [b" ".join(line.split()) for line in lines]
    return b"".join(line + b"\n" for line in lines)


@dataclasses.dataclass(frozen=True)
class _Tokens:
    """Where the tokens of a text end, and which are on which line.

    Attributes:
      ends: int [1 + tokens], with a -1 before the first.
      first, width: int [lines], the number of tokens before a line and on it.
    """

    text: bytes
    ends: np.ndarray
    first: np.ndarray
    width: np.ndarray

    @classmethod
    def of(cls, text: bytes) -> "_Tokens | None":
        """None if two blanks are side by side, or for a letter that no number has.

        A carriage return before a newline stays at the end of its line's last token.
        """
        letters = np.frombuffer(text, np.uint8)
        blank = letters <= ord(" ")
        returns = letters == ord("\r") if b"\r" in text else None
        if returns is not None:
            blank ^= returns
        ends = np.flatnonzero(blank)
        newlines = letters[ends] == ord("\n")
        if returns is not None and np.count_nonzero(returns) != returns[ends[newlines] - 1].sum():
            return None
        last = np.flatnonzero(newlines)
        width = np.diff(last, prepend=-1)
        ends = np.concatenate(([-1], ends))
        if np.diff(ends).min(initial=2) < 2 or text.translate(None, _LETTERS):
            return None
        return cls(text, ends, last - width + 1, width)

    def heads(self, lines: np.ndarray) -> list[bytes]:
        """The first token of each of those lines."""
        first = self.first[lines]
        bounds = zip((self.ends[first] + 1).tolist(), self.ends[first + 1].tolist(), strict=True)
        return [self.text[start:end] for start, end in bounds]


def _find_bodies(tokens: _Tokens) -> tuple[np.ndarray, np.ndarray] | None:
    """(bodies in each frame, header line of each body); None if a line is not what it has to be."""
    width = tokens.width
    alone = np.flatnonzero(width == 1)  # the number of frames, of bodies, of joints
    numbers = tokens.heads(alone)
    if not len(alone) or alone[0] or not all(map(_COUNT.fullmatch, numbers)):
        return None
    numbers = np.array(list(map(int, numbers)))
    of_joints = width[alone - 1] == _HEADER_WIDTH
    of_joints[0] = False
    lines, counts = alone[~of_joints][1:], numbers[~of_joints][1:]
    frame_lines = np.diff(lines, append=len(width))
    if not len(lines) or len(lines) != numbers[0] or lines[0] != 1:
        return None
    if (frame_lines != 1 + _BODY_LINES * counts).any() or (numbers[of_joints] != NUM_JOINTS).any():
        return None
    nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # in its frame
    headers = np.repeat(lines, counts) + 1 + _BODY_LINES * nth
    shape = width[headers[:, None] + np.arange(_BODY_LINES)]
    return None if (shape != _BODY_SHAPE).any() else (counts, headers)


def _read_joints(tokens: _Tokens, headers: np.ndarray) -> np.ndarray | None:
    """x y z of every body, float32 [bodies, 25, 3]; None if they are not finite numbers."""
    lines = (headers[:, None] + np.arange(2, _BODY_LINES)).ravel()
    ends = tokens.ends[tokens.first[lines][:, None] + np.arange(4)]  # before x, of x, of y, of z
    try:
        values = read_decimals(tokens.text, ends[:, :3].ravel() + 1, ends[:, 1:].ravel())
    except ValueError:
        return None
    with np.errstate(over="ignore"):
        joints = values.astype(np.float32)
    return joints.reshape(-1, NUM_JOINTS, 3) if np.isfinite(joints).all() else None


def _complaint(text: bytes) -> str:
    """Walks a file that is known to be wrong to its first wrong line; "line N: reason"."""
    if not text:
        return "line 1: empty file"
    all_lines = text.removesuffix(b"\n").split(b"\n")
    lines = iter(enumerate(all_lines, 1))
    try:
        _, (num_frames, *_) = _take(lines, "the number of frames", 1, _COUNT)
        for _ in range(int(num_frames)):
            _, (num_bodies, *_) = _take(lines, "the number of bodies", 1, _COUNT)
            for _ in range(int(num_bodies)):
                _walk_body(lines)
    except EOFError as error:
        return f"line {len(all_lines)}: the file ends where {error} should follow"
    except ValueError as error:
        return str(error)
    line, _ = next(lines, (1, b""))
    if line > 1:
        return f"line {line}: more lines than {int(num_frames)} frames have"
    return "damaged" if int(num_frames) else "line 1: 0 frames"


def _walk_body(lines: Iterator[tuple[int, bytes]]) -> None:
    _take(lines, "a body's header", _HEADER_WIDTH, _ID)
    line, (num_joints, *_) = _take(lines, "the number of joints", 1, _COUNT)
    if int(num_joints) != NUM_JOINTS:
        raise ValueError(f"line {line}: {int(num_joints)} joints, expected {NUM_JOINTS}")
    for _ in range(NUM_JOINTS):
        line, tokens = _take(lines, "a joint", _JOINT_WIDTH)
        for token in tokens[:3]:
            if not abs(_number(line, token)) <= _LARGEST:
                raise ValueError(f"line {line}: the coordinate {_quote(token)} is not finite")


def _take(lines, what: str, width: int, first: re.Pattern | None = None) -> tuple[int, list[bytes]]:
    """The next line's number and tokens."""
    line, text = next(lines, (0, b""))
    if not line:
        raise EOFError(what)
    if len(text) > _LONGEST_LINE:
        raise ValueError(f"line {line}: {len(text)} letters long")
    tokens = [token for token in re.split(rb"[ \t]", text) if token]
    for token in tokens:
        if token.translate(None, _LETTERS):
            raise ValueError(f"line {line}: {_quote(token)} is not a number")
    if len(tokens) != width:
        raise ValueError(f"line {line}: {len(tokens)} tokens, {what} has {width}")
    if first and not first.fullmatch(tokens[0]):
        raise ValueError(f"line {line}: {what} cannot begin with {_quote(tokens[0])}")
    return line, tokens


def _number(line: int, token: bytes) -> float:
    try:
        return float(token)
    except ValueError:
        raise ValueError(f"line {line}: {_quote(token)} is not a number") from None


def _quote(token: bytes) -> str:
    return repr(token[:20].decode("ascii", "backslashreplace"))
