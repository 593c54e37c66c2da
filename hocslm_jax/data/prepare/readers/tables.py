"""Joints in .csv tables with a column for each coordinate: `left_elbow_x`, `nose.x`, `joint0_x`.

In: a path. Out: a Recording; the columns name the joints. Columns for frame numbers and persons are
recognised; empty cells are missing values.
"""

import array
import csv
import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hocslm_jax.data.prepare.readers.recording import (
    Detection,
    Recording,
    assemble,
    check_size,
    guess_unit,
    in_order_of,
    layout_of,
)
from hocslm_jax.files.text import SEPARATORS, decode, read_bytes
from hocslm_jax.graph import MAX_JOINTS

MAX_BYTES = 32 << 20
MAX_NAME = 100
_COORDINATE = re.compile(r"(.*?)[\s_.:/-]*(?<![a-z])([xyz])", re.IGNORECASE)
_INDEXED = re.compile(r"([xyz])[\s_.-]?(\d+)", re.IGNORECASE)  # x0, y_0
_SUFFIXED = re.compile(r"(.*?[a-z0-9])([XYZ])")  # leftElbowX
_SCORE = re.compile(
    r"(.+?)[\s_.:/-]+(c|s|v|conf|confidence|score|visibility|likelihood)", re.IGNORECASE
)
_PLACE = re.compile(r"(\D*)(\d{1,9})")
_FRAME = ("frame", "frame_index", "frame_id", "frame_number", "frame index", "image_id")
_PERSON = ("person", "person_id", "track", "track_id", "body", "body_id", "person id")
_OTHERS = (_FRAME, _PERSON)
_NO_VALUE = ("", "nan", "na", "null", "none", "-")


def read_csv(path: Path) -> Recording:
    """A table with a header; a row is a frame, or one person of a frame.

    Raises:
      ValueError: with the reason: no coordinates, a joint that lacks one, or cells that are not
        numbers.
    """
    rows = _rows(decode(read_bytes(path, MAX_BYTES), "it"))
    _, header = next(rows, (0, []))
    joints = _joints(header)
    axes = "xyz" if any("z" in columns for columns in joints.values()) else "xy"
    for name, columns in joints.items():
        if lost := [axis for axis in axes if axis not in columns]:
            raise ValueError(f"joint {name[:50]!r} has no column for {lost[0]}")
    scores = _scores(header, joints)
    order = [columns[axis] for columns in joints.values() for axis in axes]
    lower = [cell.lower() for cell in header]
    others = [next((lower.index(key) for key in keys if key in lower), None) for keys in _OTHERS]
    wanted = [*order, *(scores[name] for name in joints if name in scores)]
    frames, persons, values = _values(rows, header, wanted, others)
    coordinates = values[:, : len(order)].reshape(len(values), len(joints), len(axes))
    confidence = None
    if scores:
        places = [name in scores for name in joints]
        confidence = np.full((len(values), len(joints)), np.nan, np.float32)
        confidence[:, places] = values[:, len(order) :]
    return _recording(list(joints), frames, persons, coordinates, confidence)


def _recording(names, frames, persons, coordinates, confidence) -> Recording:
    scores = [None] * len(frames) if confidence is None else confidence
    rows = zip(frames, persons, coordinates, scores, strict=True)
    joints, confidence, tracks = assemble([Detection(*row) for row in rows])
    planar = joints.shape[3] == 2
    recording = Recording(
        joints,
        confidence,
        names=tuple(names),
        unit=guess_unit(joints),
        up="-y" if planar else None,
        tracks=tracks,
    )
    numbers = [_PLACE.fullmatch(name) for name in names]
    if all(numbers) and len({match[1] for match in numbers}) == 1:  # joint0, joint1, …
        return _by_place(recording, [int(match[2]) for match in numbers])
    layout = layout_of(names)
    return in_order_of(recording, layout) if layout else recording


def _by_place(recording: Recording, places: list[int]) -> Recording:
    """Sorts joints whose names are only numbers by these numbers."""
    order, confidence = np.argsort(places, kind="stable"), recording.confidence
    return dataclasses.replace(
        recording,
        joints=recording.joints[:, :, order],
        confidence=None if confidence is None else confidence[:, :, order],
        names=(),
    )


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of the rows that are not empty."""
    first = next((line for line in io.StringIO(text) if line.strip()), "")
    separator = max(SEPARATORS, key=first.count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    decimal = separator != ","  # 0,5 is a number if commas are not the separator
    try:
        for row in table:
            cells = [cell.strip() for cell in row]
            if any(cells):
                yield (
                    table.line_num,
                    [cell.replace(",", ".") for cell in cells] if decimal else cells,
                )
    except csv.Error as error:
        raise ValueError(f"not a table ({error})") from None


def _joints(header: list[str]) -> dict[str, dict[str, int]]:
    """For every joint the column of each axis."""
    joints: dict[str, dict[str, int]] = {}
    for column, cell in enumerate(header):
        name, axis = _name_and_axis(cell)
        if not name:
            continue
        places = joints.setdefault(name, {})
        if places.setdefault(axis, column) != column:
            raise ValueError(f"column {cell[:50]!r} occurs twice")
    if not joints:
        there = ", ".join(repr(cell[:30]) for cell in header[:5]) or "nothing"
        raise ValueError(f"no columns such as left_elbow_x, left_elbow_y; its header is {there}")
    if len(joints) > MAX_JOINTS:
        raise ValueError(f"{len(joints)} joints, too many for a skeleton")
    return joints


def _name_and_axis(cell: str) -> tuple[str, str]:
    """(joint, axis) of a coordinate's column; ("", "") for any other."""
    if len(cell) > MAX_NAME:
        return "", ""
    if match := _INDEXED.fullmatch(cell):
        return match[2], match[1].lower()
    match = _COORDINATE.fullmatch(cell) or _SUFFIXED.fullmatch(cell)
    return (match[1], match[2].lower()) if match else ("", "")


def _scores(header: list[str], joints: dict) -> dict[str, int]:
    """The column of the confidence of every joint that has one."""
    found = {}
    for column, cell in enumerate(header):
        match = _SCORE.fullmatch(cell[:MAX_NAME])
        if match and match[1] in joints:
            found.setdefault(match[1], column)
    return found


def _values(rows, header, wanted, others) -> tuple[list[int], list[str], np.ndarray]:
    """(frame, person, values of the wanted columns, float32 [N, wanted]) of all rows."""
    frame_column, person_column = others
    frames, persons, values = [], [], array.array("f")
    for line, cells in rows:
        if len(cells) != len(header):
            raise ValueError(f"line {line} has {len(cells)} cells, the header has {len(header)}")
        try:
            values.extend([float(cells[column]) for column in wanted])
        except ValueError:  # an empty or invalid cell
            values.extend([_number(cells[column], line, header[column]) for column in wanted])
        number = len(frames)
        if frame_column is not None:
            number = _number(cells[frame_column], line, header[frame_column])
            if not number.is_integer() or abs(number) > 1e15:
                raise ValueError(f"line {line}: {cells[frame_column][:30]!r} is not a frame number")
        frames.append(int(number))
        persons.append("" if person_column is None else cells[person_column])
        check_size((len(frames), len(wanted)))
    return frames, persons, np.frombuffer(values, np.float32).reshape(len(frames), len(wanted))


def _number(cell: str, line: int, column: str) -> float:
    if cell.lower() in _NO_VALUE:
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        raise ValueError(
            f"line {line}, column {column[:30]!r}: {cell[:30]!r} is not a number"
        ) from None
