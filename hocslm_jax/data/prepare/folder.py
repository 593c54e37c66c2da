"""A dataset of one's own: a folder of clips, a table of them and a skeleton.

In: DIR with `clips.csv` (columns id, file, label, split; optionally subject, camera, setup,
replication, caption), the files it names (.npy of [T, M, V, 3] or [T, V, 3] in metres, or any
format of `readers`) and a `graph.json` (name, joints, edges, root); optionally a `classes.txt`, a
class name a line, in the order of the labels. Out: a Recipe with the protocol "split". A row that
cannot be used is reported and skipped.
"""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.clip import Clip, check_joints
from hocslm_jax.data.prepare.archive import fingerprint
from hocslm_jax.data.prepare.readers.clips import read_as
from hocslm_jax.data.prepare.writer import SHARD_CLIPS, Columns, Protocols, Recipe
from hocslm_jax.errors import UserError
from hocslm_jax.files.npy import read_npy
from hocslm_jax.files.text import find_inside, read_json, read_lines, read_table
from hocslm_jax.graph import Graph, resolve_graph

TABLE, CLASSES = "clips.csv", "classes.txt"
MAX_NUMBERS = 1 << 24  # in a clip: two hours of 25 joints
SPLITS = ("train", "val", "test")
_REQUIRED = ("id", "file", "label", "split")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_NUMBERS = ("subject", "camera", "setup", "replication")


def recipe(
    name: str, source: Path, graph: str | None, on_bad: Callable[[str, str], None]
) -> Recipe:
    """The Recipe of the dataset in folder `source`.

    Classes are the lines of its classes.txt, else the label names in order, numbers by their value.

    Args:
      graph: a built-in skeleton instead of the folder's graph.json.
      on_bad: called with (row, reason) for every row that is skipped.

    Raises:
      UserError: no folder, no usable table or no usable skeleton.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder")
    skeleton = _read_graph(source, graph)
    rows = _read_table(source / TABLE)
    classes = _read_classes(source / CLASSES)
    good = list(_good_rows(rows, classes, on_bad))
    classes = classes or in_order(row["label"] for _, row in rows if row["label"])
    read = functools.partial(_read_clips, source, skeleton, classes, on_bad)
    splits = {row["id"]: row["split"] for _, row in good}
    return Recipe(
        name=name,
        graph=skeleton,
        classes=classes,
        shards=[
            functools.partial(read, good[start : start + SHARD_CLIPS])
            for start in range(0, len(good), SHARD_CLIPS)
        ],
        protocols=functools.partial(_split_protocol, splits),
        source=fingerprint(source) | {"graph": skeleton.as_mapping()},
        expected=len(rows),
        captions="user" if any(row.get("caption") for _, row in good) else "",
    )


def read_clip(path: Path, graph: Graph) -> np.ndarray:
    """One file as float32 [T, M, V, 3] in the joints of `graph`.

    Raises:
      ValueError: with the reason: missing, of no known format, or as `as_clip`.
      UserError: a file that is not .npy cannot be read.
    """
    if path.suffix != ".npy":
        return as_clip(read_as(path, graph), graph.num_joints)
    array = read_npy(path)
    if array.dtype.kind not in "fiu":
        raise ValueError("not a .npy file of numbers")
    return as_clip(array, graph.num_joints)


def as_clip(array: np.ndarray, num_joints: int) -> np.ndarray:
    """An array [T, M, V, 3] or [T, V, 3] as float32 [T, M, V, 3], without persons of zeros alone.

    Raises:
      ValueError: another shape, axes in another order, or what `clip.check_joints` refuses.
    """
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or array.shape[2:] != (num_joints, 3):
        raise ValueError(
            f"shape {array.shape}, expected (T, {num_joints}, 3) or (T, M, {num_joints}, 3)"
        )
    if not array.size:
        raise ValueError("no frames or no persons")
    if array.size > MAX_NUMBERS:
        raise ValueError(f"{array.size} numbers, too many for a clip")
    with np.errstate(over="ignore", invalid="ignore"):
        joints = np.array(array, np.float32)
    check_joints(joints)
    joints = np.ascontiguousarray(joints[:, joints.any(axis=(0, 2, 3))])
    frames, persons = joints.shape[:2]
    if persons > 2 and (persons > frames or _smoother_by_person(joints)):
        raise ValueError(
            f"shape {array.shape} read as (frames, persons, joints, 3) is {frames} frames of "
            f"{persons} persons, but the second axis looks like time; put time first"
        )
    return joints


def _smoother_by_person(joints: np.ndarray) -> bool:
    """Whether poses change far less from one person to the next than from frame to frame."""
    by_frame, by_person = (np.median(np.abs(np.diff(joints, axis=axis))) for axis in (0, 1))
    return bool(by_person < by_frame / 2)


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, sorted: numbers first, by their value, then the others as text."""

    def key(name: str) -> tuple[bool, float, str]:
        number = _NUMBER.fullmatch(name)
        return not number, float(name) if number else 0.0, name

    return tuple(sorted(set(names), key=key))


def _read_classes(path: Path) -> tuple[str, ...]:
    """The lines of classes.txt that are not empty; () where there is no such file."""
    if not path.exists():
        return ()
    names = tuple(name for _, line in read_lines(path) if (name := line.strip()))
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path} names the class {twice[0][:50]!r} twice; a line is one class")
    if not names:
        raise UserError(f"{path} names no class; write one a line, or remove it")
    return names


def _read_clips(source, graph: Graph, classes, on_bad, rows: Sequence) -> Iterator[Clip]:
    for where, row in rows:
        try:
            yield Clip(
                id=row["id"],
                joints=read_clip(find_inside(source, row["file"]), graph),
                label=classes.index(row["label"]),
                caption=row.get("caption") or "",
                **{key: int(row.get(key) or 0) for key in _NUMBERS},
            )
        except (ValueError, UserError) as error:
            on_bad(where, str(error))


def _read_table(path: Path) -> list[tuple[str, dict[str, str]]]:
    """The rows of clips.csv, each with a name for messages: `clips.csv:3 (id)`."""
    rows = read_table(path, _REQUIRED, (*_NUMBERS, "caption"), "a row of it names a clip")
    return [(f"{path.name}:{line} ({row['id']})", row) for line, row in rows]


def _good_rows(rows, classes: Sequence[str], on_bad) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows whose table entries make sense; the files are looked at later."""
    seen = set()
    for where, row in rows:
        empty = [key for key in ("id", "file", "label") if not row[key]]
        odd = [key for key in _NUMBERS if row.get(key) and not row[key].isdecimal()]
        if empty:
            on_bad(where, f"no {empty[0]}")
        elif row["split"] not in SPLITS:
            on_bad(where, f"split is {row['split']!r}, expected one of {', '.join(SPLITS)}")
        elif classes and row["label"] not in classes:
            on_bad(where, f"label {row['label'][:50]!r} is not in {CLASSES}")
        elif odd:
            on_bad(where, f"{odd[0]} is {row[odd[0]]!r}, expected a whole number")
        elif row["id"] in seen:
            on_bad(where, "a second row of this id")
        else:
            seen.add(row["id"])
            yield where, row


def _split_protocol(splits: dict[str, str], columns: Columns) -> Protocols:
    sides = np.asarray([splits[name] for name in columns["id"]])
    used = [split for split in SPLITS if split != "val" or "val" in sides]
    return {"split": {split: np.flatnonzero(sides == split).astype(np.int32) for split in used}}


def _read_graph(source: Path, name: str | None) -> Graph:
    if name:
        return resolve_graph(name)
    return resolve_graph(read_json(source / "graph.json", "write one or pass --graph ntu25"))
