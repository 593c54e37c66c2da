"""Annotations and splits of a pickle in the format of pyskl and mmaction2, each validated.

In: a path. Out: `Entry`s, whose key points are not checked yet, and {protocol: {side: ids}}.
"""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hocslm_jax.data.channels import USUAL
from hocslm_jax.data.prepare.ntu.skeleton import Name, parse_name
from hocslm_jax.errors import UserError, few
from hocslm_jax.files.pickles import check_not_shared, read_pickle
from hocslm_jax.graph import Graph

MAX_CLIP_BYTES = 64 << 20
MAX_CLASSES = 1000
OWN = "split"  # the protocol of splits named only train, val and test

_ID = re.compile(r"[A-Za-z0-9_.+-]{1,100}")
_SIDES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval"), "test"),
}

Splits = dict[str, dict[str, list[str]]]  # {protocol: {side: ids}}


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One annotation; `name` is None if the id is not of the form SsssCcccPpppRrrrAaaa."""

    where: str
    id: str
    label: int
    keypoint: np.ndarray  # [M, T, V, 2 or 3]
    name: Name | None
    score: np.ndarray | None = None  # [M, T, V]


def read_annotations(
    path: Path, graph: Graph, needs_splits: bool = False
) -> tuple[list, Splits, str]:
    """Annotations, splits and channels of a pickle; checks the pickle as a whole."""
    content = read_pickle(path)
    content = content if isinstance(content, dict) else {}
    annotations = content.get("annotations")
    if not isinstance(annotations, list) or not annotations:
        raise UserError(f"{path}: no list of annotations; expected a pickle as pyskl writes it")
    found = (item.get("keypoint") for item in annotations if isinstance(item, dict))
    arrays = [array for array in found if isinstance(array, np.ndarray)]
    shape = next((array.shape for array in arrays), ())
    if len(shape) == 4 and shape[2] != graph.num_joints:
        raise UserError(
            f"{path}: key points of {shape[2]} joints in {shape[3]}D, but {graph.name} has "
            f"{graph.num_joints}; use a file such as *_3danno.pkl, or give its --graph"
        )
    check_not_shared(path, arrays, "annotations")
    flat = len(shape) == 4 and shape[3] == 2
    scored = any("keypoint_score" in item for item in annotations if isinstance(item, dict))
    channels = ("xyc" if scored else "xy") if flat else USUAL
    splits = _splits(path, content.get("split"))
    if needs_splits and not splits:
        raise UserError(
            f"{path}: it has {_names(content.get('split'))}; name splits train and test, or "
            "NAME_train and NAME_test"
        )
    return annotations, splits, channels


def _splits(path: Path, lists: object) -> Splits:
    """The pickle's own protocols; a val without a test becomes the test."""
    found: Splits = {}
    lists = lists if isinstance(lists, dict) else {}
    for key, ids in lists.items():
        name, side = _split_name(str(key))
        if not side:
            continue
        if not isinstance(ids, list) or not all(isinstance(item, str) for item in ids):
            raise UserError(f"{path}: split {key[:50]!r} is not a list of ids")
        if side in found.setdefault(name, {}):
            raise UserError(f"{path}: two splits are the {side} split of {name[:50]!r}")
        found[name][side] = ids
    for sides in found.values():
        if "val" in sides and "test" not in sides:
            sides["test"] = sides.pop("val")
    return found


def _names(lists: object) -> str:
    found = lists if isinstance(lists, dict) else {}
    names = few((repr(str(key)[:30]) for key in found), most=4)
    return f"the splits {names}" if names else "no splits"


def _split_name(key: str) -> tuple[str, str]:
    """(protocol, side) of `xsub_train`, `train_xsub` or `training`; ("", "") without a side."""
    for name, side in (key.rpartition("_")[::2], key.partition("_")[2::-2]):
        if found := _SIDES.get(side.lower()):
            return name or OWN, found
    return "", ""


def entries_of(
    path: Path, annotations: list, graph: Graph, classes: int, on_bad, named: bool = True
) -> Iterator[Entry]:
    """The valid annotations; the values of their key points are not checked yet.

    Args:
      named: ids in NTU's form must agree with the label, as in NTU itself.
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
    shape, score = keypoint.shape, fields.get("keypoint_score")
    if len(shape) != 4 or shape[2] != graph.num_joints or shape[3] not in (2, 3):
        expected = f"(M, T, {graph.num_joints}, 2 or 3)"
        raise ValueError(f"keypoint of {key} has shape {shape}, expected {expected}")
    if score is not None and (not isinstance(score, np.ndarray) or score.dtype.kind != "f"):
        raise ValueError(f"keypoint_score of {key} is not an array of floats")
    if score is not None and score.shape != shape[:3]:
        raise ValueError(f"keypoint_score of {key} has shape {score.shape}, expected {shape[:3]}")
    if keypoint.nbytes > MAX_CLIP_BYTES:
        raise ValueError(f"keypoint of {key} has {keypoint.nbytes} bytes, too many for a clip")
    if fields.get("total_frames", shape[1]) != shape[1]:
        raise ValueError(f"keypoint of {key} has {shape[1]} frames, total_frames is different")
    return Entry(f"{where} ({key})", key, label, keypoint, name, score)
