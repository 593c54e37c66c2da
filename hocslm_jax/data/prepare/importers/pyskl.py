"""Pickles of skeletons from pyskl and mmaction2: NTU RGB+D (`ntu60_3danno.pkl`), and your own.

In: {"split": {"xsub_train": [id, ...], "xsub_val": [...], ...}, "annotations": [{"frame_dir": id,
"label": 0-based, "keypoint": [M, T, 25, 3] in metres, "total_frames": T}, ...]}; for other datasets
also [M, T, V, 2] in pixels, with "keypoint_score": [M, T, V]. Out: a Recipe. The whole file is in
memory while it is read, 2 GB for NTU RGB+D 120. NTU's files hold camera coordinates in float16,
which are translated as in the CTR-GCN protocol.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data import protocols
from hocslm_jax.data.channels import USUAL, coordinates_of
from hocslm_jax.data.clip import Clip, without_padding
from hocslm_jax.data.prepare.archive import fingerprint
from hocslm_jax.data.prepare.importers.annotations import (
    MAX_CLASSES,
    Entry,
    Splits,
    entries_of,
    read_annotations,
)
from hocslm_jax.data.prepare.ntu.bodies import COMPAT, Compat, translate
from hocslm_jax.data.prepare.ntu.classes import CLASSES
from hocslm_jax.data.prepare.ntu.skeleton import Name
from hocslm_jax.data.prepare.readers.clips import USUAL_READING, Reading, finished
from hocslm_jax.data.prepare.writer import (
    SHARD_CLIPS,
    Columns,
    OnBad,
    Protocols,
    Recipe,
    report_bad,
)
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, Graph

MAX_PERSONS = 100


def own_recipe(
    name: str,
    path: Path,
    on_bad: Callable[[str, str], None],
    graph: Graph,
    classes: Sequence[str] = (),
    reading: Reading = USUAL_READING,
    channels: str = "",
) -> Recipe:
    """The Recipe of a pyskl pickle of any dataset: its own ids, splits and skeleton.

    The splits train, val and test form the protocol "split"; NAME_train and so on form the protocol
    NAME. A val without a test becomes the test. Joints [M, T, V, 2 or 3] are not changed, and all
    persons are kept.

    Args:
      classes: names in label order; without them the labels themselves, 0, 1, ….
      reading: how missing joints are marked, and the longest gap that is filled.
      channels: of the dataset; "" = those of the file, the confidence of 2D joints included.

    Raises:
      UserError: as `recipe`, or no splits.
    """
    source = fingerprint(path) | {"from": "pyskl", "graph": graph.as_mapping()}
    annotations, splits, own = read_annotations(path, graph, needs_splits=True)
    reading = dataclasses.replace(reading, channels=channels or own)
    source |= {"channels": channels} if channels else {}
    source |= {"reading": reading.noted()} if reading.noted() else {}
    found = (item.get("label") for item in annotations if isinstance(item, dict))
    highest = max((n for n in found if type(n) is int and 0 <= n < MAX_CLASSES), default=0)
    names = tuple(classes or map(str, range(highest + 1)))
    entries = list(entries_of(path, annotations, graph, len(names), on_bad, named=False))
    assign = functools.partial(_own_protocols, path, splits)
    assign(_columns(entries))
    read = functools.partial(_clips, None, MAX_PERSONS, on_bad, reading=reading)
    return Recipe(
        name=name,
        graph=graph,
        classes=names,
        shards=_shards(read, entries),
        protocols=assign,
        source=source | {"classes": list(classes)},
        expected=len(annotations),
        channels=reading.channels,
        reading=reading.noted(),
    )


def recipe(
    dataset: str, path: Path, on_bad: Callable[[str, str], None], *, centre: bool = True
) -> Recipe:
    """The Recipe of a pyskl pickle of NTU RGB+D.

    Subject, camera, setup and replication come from the ids, which must be NTU's. The protocols
    are the dataset's own (`protocols.public`, with the published counts asserted for a complete
    set) and a split of the pickle that contradicts them is an error. Any other split of the pickle,
    NAME_train with NAME_val or NAME_test, becomes the protocol NAME.

    Args:
      dataset: "ntu60" or "ntu120".
      on_bad: called with (annotation, reason) for every annotation that is skipped.
      centre: move the origin to the first person's mid spine, as the NTU feeder expects.

    Raises:
      UserError: the file is missing, not such a pickle (see `read_pickle`), or has 2D key points or
        clips of another dataset.
    """
    if dataset not in CLASSES:
        raise UserError(f"{dataset}: pyskl pickles are read for {' and '.join(CLASSES)} only")
    source = fingerprint(path) | {"from": "pyskl", "centre": centre}
    annotations, splits, channels = read_annotations(path, NTU25)
    if channels != USUAL:
        raise UserError(
            f"{path}: its key points are in 2D, {dataset} is prepared of 3D ones: use a file such "
            f"as *_3danno.pkl, or prepare folder --name NAME --from pyskl {path} --graph coco17"
        )
    entries = list(entries_of(path, annotations, NTU25, len(CLASSES[dataset]), on_bad))
    _check_names(dataset, path, entries)
    assign = functools.partial(_protocols, dataset, path, splits)
    assign(_columns(entries))  # so that a wrong split is reported before anything is written
    read = functools.partial(_clips, COMPAT[dataset] if centre else None, 2, on_bad)
    return Recipe(
        name=dataset,
        graph=NTU25,
        classes=CLASSES[dataset],
        shards=_shards(read, entries),
        protocols=assign,
        source=source,
        feeder="ntu" if centre else "",
        expected=len(annotations),
    )


def _shards(read: Callable, entries: list["Entry"]) -> list[Callable]:
    starts = range(0, max(1, len(entries)), SHARD_CLIPS)
    return [functools.partial(read, entries[start : start + SHARD_CLIPS]) for start in starts]


def _check_names(dataset: str, path: Path, entries: list["Entry"]) -> None:
    for entry in entries:
        if not entry.name:
            raise UserError(
                f"{path}: {entry.id} is not an id of {dataset}, whose class names would be wrong; "
                f"use: prepare folder --name NAME --from pyskl {path} --graph GRAPH --classes FILE"
            )
        if entry.name.action > len(CLASSES[dataset]):
            raise UserError(f"{path}: {entry.id} is not a clip of {dataset}; prepare ntu120 of it")


def _clips(
    compat: Compat | None,
    persons: int,
    on_bad: OnBad,
    entries: Sequence[Entry],
    reading: Reading | None = None,
) -> Iterator[Clip]:
    """The clips of annotations; without a `reading` no joints are missing, as in NTU's files."""
    for entry in entries:
        try:
            joints = without_padding(_joints(entry, reading), persons)  # [T, M, V, C]
            joints = joints if compat is None else _centred(joints, compat)
            yield Clip(entry.id, joints, entry.label, **_numbers(entry))
        except ValueError as error:
            if reading is None:
                on_bad(entry.where, str(error))
            else:
                report_bad(on_bad, entry.where, error)


def _joints(entry: Entry, reading: Reading | None) -> np.ndarray:
    """The clip [T, M, V, C] of an annotation, with its gaps filled if there is a `reading`."""
    joints, score = entry.keypoint.swapaxes(0, 1), entry.score
    channels = reading.channels if reading else USUAL
    if joints.shape[-1] != coordinates_of(channels):
        raise ValueError(f"{joints.shape[-1]} coordinates, but the channels are {channels}")
    if reading is None:
        return joints
    return finished(joints, None if score is None else score.swapaxes(0, 1), reading)


def _centred(joints: np.ndarray, compat: Compat) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        moved = translate(joints, compat)
    if not np.isfinite(moved).all():
        raise ValueError("coordinates beyond all bounds")
    return moved


def _numbers(entry: Entry) -> dict[str, int]:
    """Subject, camera, setup and replication; 0 if the id does not contain them."""
    name = entry.name or Name(0, 0, 0, 0, 0)
    return {
        "subject": name.performer,
        "camera": name.camera,
        "setup": name.setup,
        "replication": name.replication,
    }


def _columns(entries: list[Entry]) -> Columns:
    rows = [{"id": entry.id, "label": entry.label, **_numbers(entry)} for entry in entries]
    keys = ("id", "label", "subject", "camera", "setup")
    return {key: np.asarray([row[key] for row in rows]) for key in keys}


def _own_protocols(path: Path, splits: Splits, columns: Columns) -> Protocols:
    """The protocols that the pickle itself has."""
    row = {key: position for position, key in enumerate(columns["id"])}
    own = {
        name: {
            side: np.asarray(sorted(row[key] for key in set(ids) if key in row), np.int32)
            for side, ids in sides.items()
        }
        for name, sides in splits.items()
    }
    for name, sides in own.items():
        if len(np.unique(rows := np.concatenate(list(sides.values())))) < len(rows):
            raise UserError(f"{path}: the splits of {name[:50]} share clips; fix them")
    return own


def _protocols(dataset: str, path: Path, splits: Splits, columns: Columns) -> Protocols:
    """The dataset's protocols, and those that only the pickle has."""
    own = _own_protocols(path, splits, columns)
    public = protocols.public(dataset, columns)
    for name, sides in public.items():
        for side, rows in own.get(name, {}).items():
            if len(stray := np.setdiff1d(rows, sides.get(side, []))):
                raise UserError(
                    f"{path}: its {side} split of {name} holds {columns['id'][stray[0]]}, which "
                    f"that of {dataset} does not; give the split another name"
                )
    return own | public
