"""The joints of a prepared dataset by row, read from its records or kept in memory.

In: the folder that TFDS wrote. Out: float32 [T, M, V, 3] of one record. Only the joints of a record
are parsed, in a tenth of the time that TFDS needs to decode it all. TFDS decodes records whose
layout is not that of `prepare.writer`.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.files.atomic import literal_globs

SPLIT = "clips"  # the one TFDS split; protocols are indices, not copies


class Damaged(ValueError):
    """A record that cannot be read."""


@dataclasses.dataclass(frozen=True)
class Records:
    """Random access to decoded records; TFDS itself decodes every field or none."""

    serialized: Sequence[bytes]
    features: object

    def __len__(self) -> int:
        return len(self.serialized)

    def __getitem__(self, row: int) -> dict:
        """Raises Damaged."""
        try:
            return self.features.deserialize_example_np(self.raw(row))
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(str(error)) from None

    def raw(self, row: int) -> bytes:
        """A record as it was written. Raises Damaged."""
        try:
            return self.serialized[row]
        except Exception as error:  # the C++ library raises many types for a damaged file
            raise Damaged(str(error).partition("\n")[0]) from None


@dataclasses.dataclass(frozen=True)
class Joints:
    """The joints of every record, read on demand."""

    records: Records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> np.ndarray:
        """A fresh array. Raises Damaged."""
        record = self.records.raw(row)
        try:
            return parse_joints(record)
        except ValueError:
            return np.array(self.records[row]["joints"])


@dataclasses.dataclass(frozen=True)
class Pinned:
    """The joints of every record in memory; returned arrays are read-only views.

    Attributes:
      values: float32, all clips in a row.
      starts: int64 [N + 1], where they begin.
      shapes: the shape [T, M, V, 3] of each.
    """

    values: np.ndarray
    starts: np.ndarray
    shapes: list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, row: int) -> np.ndarray:
        start, stop = self.starts[row : row + 2]
        return self.values[start:stop].reshape(self.shapes[row])


def open_records(path: Path, fields: tuple[str, ...] | None = None) -> Records:
    """The records of one TFDS directory, all fields or only some."""
    import tensorflow_datasets as tfds  # imported here, since it takes half a second

    literal_globs()
    builder = tfds.builder_from_directory(path)
    features = builder.info.features
    if fields:
        features = tfds.features.FeaturesDict({key: features[key] for key in fields})
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return Records(builder.as_data_source(SPLIT, deserialize_method=raw), features)


def open_joints(path: Path) -> Joints:
    """The joints of one TFDS directory."""
    return Joints(open_records(path, ("joints",)))


def add_joints(digest, joints: np.ndarray) -> None:
    """Adds a clip [T, M, V, 3] to a hash of a dataset's content, independent of its files."""
    digest.update(repr(joints.shape).encode())
    digest.update(np.ascontiguousarray(joints, "<f4").tobytes())


def pin(joints: Joints, room: int) -> Pinned:
    """Reads every clip into one array.

    Args:
      room: upper bound of the count of numbers; the unused part is never touched, so it takes no
        memory.
    """
    values, starts, shapes = np.empty(room, np.float32), [0], []
    for row in range(len(joints)):
        try:
            clip = joints[row]
        except Damaged as error:
            raise Damaged(row) from error
        starts.append(starts[-1] + clip.size)
        values[starts[-2] : starts[-1]] = clip.ravel()
        shapes.append(clip.shape)
    values = values[: starts[-1]]
    values.flags.writeable = False
    return Pinned(values, np.array(starts), shapes)


def parse_joints(record: bytes) -> np.ndarray:
    """The field "joints" of a tf.train.Example with its values as bytes and its shape beside them.

    Reads the wire format of protocol buffers after each of the two keys: a Feature holds a list of
    bytes or integers, each with a tag and a length before its content.

    Raises:
      ValueError: the record has another layout.
    """
    shape = _varints(record, *_content(record, b"\n\x0cjoints/shape", b"\x12\x1a\n"))
    start, stop = _content(record, b"\n\x0cjoints/value", b"\x12\n\n")
    if len(shape) != 4 or stop - start != 4 * math.prod(shape) or stop > len(record):
        raise ValueError(f"{stop - start} bytes of joints for the shape {shape}")
    # Copied as bytes, because the numbers in a record are not aligned, which NumPy copies slowly.
    return np.frombuffer(record, np.uint8, stop - start, start).copy().view("<f4").reshape(shape)


def _content(record: bytes, key: bytes, tags: bytes) -> tuple[int, int]:
    """Start and end of the content of the innermost of nested fields, which follow `key`."""
    place, length = record.index(key) + len(key), 0
    for tag in tags:
        if record[place : place + 1] != bytes((tag,)):
            raise ValueError(f"no field {tag:#x} after {key}")
        length, place = _varint(record, place + 1)
    return place, place + length


def _varint(record: bytes, place: int) -> tuple[int, int]:
    """A number stored as seven bits a byte, lowest first, and the position after it."""
    value = shift = 0
    for byte in record[place : place + 10]:
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise ValueError("a number does not end")


def _varints(record: bytes, place: int, end: int) -> list[int]:
    values = []
    while place < end:
        value, place = _varint(record, place)
        values.append(value)
    return values
