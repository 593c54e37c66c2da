"""CTR-GCN's prepared NTU RGB+D files (`NTU60_CS.npz`, `NTU120_CSet.npz`, ...), 10 to 20 GB each.

In: x_train, x_test [N, 300, 150] (300 frames, two persons of 25 joints, metres, centred, padded
with zeros) and one-hot y_train, y_test [N, classes]. Out: a Recipe of the real frames and persons,
read row by row. These files record neither subjects nor cameras; a clip's id is its split and row,
and the only protocol is the split. InfoGCN's `_aligned` files have this form too.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.clip import Clip, without_padding
from hocslm_jax.data.prepare.archive import fingerprint
from hocslm_jax.data.prepare.importers.npz_rows import Rows, open_rows
from hocslm_jax.data.prepare.ntu.classes import CLASSES
from hocslm_jax.data.prepare.writer import SHARD_CLIPS, Columns, Protocols, Recipe
from hocslm_jax.data.protocols import RULES
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, Graph

SPLITS = ("train", "test")
_ARRAYS = tuple(f"{axis}_{split}" for split in SPLITS for axis in "xy")
PROTOCOLS = {"cs": "xsub", "cv": "xview", "csub": "xsub", "cset": "xset"}  # by end of file name
PERSONS = 2
MAX_CLIPS, MAX_FRAMES = 200_000, 10_000  # of a split, of a clip

_NAME = re.compile(r"ntu(?:60|120)?_(cs|cv|csub|cset)(?:_aligned)?", re.IGNORECASE)


def own_recipe(
    name: str,
    path: Path,
    on_bad: Callable[[str, str], None],
    graph: Graph,
    classes: Sequence[str] = (),
) -> Recipe:
    """The Recipe of a file in this format of any dataset, with the single protocol "split".

    Args:
      classes: names in label order; without them the labels themselves, 0, 1, ….

    Raises:
      UserError: no such file, damaged, or of other arrays or shapes.
    """
    arrays = open_rows(path, _ARRAYS)
    names = tuple(classes or map(str, range((*arrays["y_train"].shape, 0)[1])))
    for split in SPLITS:
        _check(arrays[f"x_{split}"], arrays[f"y_{split}"], name, len(names), graph)
    return Recipe(
        name=name,
        graph=graph,
        classes=names,
        shards=_shards(arrays, graph, on_bad),
        protocols=functools.partial(_split, "split"),
        source=fingerprint(path)
        | {"from": "ctrgcn-npz", "graph": graph.as_mapping(), "classes": list(classes)},
        expected=sum(len(arrays[f"x_{split}"]) for split in SPLITS),
    )


def recipe(
    dataset: str, path: Path, on_bad: Callable[[str, str], None], *, protocol: str | None = None
) -> Recipe:
    """The Recipe of a CTR-GCN .npz file; ids are train000000, ..., test000000, ... by row.

    Args:
      dataset: "ntu60" or "ntu120".
      on_bad: called with (row, reason) for every clip that is skipped.
      protocol: of the file's split: xsub, xview or xset; by default taken from the file's name.

    Raises:
      UserError: no such file, damaged, of other arrays or shapes, or of another dataset.
    """
    if dataset not in CLASSES:
        raise UserError(f"{dataset}: CTR-GCN files are read for {' and '.join(CLASSES)} only")
    protocol = _protocol(dataset, path, protocol)
    arrays = open_rows(path, _ARRAYS)
    for split in SPLITS:
        number = len(CLASSES[dataset])
        _check(arrays[f"x_{split}"], arrays[f"y_{split}"], dataset, number, NTU25)
    return Recipe(
        name=dataset,
        graph=NTU25,
        classes=CLASSES[dataset],
        shards=_shards(arrays, NTU25, on_bad),
        protocols=functools.partial(_split, protocol),
        source=fingerprint(path) | {"from": "ctrgcn-npz", "protocol": protocol},
        feeder="ntu",
        expected=sum(len(arrays[f"x_{split}"]) for split in SPLITS),
    )


def _shards(arrays: dict[str, Rows], graph: Graph, on_bad) -> list[Callable]:
    return [
        functools.partial(_clips, split, arrays, graph, start, on_bad)
        for split in SPLITS
        for start in range(0, len(arrays[f"x_{split}"]), SHARD_CLIPS)
    ]


def _protocol(dataset: str, path: Path, protocol: str | None) -> str:
    match = _NAME.fullmatch(path.stem)
    protocol = protocol or (PROTOCOLS[match[1].lower()] if match else None)
    if protocol not in RULES[dataset]:
        raise UserError(
            f"{path}: its name does not say which protocol of {dataset} it holds; name one of "
            f"{', '.join(RULES[dataset])}"
        )
    return protocol


def _check(x: Rows, y: Rows, dataset: str, classes: int, graph: Graph) -> None:
    width = PERSONS * graph.num_joints * 3
    if len(x.shape) != 3 or x.shape[2] != width or not 0 < x.shape[1] <= MAX_FRAMES:
        raise UserError(f"{x.path}: {x.name} has shape {x.shape}, expected (N, 300, {width})")
    if y.shape[1:] != (classes,):
        raise UserError(
            f"{x.path}: {y.name} has shape {y.shape}, but {dataset} has {classes} classes; of "
            f"another dataset: prepare folder --name NAME --from ctrgcn-npz {x.path} --graph GRAPH"
        )
    if len(x) != len(y) or len(x) > MAX_CLIPS:
        raise UserError(f"{x.path}: {len(x)} rows of {x.name}, but {len(y)} of {y.name}")


def _clips(split: str, arrays: dict[str, Rows], graph: Graph, start: int, on_bad) -> Iterator[Clip]:
    x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
    stop = min(start + SHARD_CLIPS, len(x))
    one_hot = y.read(start, stop)  # [n, classes]
    labels = one_hot.argmax(axis=1)
    proper = (one_hot.max(axis=1) == 1) & (np.count_nonzero(one_hot, axis=1) == 1)
    for row in range(start, stop):
        try:
            if not proper[row - start]:
                raise ValueError(f"row {row} of {y.name} is not one-hot")
            joints = x.read(row, row + 1).reshape(-1, PERSONS, graph.num_joints, 3)
            label = int(labels[row - start])
            yield Clip(f"{split}{row:06d}", without_padding(joints), label)
        except ValueError as error:
            on_bad(f"{x.path.name}: {x.name}[{row}]", str(error))


def _split(protocol: str, columns: Columns) -> Protocols:
    train = np.char.startswith(columns["id"], SPLITS[0])
    return {protocol: {"train": _rows(train), "test": _rows(~train)}}


def _rows(mask: np.ndarray) -> np.ndarray:
    return np.flatnonzero(mask).astype(np.int32)
