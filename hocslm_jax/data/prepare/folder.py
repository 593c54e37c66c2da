"""Your own dataset: a folder of clips, a table that lists them, and a skeleton.

In: DIR with `clips.csv` (columns id, file, label, split; optionally subject, camera, setup,
replication, caption), the files it names (.npy of [T, M, V, C] or [T, V, C], or any format of
`readers`) and a `graph.json` (name, joints, edges, root); optionally a `classes.txt` with one class
name a line, in the order of the labels. Out: a Recipe with the protocol "split". A row that cannot
be used is reported and skipped.
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.channels import USUAL
from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.archive import fingerprint
from hocslm_jax.data.prepare.readers.clips import USUAL_READING, Reading, channels_in, read_clip
from hocslm_jax.data.prepare.readers.keypoint_json import holds_frames
from hocslm_jax.data.prepare.writer import (
    SHARD_CLIPS,
    Columns,
    OnBad,
    Protocols,
    Recipe,
    report_bad,
)
from hocslm_jax.errors import UserError
from hocslm_jax.files.text import find_inside, read_json, read_lines, read_table
from hocslm_jax.graph import Graph, resolve_graph

TABLE, CLASSES = "clips.csv", "classes.txt"
SPLITS = ("train", "val", "test")
_REQUIRED = ("id", "file", "label", "split")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_NUMBERS = ("subject", "camera", "setup", "replication")


def recipe(
    name: str,
    source: Path,
    graph: str | None,
    on_bad: OnBad,
    reading: Reading = USUAL_READING,
    channels: str = "",
) -> Recipe:
    """The Recipe of the dataset in folder `source`.

    Classes are the lines of classes.txt, or without it the sorted labels, numbers by their value.

    Args:
      graph: a built-in skeleton instead of the folder's graph.json.
      on_bad: called with (row, reason) for every row that is skipped.
      reading: how its files are read; its channels are those of the dataset.
      channels: of the dataset; "" = those of the first file that can be read.

    Raises:
      UserError: no folder, no usable table or no usable skeleton.
    """
    if not source.is_dir():
        advice = "it is a file; unpack archives, and name the folder" if source.exists() else ""
        raise UserError(f"{source}: {advice or 'no such folder'}")
    skeleton = _read_graph(source, graph)
    rows = _read_table(source / TABLE)
    classes = _read_classes(source / CLASSES)
    good = list(_good_rows(rows, classes, on_bad))
    classes = classes or in_order(row["label"] for _, row in rows if row["label"])
    channels = channels or _first_channels(source, good, reading, skeleton)
    reading = dataclasses.replace(reading, channels=channels)
    read = functools.partial(_read_clips, source, skeleton, reading, classes, on_bad)
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
        source=fingerprint(source) | {"graph": skeleton.as_mapping()} | _changed(reading),
        expected=len(rows),
        captions="user" if any(row.get("caption") for _, row in good) else "",
        channels=channels,
        reading=reading.noted(),
    )


def _changed(reading: Reading) -> dict:
    """Settings of reading that are not the default; part of the dataset's `source`."""
    fields, usual = dataclasses.asdict(reading), dataclasses.asdict(USUAL_READING)
    changed = {key: value for key, value in fields.items() if value != usual[key]}
    return {"reading": changed} if changed else {}


def _first_channels(source: Path, rows: Sequence, reading: Reading, graph: Graph) -> str:
    """The channels of the first readable file; unreadable files are reported later."""
    for _, row in rows:
        try:
            return channels_in(_find(source, row["file"]), reading, graph)
        except (ValueError, UserError):
            continue
    return USUAL


def _find(source: Path, name: str) -> Path:
    """A file, or a folder of OpenPose's files; errors as of `find_inside`."""
    return find_inside(source, name, lambda path: path.is_file() or holds_frames(path))


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, sorted: first numbers by their value, then other names as text."""

    def key(name: str) -> tuple[bool, float, str]:
        number = _NUMBER.fullmatch(name)
        return not number, float(name) if number else 0.0, name

    return tuple(sorted(set(names), key=key))


def _read_classes(path: Path) -> tuple[str, ...]:
    """The lines of classes.txt that are not empty; () if there is no such file."""
    if not path.exists():
        return ()
    names = tuple(name for _, line in read_lines(path) if (name := line.strip()))
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path} names the class {twice[0][:50]!r} twice; a line is one class")
    if not names:
        raise UserError(f"{path} contains no class; write one a line, or remove it")
    return names


def _read_clips(
    source, graph: Graph, reading: Reading, classes, on_bad: OnBad, rows: Sequence
) -> Iterator[Clip]:
    for where, row in rows:
        try:
            yield Clip(
                id=row["id"],
                joints=read_clip(_find(source, row["file"]), graph, reading),
                label=classes.index(row["label"]),
                caption=row.get("caption") or "",
                **{key: int(row.get(key) or 0) for key in _NUMBERS},
            )
        except (ValueError, UserError) as error:
            report_bad(on_bad, where, error)


def _read_table(path: Path) -> list[tuple[str, dict[str, str]]]:
    """The rows of clips.csv, each with a name for messages: `clips.csv:3 (id)`."""
    rows = read_table(path, _REQUIRED, (*_NUMBERS, "caption"), "each row names a clip")
    return [(f"{path.name}:{line} ({row['id']})", row) for line, row in rows]


def _good_rows(rows, classes: Sequence[str], on_bad) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows with valid entries; the files themselves are read later."""
    seen, files = set(), {}
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
        elif first := files.get(file := row["file"].replace("\\", "/")):
            on_bad(where, f"its file {file[:80]!r} is that of {first[:80]!r} too")
        else:
            seen.add(row["id"])
            files[file] = row["id"]
            yield where, row


def _split_protocol(splits: dict[str, str], columns: Columns) -> Protocols:
    sides = np.asarray([splits[name] for name in columns["id"]])
    used = [split for split in SPLITS if split != "val" or "val" in sides]
    return {"split": {split: np.flatnonzero(sides == split).astype(np.int32) for split in used}}


def _read_graph(source: Path, name: str | None) -> Graph:
    if name:
        return resolve_graph(name)
    return resolve_graph(read_json(source / "graph.json", "write one or pass --graph ntu25"))
