"""Skeleton files for prediction: paths, folders and patterns in, clips of a run's skeleton out.

In: NTU `.skeleton` files, NW-UCLA `.json` files, `.npy` arrays [T, M, V, 3] or [T, V, 3] in metres.
Out: joints float32 [T, M, V, 3], each read as `prepare` reads it for training, or the reason why
not. Whether clips are then centred is a matter of the run's feed, as in training.
"""

import dataclasses
import glob
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.prepare import nw_ucla
from hocslm_jax.data.prepare.folder import as_clip, read_clip
from hocslm_jax.data.prepare.ntu.bodies import COMPAT, Compat, actors, actors_of
from hocslm_jax.data.prepare.ntu.classes import CLASSES as NTU_CLASSES
from hocslm_jax.data.prepare.ntu.classes import MINI
from hocslm_jax.data.prepare.ntu.skeleton import parse_name, parse_skeleton
from hocslm_jax.data.prepare.ntu.sources import MAX_BYTES
from hocslm_jax.errors import UserError
from hocslm_jax.files.text import read_bytes
from hocslm_jax.graph import NTU25, Graph

NTU = (*COMPAT, MINI)  # datasets whose clips `prepare` makes of the bodies in files


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips in memory, as the part of a `data.store.Store` that the feeders read."""

    clips: Sequence[np.ndarray]
    graph: Graph

    @property
    def ids(self) -> list[str]:
        return [str(row) for row in range(len(self.clips))]

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self.clips), np.int32)  # nobody knows

    def joints(self, row: int) -> np.ndarray:
        return self.clips[row]

    def rows(self, protocol: str, split: str) -> np.ndarray:
        return np.arange(len(self.clips))


def find_files(arguments: Iterable[str]) -> list[Path]:
    """The files behind paths, folders (at any depth) and patterns such as `clips/**/*.npy`.

    Each once, in order. An argument that leads to no file stays in the list, so that reading it
    says what is wrong.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(os.path.expanduser(argument))
        paths = [path]
        if os.path.isdir(path):
            inside = (p for p in path.rglob("*") if not p.name.startswith("."))
            paths = sorted(p for p in inside if p.suffix in READERS and p.is_file())
        elif not os.path.exists(path):
            paths = sorted(map(Path, glob.glob(str(path), recursive=True)))
        found |= dict.fromkeys(paths or [path])
    return list(found)


def read_joints(
    path: Path, graph: Graph, dataset: str = "", compat: Compat | None = None
) -> np.ndarray:
    """One file's clip, float32 [T, M, V, 3].

    Args:
        graph: the skeleton that it must have.
        dataset: what the run was trained on.
        compat: how its files were read; by default as the reference reads that dataset.

    Raises:
        ValueError: with the reason, when the file cannot be used.
    """
    try:
        if path.is_dir():
            raise ValueError(f"no {', '.join(READERS)} file in this folder")
        if not path.exists():
            raise ValueError("no such file")
        if path.suffix not in READERS:
            raise ValueError(f"not one of {', '.join(READERS)}")
        joints = READERS[path.suffix](path, graph, compat or COMPAT.get(dataset, Compat()))
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from None
    except UserError as error:
        raise ValueError(str(error)) from None
    return check_clip(joints, graph, dataset, compat)


def check_clip(
    joints: np.ndarray, graph: Graph, dataset: str = "", compat: Compat | None = None
) -> np.ndarray:
    """A clip [T, M, V, 3] or [T, V, 3] as float32 [T, M, V, 3], as the run's dataset has its clips.

    Of a run on NTU, a clip in the sensor's coordinates goes the way of the files: actors are chosen
    and centred. Args as of `read_joints`.

    Raises:
        ValueError: with the reason, when it cannot be one of this skeleton.
    """
    joints = np.asarray(joints)
    numbers = joints.dtype.kind in "fiu" and joints.size
    if not numbers or joints.ndim not in (3, 4) or joints.shape[-1] != 3:
        raise ValueError(f"{joints.dtype} of shape {joints.shape} is no clip [T, M, V, 3]")
    if joints.shape[-2] != graph.num_joints:
        raise ValueError(
            f"it has {joints.shape[-2]} joints, this run's skeleton {graph.name} {graph.num_joints}"
        )
    clip = as_clip(joints, graph.num_joints)
    if dataset in NTU and graph.num_joints == NTU25.num_joints:
        clip = actors_of(clip, compat or COMPAT.get(dataset, Compat()))
    return clip


def true_class(path: Path, classes: tuple[str, ...]) -> str | None:
    """The class in the name of an NTU or NW-UCLA file, if `classes` are those of that dataset."""
    label = None
    if classes == nw_ucla.CLASSES:
        label = nw_ucla.label_of(path.stem)
    elif classes in NTU_CLASSES.values():
        try:
            label = parse_name(path.stem).action - 1
        except ValueError:
            return None
    return classes[label] if label is not None and label < len(classes) else None


def _skeleton(path: Path, graph: Graph, compat: Compat) -> np.ndarray:
    return actors(parse_skeleton(read_bytes(path, MAX_BYTES)), compat)


def _json(path: Path, graph: Graph, compat: Compat) -> np.ndarray:
    return nw_ucla.parse_joints(read_bytes(path, nw_ucla.LIMITS.member_bytes))


def _npy(path: Path, graph: Graph, compat: Compat) -> np.ndarray:
    return read_clip(path, graph.num_joints)


READERS: dict[str, Callable[[Path, Graph, Compat], np.ndarray]] = {
    ".skeleton": _skeleton,
    ".json": _json,
    ".npy": _npy,
}
