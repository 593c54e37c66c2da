"""pyskl's and mmaction2's pickles of skeletons: NTU RGB+D (`ntu60_3danno.pkl`), and one's own.

In: {"split": {"xsub_train": [id, ...], "xsub_val": [...], ...}, "annotations": [{"frame_dir": id,
"label": 0-based, "keypoint": [M, T, 25, 3] in metres, "total_frames": T}, ...]}. Out: a Recipe;
the whole file is in memory meanwhile, 2 GB for NTU RGB+D 120. NTU's files keep camera coordinates,
in float16; they are translated as the CTR-GCN protocol has it.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data import protocols
from hocslm_jax.data.clip import Clip, without_padding
from hocslm_jax.data.prepare.archive import fingerprint
from hocslm_jax.data.prepare.ntu.bodies import COMPAT, Compat, translate
from hocslm_jax.data.prepare.ntu.classes import CLASSES
from hocslm_jax.data.prepare.ntu.skeleton import Name, parse_name
from hocslm_jax.data.prepare.writer import SHARD_CLIPS, Columns, Protocols, Recipe
from hocslm_jax.errors import UserError
from hocslm_jax.files.pickles import check_not_shared, read_pickle
from hocslm_jax.graph import NTU25, Graph

MAX_CLIP_BYTES = 64 << 20
MAX_CLASSES, MAX_PERSONS = 1000, 100
OWN = "split"  # the protocol of splits that are called train, val and test alone

_ID = re.compile(r"[A-Za-z0-9_.+-]{1,100}")
_SIDES = ("train", "val", "test")

Splits = dict[str, dict[str, list[str]]]  # {protocol: {side: ids}}


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One annotation; `name` is None if the id is not of the form SsssCcccPpppRrrrAaaa."""

    where: str
    id: str
    label: int
    keypoint: np.ndarray  # [M, T, V, 3]
    name: Name | None


def own_recipe(
    name: str,
    path: Path,
    on_bad: Callable[[str, str], None],
    graph: Graph,
    classes: Sequence[str] = (),
) -> Recipe:
    """The Recipe of a pyskl pickle of any dataset: its own ids, splits and skeleton.

    The splits train, val and test make the protocol "split", NAME_train and so on make NAME; a val
    without a test is the test. Joints [M, T, V, 3] are taken as they are, all persons of them.

    Args:
      classes: names in label order; without them the labels themselves, 0, 1, ….

    Raises:
      UserError: as `recipe`, or no splits.
    """
    source = fingerprint(path) | {"from": "pyskl", "graph": graph.as_mapping()}
    annotations, splits = _read(path, graph)
    if not splits:
        raise UserError(f"{path}: it has no splits, so nothing says what to train on")
    found = (item.get("label") for item in annotations if isinstance(item, dict))
    highest = max((n for n in found if type(n) is int and 0 <= n < MAX_CLASSES), default=0)
    names = tuple(classes or map(str, range(highest + 1)))
    entries = list(_entries(path, annotations, graph, len(names), on_bad, named=False))
    assign = functools.partial(_own_protocols, path, splits)
    assign(_columns(entries))
    read = functools.partial(_clips, None, MAX_PERSONS, on_bad)
    return Recipe(
        name=name,
        graph=graph,
        classes=names,
        shards=_shards(read, entries),
        protocols=assign,
        source=source | {"classes": list(classes)},
        expected=len(annotations),
    )


def recipe(
    dataset: str, path: Path, on_bad: Callable[[str, str], None], *, centre: bool = True
) -> Recipe:
    """The Recipe of a pyskl pickle of NTU RGB+D.

    Subject, camera, setup and replication come from the ids, which have to be NTU's. The protocols
    are the dataset's own (`protocols.public`, with the published counts asserted for a complete
    set) and a split of the pickle that contradicts them is an error. Any other split of the pickle,
    NAME_train with NAME_val or NAME_test, becomes the protocol NAME.

    Args:
      dataset: "ntu60" or "ntu120".
      on_bad: called with (annotation, reason) for every annotation that is skipped.
      centre: move the origin to the first person's mid spine, as the NTU feeder expects.

    Raises:
      UserError: no such file, not such a pickle (see `read_pickle`), 2D key points, or the clips of
        another dataset.
    """
    if dataset not in CLASSES:
        raise UserError(f"{dataset}: pyskl pickles are read for {' and '.join(CLASSES)} only")
    source = fingerprint(path) | {"from": "pyskl", "centre": centre}
    annotations, splits = _read(path, NTU25)
    entries = list(_entries(path, annotations, NTU25, len(CLASSES[dataset]), on_bad))
    _check_names(dataset, path, entries)
    assign = functools.partial(_protocols, dataset, path, splits)
    assign(_columns(entries))  # so that a wrong split is told before anything is written
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


def _read(path: Path, graph: Graph) -> tuple[list, Splits]:
    """Annotations and splits of a pickle that has the right form as a whole."""
    content = read_pickle(path)
    content = content if isinstance(content, dict) else {}
    annotations = content.get("annotations")
    if not isinstance(annotations, list) or not annotations:
        raise UserError(f"{path}: no list of annotations; expected a pickle as pyskl writes it")
    found = (item.get("keypoint") for item in annotations if isinstance(item, dict))
    arrays = [array for array in found if isinstance(array, np.ndarray)]
    shape = next((array.shape for array in arrays), ())
    if len(shape) == 4 and (shape[2] != graph.num_joints or shape[3] == 2):
        raise UserError(
            f"{path}: key points of {shape[2]} joints in {shape[3]}D, but {graph.name} has "
            f"{graph.num_joints} in 3D; use a file such as *_3danno.pkl, or give its --graph"
        )
    check_not_shared(path, arrays, "annotations")
    return annotations, _splits(path, content.get("split"))


def _splits(path: Path, lists: object) -> Splits:
    """The pickle's own protocols; where there is a val and no test, val is test."""
    found: Splits = {}
    for key, ids in lists.items() if isinstance(lists, dict) else ():
        name, _, side = str(key).rpartition("_")
        name = name or OWN
        if side in _SIDES:
            if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
                raise UserError(f"{path}: split {key[:50]!r} is not a list of ids")
            found.setdefault(name, {})[side] = ids
    for sides in found.values():
        if "val" in sides and "test" not in sides:
            sides["test"] = sides.pop("val")
    return found


def _entries(
    path: Path, annotations: list, graph: Graph, classes: int, on_bad, named: bool = True
) -> Iterator[Entry]:
    """The annotations that make sense, whatever the values of their key points.

    Args:
      named: ids of NTU's form say the action, as they do in NTU itself.
    """
    seen = set()
    for position, annotation in enumerate(annotations):
        where = f"{path.name}: annotations[{position}]"
        try:
            entry = _entry(where, annotation, graph, named)
            if entry.label >= classes and not entry.name:
                raise ValueError(f"label {entry.label}, but {classes} classes")
            if entry.id in seen:
                raise ValueError(f"a second annotation of {entry.id}")
        except ValueError as error:
            on_bad(where, str(error))
        else:
            seen.add(entry.id)
            yield entry


def _entry(where: str, annotation: object, graph: Graph, named: bool) -> Entry:
    fields = annotation if isinstance(annotation, dict) else {}
    key, label, keypoint = (fields.get(field) for field in ("frame_dir", "label", "keypoint"))
    if not isinstance(key, str) or not _ID.fullmatch(key):
        raise ValueError("no usable frame_dir")
    try:
        name = parse_name(key) if named else None
    except ValueError:
        name = None
    if type(label) is not int or not 0 <= label < MAX_CLASSES:
        raise ValueError(f"{key} has no usable label")
    if name and label != name.action - 1:
        raise ValueError(f"label {label}, but {key} is action {name.action}")
    if not isinstance(keypoint, np.ndarray) or keypoint.dtype.kind != "f":
        raise ValueError(f"keypoint of {key} is not an array of floats")
    shape = keypoint.shape
    if len(shape) != 4 or shape[2:] != (graph.num_joints, 3):
        expected = f"(M, T, {graph.num_joints}, 3)"
        raise ValueError(f"keypoint of {key} has shape {shape}, expected {expected}")
    if keypoint.nbytes > MAX_CLIP_BYTES:
        raise ValueError(f"keypoint of {key} has {keypoint.nbytes} bytes, too many for a clip")
    if fields.get("total_frames", shape[1]) != shape[1]:
        raise ValueError(f"keypoint of {key} has {shape[1]} frames, total_frames is different")
    return Entry(f"{where} ({key})", key, label, keypoint, name)


def _clips(compat: Compat | None, persons: int, on_bad, entries: Sequence[Entry]) -> Iterator[Clip]:
    for entry in entries:
        try:
            joints = without_padding(entry.keypoint.swapaxes(0, 1), persons)  # [T, M, V, 3]
            joints = joints if compat is None else _centred(joints, compat)
            yield Clip(entry.id, joints, entry.label, **_numbers(entry))
        except ValueError as error:
            on_bad(entry.where, str(error))


def _centred(joints: np.ndarray, compat: Compat) -> np.ndarray:
    with np.errstate(over="ignore"):
        moved = translate(joints, compat)
    if not np.isfinite(moved).all():
        raise ValueError("coordinates beyond all bounds")
    return moved


def _numbers(entry: Entry) -> dict[str, int]:
    """Subject, camera, setup and replication, 0 where the id does not tell."""
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
    """The dataset's protocols, besides those that only the pickle has."""
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
