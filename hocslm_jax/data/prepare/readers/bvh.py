"""Motion capture in Biovision's BVH format: a hierarchy of bones, and their angles per frame.

In: a path. Out: a Recording of the joints' positions, from the angles by forward kinematics, with
the file's own hierarchy as its layout. End sites are not joints. y is up, as the format requires.
"""

import dataclasses
import re
import warnings
from pathlib import Path

import numpy as np

from hocslm_jax.data.prepare.readers.recording import Recording, check_size, guess_unit
from hocslm_jax.files.text import decode, read_bytes
from hocslm_jax.graph import MAX_JOINTS, Graph

MAX_BYTES = 64 << 20
MAX_HEAD = 1 << 20
_WORDS = re.compile(r"[{}]|[^\s{}]+")
_CHANNEL = re.compile(r"([XYZ])(position|rotation)", re.IGNORECASE)
_END = -1  # index of end sites and of the root's parent


@dataclasses.dataclass
class _Bone:
    """A joint of the hierarchy.

    Attributes:
      parent: index of the parent bone; -1 = none.
      offset: from the parent, 3 numbers.
      channels: for each of its values in a frame, (axis, whether it is a rotation).
    """

    name: str
    parent: int
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    channels: tuple[tuple[int, bool], ...] = ()


def read_bvh(path: Path) -> Recording:
    """The joints of one BVH file, [T, 1, V, 3].

    Raises:
      ValueError: with the reason: a missing or damaged hierarchy, or a number of values that does
        not match channels and frames.
    """
    text = decode(read_bytes(path, MAX_BYTES), "it")
    motion = re.search(r"^[ \t]*MOTION\b", text, re.MULTILINE)
    if not motion or text.lstrip()[:9].upper() != "HIERARCHY":
        raise ValueError("not a BVH file: HIERARCHY and MOTION expected")
    if motion.start() > MAX_HEAD:
        raise ValueError(f"a hierarchy of over {MAX_HEAD} characters")
    bones = _hierarchy(_WORDS.findall(text[: motion.start()])[1:])
    channels = sum(len(bone.channels) for bone in bones)
    seconds, values = _motion(text[motion.end() :], channels)
    positions = _positions(bones, values)
    joints = positions.astype(np.float32)[:, None]  # [T, 1, V, 3]
    graph = Graph(
        name="bvh",
        joints=_unique([bone.name for bone in bones]),
        edges=tuple((v, bone.parent) for v, bone in enumerate(bones) if bone.parent >= 0),
        root=0,
    )
    unit = guess_unit(joints)
    fps = round(1 / seconds, 3) if seconds > 1e-4 else None
    return Recording(joints, layout=graph, names=graph.joints, unit=unit, up="y", fps=fps)


def _hierarchy(words: list[str]) -> list[_Bone]:
    """The bones, parents first, from the words between HIERARCHY and MOTION."""
    bones: list[_Bone] = []
    path: list[int] = []  # the bones whose braces are open; -1 for an end site
    words = [*words, ""]  # so that a truncated hierarchy ends in an unexpected word
    at = 0
    while words[at]:
        word, inside = words[at].upper(), path[-1] if path else _END
        if word in ("ROOT", "JOINT"):
            start = at + 1
            while words[at] not in ("{", ""):
                at += 1
            name = " ".join(words[start:at])[:100]
            if (word == "ROOT") != (not bones) or (bones and inside == _END):
                raise ValueError(f"{word} {name[:30]!r} is not expected there")
            bones.append(_Bone(name, inside))
            path.append(len(bones) - 1)
            at += 1
        elif word == "END" and words[at + 1 : at + 3][1:] == ["{"]:
            path.append(_END)
            at += 3
        elif word == "}" and path:
            path.pop()
            at += 1
        elif word == "OFFSET" and path:
            offset = tuple(_number(value) for value in words[at + 1 : at + 4])
            if inside != _END and len(offset) == 3:
                bones[inside].offset = offset
            at += 4
        elif word == "CHANNELS" and inside != _END and re.fullmatch("[0-9]", words[at + 1]):
            count = int(words[at + 1])
            names = words[at + 2 : at + 2 + count]
            bones[inside].channels = tuple(_channel(name) for name in names)
            at += 2 + count
        else:
            raise ValueError(f"{words[at][:30]!r} is not expected in the hierarchy")
        if len(bones) > MAX_JOINTS or at >= len(words):
            raise ValueError("too many joints" if len(bones) > MAX_JOINTS else "it is cut off")
    if not bones or path:
        raise ValueError("the hierarchy is cut off" if bones else "no ROOT in the hierarchy")
    return bones


def _channel(name: str) -> tuple[int, bool]:
    match = _CHANNEL.fullmatch(name)
    if not match:
        raise ValueError(f"unknown channel {name[:30]!r}")
    return "XYZ".index(match[1].upper()), match[2].lower() == "rotation"


def _motion(text: str, channels: int) -> tuple[float, np.ndarray]:
    """(seconds of a frame, values [T, channels])."""
    match = re.match(r"\s*Frames:\s*(\d{1,9})\s+Frame Time:\s*(\S{1,40})", text, re.IGNORECASE)
    if not match:
        raise ValueError("MOTION without Frames and Frame Time")
    frames, seconds = int(match[1]), _number(match[2])
    check_size((frames, max(channels, 1)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy only warns about values that are not numbers
            values = np.fromstring(text[match.end() :], np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        raise ValueError("values of the motion that are not numbers") from None
    if not frames or values.size != frames * channels:
        raise ValueError(f"{values.size} values for {frames} frames of {channels} channels")
    if not np.isfinite(values).all():
        raise ValueError("values of the motion that are not finite")
    return seconds, values.reshape(frames, channels)


def _positions(bones: list[_Bone], values: np.ndarray) -> np.ndarray:
    """World positions [T, V, 3] by forward kinematics.

    Rotations apply in the order of the channels, each about the axis that the previous ones
    rotated. The root's position is added to its offset; the position of any other bone replaces its
    offset.
    """
    frames, first = len(values), 0
    positions = np.empty((frames, len(bones), 3))
    turns: list[np.ndarray] = []  # [T, 3, 3] each
    check_size((frames, len(bones), 3))
    for v, bone in enumerate(bones):
        here = values[:, first : first + len(bone.channels)]
        first += len(bone.channels)
        offset = np.broadcast_to(bone.offset, (frames, 3)).copy()
        turn = np.broadcast_to(np.eye(3), (frames, 3, 3))
        for (axis, turns_it), value in zip(bone.channels, here.T, strict=True):
            if turns_it:
                turn = turn @ _about(axis, np.deg2rad(value))
            else:
                offset[:, axis] = value + (bone.offset[axis] if bone.parent < 0 else 0)
        if bone.parent < 0:
            positions[:, v] = offset
        else:
            above = turns[bone.parent]
            positions[:, v] = positions[:, bone.parent] + np.einsum("tij,tj->ti", above, offset)
            turn = above @ turn
        turns.append(turn)
    return positions


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    """Rotations [T, 3, 3] about x, y or z by angles [T] in radians."""
    matrix = np.zeros((len(angle), 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[:, axis, axis] = 1
    matrix[:, i, i] = matrix[:, j, j] = np.cos(angle)
    matrix[:, j, i] = np.sin(angle)
    matrix[:, i, j] = -np.sin(angle)
    return matrix


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text[:30]!r} is not a number") from None
    if not abs(number) < 1e9:
        raise ValueError(f"{text[:30]!r} is too large")
    return number


def _unique(names: list[str]) -> tuple[str, ...]:
    """Makes names unique by adding numbers to repeated ones."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
