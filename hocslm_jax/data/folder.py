"""A dataset of one's own: a folder of .npy clips, a table of them and a skeleton.

In: DIR with `clips.csv` (columns id, file, label, split; optionally subject, camera, setup,
replication, caption), the .npy files it names ([T, M, V, 3] or [T, V, 3], metres) and a
`graph.json` (name, joints, edges, root). Out: a Recipe with the protocol "split". A row that cannot
be used is reported and skipped.
"""

import csv
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.archive import fingerprint
from hocslm_jax.data.builders import SHARD_CLIPS, Columns, Protocols, Recipe
from hocslm_jax.data.clip import Clip
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph, resolve_graph

TABLE = "clips.csv"
SPLITS = ("train", "val", "test")
_REQUIRED = ("id", "file", "label", "split")
_NUMBERS = ("subject", "camera", "setup", "replication")


def recipe(
    name: str, source: Path, graph: str | None, on_bad: Callable[[str, str], None]
) -> Recipe:
    """The Recipe of the dataset in folder `source`; classes are the label names in sorted order.

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
    classes = tuple(sorted({row["label"] for _, row in rows if row["label"]}))
    good = list(_good_rows(rows, on_bad))
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


def read_clip(path: Path, num_joints: int) -> np.ndarray:
    """One .npy file as float32 [T, M, V, 3].

    Raises:
      ValueError: with the reason: missing, not a plain numeric array, wrong shape, not finite.
    """
    try:
        # mapped, so that a header that claims a huge shape fails instead of allocating it
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"not a readable .npy file ({error})") from None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise ValueError("not a .npy file of numbers")
    if array.ndim == 3:
        array = array[:, None]
    if array.ndim != 4 or array.shape[2:] != (num_joints, 3):
        raise ValueError(
            f"shape {array.shape}, expected (T, {num_joints}, 3) or (T, M, {num_joints}, 3)"
        )
    if not array.size:
        raise ValueError("no frames or no persons")
    with np.errstate(over="ignore"):
        joints = np.array(array, np.float32)
    if not np.isfinite(joints).all():
        raise ValueError("coordinates that are not finite")
    return joints


def _read_clips(source, graph: Graph, classes, on_bad, rows: Sequence) -> Iterator[Clip]:
    root = source.resolve()
    for where, row in rows:
        try:
            path = (root / row["file"]).resolve()
            if not path.is_relative_to(root):
                raise ValueError(f"{row['file']} is outside the folder")
            yield Clip(
                id=row["id"],
                joints=read_clip(path, graph.num_joints),
                label=classes.index(row["label"]),
                caption=row.get("caption") or "",
                **{key: int(row.get(key) or 0) for key in _NUMBERS},
            )
        except ValueError as error:
            on_bad(where, str(error))


def _read_table(path: Path) -> list[tuple[str, dict[str, str]]]:
    """The rows of clips.csv, each with a name for messages: `clips.csv:3 (id)`."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file, restval="", strict=True)
            missing = set(_REQUIRED) - set(table.fieldnames or ())
            if missing:
                raise UserError(f"{path} lacks the columns {', '.join(sorted(missing))}")
            rows = [(table.line_num, _stripped(row)) for row in table]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a row of it names a clip") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a UTF-8 CSV file ({error})") from None
    if not rows:
        raise UserError(f"{path} has no rows")
    return [(f"{path.name}:{line} ({row['id']})", row) for line, row in rows]


def _stripped(row: dict) -> dict[str, str]:
    """Without outer blanks and without the cells beyond the header, which csv files under None."""
    return {key: value.strip() for key, value in row.items() if key is not None}


def _good_rows(rows, on_bad) -> Iterator[tuple[str, dict[str, str]]]:
    """Rows whose table entries make sense; the files are looked at later."""
    seen = set()
    for where, row in rows:
        empty = [key for key in ("id", "file", "label") if not row[key]]
        odd = [key for key in _NUMBERS if row.get(key) and not row[key].isdecimal()]
        if empty:
            on_bad(where, f"no {empty[0]}")
        elif row["split"] not in SPLITS:
            on_bad(where, f"split is {row['split']!r}, expected one of {', '.join(SPLITS)}")
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
    path = source / "graph.json"
    try:
        spec = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; write one or pass --graph ntu25") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error})") from None
    if not isinstance(spec, dict):
        raise UserError(f"{path} must hold an object with name, joints, edges and root")
    return resolve_graph(spec)
