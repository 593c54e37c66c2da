"""NTU RGB+D `.skeleton` files: parses their bytes into tracked bodies, or reports the wrong line.

A file is text: the number of frames; for each frame the number of bodies; for each body a line of
10 numbers that begins with its id, the number of joints (25) and a line of 12 numbers for each
joint, x y z in metres first. No memory is allocated based on numbers in the file.
"""

import dataclasses
import re
from typing import NamedTuple

import numpy as np

from hocslm_jax.data.clip import Nobody

NUM_JOINTS = 25
_HEADER_WIDTH, _JOINT_WIDTH = 10, 12  # tokens of a line
_JOINT_BLANKS = NUM_JOINTS * [_JOINT_WIDTH - 1]
_LETTERS = b" \n\r\t+-.0123456789eENnAaIiFfTtYy"  # of numbers, NaN, Infinity
MAX_LINES = 400_000  # of a file; the longest real ones have some 30,000
_LONGEST_LINE = 2000  # characters; real ones have 150
_COUNT = re.compile(rb"[0-9]{1,9}")
_ID = re.compile(rb"[0-9]{1,20}")
_ODD_BLANKS = (b"  ", b"\t", b" \r", b" \n", b"\n ")
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")


@dataclasses.dataclass(frozen=True)
class Body:
    """One tracked person.

    Attributes:
      frames: int [n], the frames in which it was seen, ascending; only frames with a body count.
      joints: float32 [n, 25, 3], metres.
    """

    frames: np.ndarray
    joints: np.ndarray


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A file: the number of frames with a body, and the bodies by id, in order of appearance."""

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
      Nobody: no frame holds a body.
      ValueError: "line N: reason", if the file violates the format or a coordinate is not finite.
        Columns after x y z may hold NaN, as in real files.
    """
    if data.count(b"\n") > MAX_LINES:
        raise ValueError(f"line {MAX_LINES + 1}: too many lines for a recording")
    lines = _Lines(data)
    frames: list[int] = []  # of each pose, counting only frames that hold any body
    joints: list[float] = []  # x y z of each pose's 25 joints
    starts: list[int] = []  # the line before each pose's first joint
    poses: dict[str, list[int]] = {}  # body id: its poses
    valid, num_frames = 0, lines.count("the number of frames")
    for _ in range(num_frames):
        num_bodies = lines.count("the number of bodies")
        for _ in range(num_bodies):
            key = lines.take("a body's header", _HEADER_WIDTH, _ID).decode()
            poses.setdefault(key, []).append(len(frames))
            if (found := lines.count("the number of joints")) != NUM_JOINTS:
                raise lines.error(f"{found} joints, expected {NUM_JOINTS}")
            frames.append(valid)
            starts.append(lines.number)
            joints += lines.joints()
        valid += num_bodies > 0
    if not lines.at_end():
        lines.number += 1
        raise lines.error(f"more lines than {num_frames} frames have")
    if not valid:
        raise Nobody("line 1: no frame holds a body")
    with np.errstate(over="ignore"):
        array = np.array(joints).astype(np.float32).reshape(-1, NUM_JOINTS, 3)
    if not np.isfinite(array).all():
        pose, joint, _ = np.argwhere(~np.isfinite(array))[0]
        lines.number = starts[pose] + int(joint) + 1
        raise lines.error(f"{_quote(lines.text())} has a coordinate that is not finite")
    bodies = {key: Body(np.array(frames)[rows], array[rows]) for key, rows in poses.items()}
    return Skeleton(valid, bodies)


class _Lines:
    """The lines of a file, read one after another; `number` is that of the last line read.

    Tokens of a line are separated by one blank, and there are no others.
    """

    def __init__(self, data: bytes):
        self.lines = data.rstrip().splitlines()
        self.number = 0
        for number, line in enumerate(self.lines, 1):
            if len(line) > _LONGEST_LINE:
                raise ValueError(f"line {number}: {len(line)} letters long")
        if data.startswith(b" ") or any(blanks in data for blanks in _ODD_BLANKS):
            self.lines = [b" ".join(line.split()) for line in self.lines]
        if data.translate(None, _LETTERS):
            for line in self.lines:
                self.number += 1
                for token in line.split():
                    if token.translate(None, _LETTERS):
                        raise self.error(f"{_quote(token)} is not a number")
        if not self.lines:
            raise ValueError("line 1: empty file")

    def error(self, reason: str) -> ValueError:
        return ValueError(f"line {self.number}: {reason}")

    def text(self) -> bytes:
        return self.lines[self.number - 1]

    def at_end(self) -> bool:
        return self.number == len(self.lines)

    def take(self, what: str, width: int, first: re.Pattern) -> bytes:
        """The first token of the next line, which must have `width` tokens."""
        if self.at_end():
            raise self.error(f"the file ends where {what} should follow")
        self.number += 1
        self.check_width(what, width)
        token, _, _ = self.text().partition(b" ")
        if not first.fullmatch(token):
            raise self.error(f"{what} cannot begin with {_quote(token)}")
        return token

    def check_width(self, what: str, width: int) -> None:
        line = self.text()
        found = line.count(b" ") + bool(line)
        if found != width:
            raise self.error(f"{found} tokens, {what} has {width}")

    def count(self, what: str) -> int:
        return int(self.take(what, 1, _COUNT))

    def joints(self) -> list[float]:
        """x y z of the next 25 lines."""
        first, self.number = self.number, min(self.number + NUM_JOINTS, len(self.lines))
        block = self.lines[first : self.number]
        try:
            if [line.count(b" ") for line in block] == _JOINT_BLANKS:
                rows = [line.split(b" ", 3) for line in block]
                return [float(number) for row in rows for number in row[:3]]
        except ValueError:
            pass
        self.number = first
        for _ in block:  # to say which line is wrong
            self.number += 1
            self.check_width("a joint", _JOINT_WIDTH)
            for token in self.text().split(b" ", 3)[:3]:
                try:
                    float(token)
                except ValueError:
                    raise self.error(f"{_quote(token)} is not a number") from None
        raise self.error("the file ends where a joint should follow")


def _quote(token: bytes) -> str:
    return repr(token[:20].decode("ascii", "backslashreplace"))
