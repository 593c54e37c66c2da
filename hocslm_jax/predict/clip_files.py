"""Skeleton files for prediction: from paths, folders and patterns to clips of a model's skeleton.

In: NTU `.skeleton` files, NW-UCLA `.json` files, `.npy` arrays [T, M, V, C] or [T, V, C], and the
formats of `data.prepare.readers`, whose joints are mapped to the model's by their names. Out:
joints float32 [T, M, V, C], read as `prepare` reads them for training, or the reason of an error.
As in training, the model's `Feed` decides whether clips are then centred.
"""

import dataclasses
import glob
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.channels import USUAL, coordinates_of
from hocslm_jax.data.prepare import nw_ucla
from hocslm_jax.data.prepare.ntu.bodies import Compat, actors, actors_of
from hocslm_jax.data.prepare.ntu.classes import CLASSES as NTU_CLASSES
from hocslm_jax.data.prepare.ntu.skeleton import Skeleton, parse_name, parse_skeleton
from hocslm_jax.data.prepare.ntu.sources import MAX_BYTES
from hocslm_jax.data.prepare.readers.clips import (
    USUAL_READING,
    Reading,
    as_clip,
    channels_in,
    mapped,
    read_clip,
)
from hocslm_jax.data.prepare.readers.formats import SUFFIXES, is_recording
from hocslm_jax.data.prepare.readers.keypoint_json import holds_frames
from hocslm_jax.data.prepare.readers.recording import MAX_NUMBERS
from hocslm_jax.data.sampling import of_size_one
from hocslm_jax.errors import UserError
from hocslm_jax.files.npy import read_npy
from hocslm_jax.files.text import read_bytes
from hocslm_jax.files.videos import is_video
from hocslm_jax.graph import NTU25, UCLA20, Graph


@dataclasses.dataclass(frozen=True, repr=False)  # Grain would print all arrays
class Clips:
    """Clips in memory, with the interface of `data.store.Store` that feeders use."""

    clips: Sequence[np.ndarray]
    graph: Graph
    channels: str = USUAL

    @property
    def ids(self) -> list[str]:
        return [str(row) for row in range(len(self.clips))]

    @property
    def labels(self) -> np.ndarray:
        return np.zeros(len(self.clips), np.int32)  # unknown

    def joints(self, row: int) -> np.ndarray:
        return self.clips[row]

    def rows(self, protocol: str, split: str) -> np.ndarray:
        return np.arange(len(self.clips))


def find_files(arguments: Iterable[str]) -> list[Path]:
    """The files given by paths, folders (at any depth) and patterns such as `clips/**/*.npy`.

    Each file occurs once, in order. An argument that matches no file stays in the list, so that
    reading it reports the error.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        path = Path(os.path.expanduser(argument))
        paths = [path]
        if os.path.isdir(path):
            inside = [p for p in (path, *path.rglob("*")) if not p.name.startswith(".")]
            folders = {p for p in inside if holds_frames(p)}
            kinds = (p for p in inside if is_recording(p) or (is_video(p) and p.is_file()))
            clips = (p for p in kinds if p.name not in DESCRIBING)
            paths = sorted(p for p in clips if p.parent not in folders)
        elif not os.path.exists(path):
            paths = sorted(map(Path, glob.glob(str(path), recursive=True)))
        found |= dict.fromkeys(paths or [path])
    return list(found)


def load_clip(path: str | Path) -> np.ndarray:
    """The joints in a skeleton file, float32 [T, M, V, C], for `Predictor.predict`.

    T frames, M persons, V joints, in the unit and position of the file; C as in
    `readers.clips.channels_in`. A `.skeleton` file gives all its bodies, from which a model trained
    on NTU chooses as in training. The joints are those of the file; `Predictor.predict` of a path
    maps them to the model's by name.

    Raises:
        UserError: the file does not exist, has an unknown format, or is damaged.
    """
    path = Path(os.path.expanduser(path))
    try:
        known = is_recording(path) and path.suffix.lower() != ".skeleton"
        reading = Reading(channels_in(path, USUAL_READING)) if known else USUAL_READING
        joints = _read(path, _bodies, None, reading)
        if joints.ndim not in (3, 4):
            raise ValueError(f"shape {joints.shape}, expected [T, M, V, C] or [T, V, C]")
        return as_clip(joints, joints.shape[-2], reading)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def read_joints(
    path: Path, graph: Graph, compat: Compat | None = None, reading: Reading = USUAL_READING
) -> np.ndarray:
    """One file's clip, float32 [T, M, V, C]; arguments as of `check_clip`.

    Raises:
        ValueError: with the reason, if the file cannot be used.
    """
    joints = _read(path, lambda skeleton: actors(skeleton, compat or Compat()), graph, reading)
    return check_clip(joints, graph, compat, dataclasses.replace(reading, layout="", axes=""))


def check_clip(
    joints: np.ndarray,
    graph: Graph,
    compat: Compat | None = None,
    reading: Reading = USUAL_READING,
) -> np.ndarray:
    """A clip [T, M, V, C] or [T, V, C] as float32 [T, M, V, C], prepared like training clips.

    Args:
        graph: the model's skeleton.
        compat: how NTU's files were read for a model trained on them, None for other models. If the
            clip is in sensor coordinates, its actors are selected and centred in the same way.
        reading: the channels, and how missing joints are marked and filled, as in the training set.
            If it names a layout, the joints have that layout and are mapped to `graph` by name.

    Raises:
        ValueError: with the reason, if it cannot be a clip of this skeleton.
    """
    joints = np.asarray(joints)
    numbers = joints.dtype.kind in "fiu" and joints.size
    if not numbers or joints.ndim not in (3, 4):
        shape = f"[T, M, V, {len(reading.channels)}]"
        raise ValueError(f"{joints.dtype} of shape {joints.shape} is not a clip {shape}")
    if reading.layout:
        joints = mapped(joints, graph, reading)
    if joints.shape[-2] != graph.num_joints:
        raise ValueError(
            f"it has {joints.shape[-2]} joints, this model's skeleton {graph.name} "
            f"{graph.num_joints}; name their layout, e.g. coco17"
        )
    clip = as_clip(joints, graph.num_joints, reading)
    if compat:
        lost = ~clip.any(axis=(0, 1, 3))  # joints that the other skeleton lacks stay missing
        clip = actors_of(clip, compat)
        clip[:, :, lost] = 0
    return clip


def to_draw(clip: np.ndarray, graph: Graph, channels: str) -> np.ndarray:
    """A clip [T, M, V, C] as [T, M, V, 3] for drawing: y up, scaled to the size of a person."""
    if coordinates_of(channels) == 3:
        return clip[..., :3]
    flat = of_size_one(clip[..., :2]) * np.float32(1.7)
    flat = flat * np.array([1, -1 if graph.up == "-y" else 1], np.float32)
    return np.concatenate([flat, 0 * flat[..., :1]], axis=-1)


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


# Files in the folder of an own dataset that are not clips.
DESCRIBING = ("clips.csv", "graph.json")
READERS: dict[str, Callable[[Path], np.ndarray | Skeleton]] = {
    ".skeleton": lambda path: parse_skeleton(read_bytes(path, MAX_BYTES)),
    ".npy": read_npy,
}


def _read(
    path: Path,
    of_skeleton: Callable[[Skeleton], np.ndarray],
    graph: Graph | None,
    reading: Reading,
) -> np.ndarray:
    """The array in a file, in the joints of `graph`. Raises ValueError with the reason."""
    try:
        suffix = path.suffix.lower()
        if path.is_dir() and not holds_frames(path):
            raise ValueError(f"no {', '.join(SUFFIXES)} file in this folder")
        if not path.exists():
            raise ValueError("no such file")
        if is_video(path):
            raise ValueError("a video, which needs a pose estimator: predict_video, docs/video.md")
        if suffix not in SUFFIXES and not path.is_dir():
            raise ValueError(f"not one of {', '.join(SUFFIXES)}")
        declared = reading.axes or reading.layout
        if suffix in READERS and not declared:
            found = READERS[suffix](path)
        elif suffix == ".json" and (graph is None or graph.joints == UCLA20.joints):
            found = _nw_ucla_or_other(path, graph, reading)
        else:
            found = read_clip(path, graph, reading)
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from None
    except UserError as error:
        raise ValueError(str(error)) from None
    return of_skeleton(found) if isinstance(found, Skeleton) else found


def _nw_ucla_or_other(path: Path, graph: Graph | None, reading: Reading) -> np.ndarray:
    """Reads a JSON file as one of NW-UCLA, or else in one of the other formats."""
    try:
        return nw_ucla.parse_joints(read_bytes(path, nw_ucla.LIMITS.member_bytes))
    except ValueError as error:
        try:
            return read_clip(path, graph, reading)
        except (ValueError, UserError):
            raise error from None


def _bodies(skeleton: Skeleton) -> np.ndarray:
    """All bodies of an NTU file, [T, M, 25, 3] in the sensor's coordinates."""
    shape = (skeleton.num_frames, len(skeleton.bodies), NTU25.num_joints, 3)
    if np.prod(shape, dtype=float) > MAX_NUMBERS:
        raise ValueError(f"{shape[1]} bodies in {shape[0]} frames, too many for a clip")
    joints = np.zeros(shape, np.float32)
    for person, (key, body) in enumerate(skeleton.bodies.items()):
        if len(set(body.frames.tolist())) < len(body.frames):
            raise ValueError(f"body {key} is there more than once in a frame")
        joints[body.frames, person] = body.joints
    return joints
