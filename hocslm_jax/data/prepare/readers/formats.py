"""The table of formats of skeleton files, and the function that reads them all.

In: a path. Out: a Recording. To add a format, write a function from a path or a parsed JSON value
to a Recording, and add it to `FORMATS`.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hocslm_jax.data.clip import Nobody
from hocslm_jax.data.prepare.ntu.skeleton import parse_skeleton
from hocslm_jax.data.prepare.ntu.sources import MAX_BYTES
from hocslm_jax.data.prepare.readers.arrays import read_npy_file, read_npz_file
from hocslm_jax.data.prepare.readers.bvh import read_bvh
from hocslm_jax.data.prepare.readers.keypoint_json import (
    FRAME_FILES,
    holds_frames,
    read_annotations,
    read_kinetics,
    read_nw_ucla,
    read_openpose,
    read_openpose_folder,
)
from hocslm_jax.data.prepare.readers.matlab import read_mat
from hocslm_jax.data.prepare.readers.mediapipe_json import frames_of, read_mediapipe
from hocslm_jax.data.prepare.readers.recording import (
    Detection,
    Recording,
    assemble,
    in_order_of,
)
from hocslm_jax.data.prepare.readers.tables import read_csv
from hocslm_jax.errors import UserError, few
from hocslm_jax.files.text import MAX_JSON_BYTES, parse_json, read_bytes
from hocslm_jax.graph import NTU25, Graph, resolve_graph


class Format(NamedTuple):
    """How files of one format are recognised and read.

    Attributes:
      read: makes a Recording from a path, or from a parsed value if the suffix is .json.
      suffixes: of its files.
      sign: the top-level keys of its JSON, for messages.
      known_by: whether a parsed JSON value has this format.
      has_axes: whether `read` takes axes and a layout, which the files do not state.
    """

    read: Callable[..., Recording]
    suffixes: tuple[str, ...]
    sign: str = ""
    known_by: Callable[[object], bool] | None = None
    has_axes: bool = False


def read_recording(
    path: str | Path,
    axes: str | None = None,
    layout: str | Graph | None = None,
    likely: int = 0,
) -> Recording:
    """The skeletons in one file of any format, or in a folder of OpenPose's files.

    Args:
      axes: the order of an array's axes, e.g. "TMVC"; None = the only one that fits.
      layout: layout of the joints, if the file does not state it; named columns or bones are sorted
        into its order.
      likely: the number of joints that tells the axes of an array apart, if its layout is unknown;
        0 = not known.

    Raises:
      UserError: one line with the path and the reason; `Nobody` if the file shows nobody.
    """
    path = Path(path)
    graph = resolve_graph(layout) if layout is not None else None
    try:
        with np.errstate(all="ignore"):  # damaged numbers are refused later, with their names
            recording = _read(path, axes, graph, likely)
        if graph is None or recording.layout == graph:
            return recording
        return as_declared(recording, graph)
    except UserError as error:
        kind = Nobody if isinstance(error, Nobody) else UserError
        raise kind(_named(path, error)) from None
    except (ValueError, OSError) as error:
        raise UserError(_named(path, getattr(error, "strerror", None) or error)) from None


def is_recording(path: Path) -> bool:
    """Whether a path is a file with a suffix that is read, or a folder of OpenPose's files."""
    return (path.is_file() and path.suffix.lower() in SUFFIXES) or holds_frames(path)


def describe(content: object) -> str:
    """Describes a JSON value in a few words."""
    if isinstance(content, dict):
        return f"an object with the keys {few((repr(str(key)[:30]) for key in content), most=6)}"
    if isinstance(content, list):
        inner = describe(content[0]) if content and isinstance(content[0], dict) else None
        inner = inner or (type(content[0]).__name__ if content else "nothing")
        return f"a list of {len(content)}, the first {inner}"
    return type(content).__name__


def _read(path: Path, axes: str | None, layout: Graph | None, likely: int) -> Recording:
    if path.is_dir():
        if not any(path.glob(FRAME_FILES)):
            raise ValueError(f"a folder without {FRAME_FILES} (OpenPose); name a file")
        return read_openpose_folder(path)
    if path.exists() and not path.is_file():  # reading a pipe would block
        raise ValueError("not a plain file")
    if path.exists() and not path.stat().st_size:
        raise ValueError("empty file")
    suffix = path.suffix.lower()
    kinds = [kind for kind in FORMATS.values() if suffix in kind.suffixes]
    if not kinds:
        raise ValueError(f"files of the kind {suffix!r} are not read; {', '.join(SUFFIXES)} are")
    if kinds[0].has_axes:
        return kinds[0].read(path, axes, layout, likely)
    if axes:
        raise ValueError("axes are for arrays; the format of this file defines them")
    if suffix != ".json":
        return kinds[0].read(path)
    try:
        content = parse_json(read_bytes(path, MAX_JSON_BYTES))
    except ValueError as error:
        raise ValueError(f"damaged JSON ({error})") from None
    for kind in kinds:
        if kind.known_by(content):
            return kind.read(content)
    signs = "; ".join(kind.sign for kind in FORMATS.values() if kind.sign)
    raise ValueError(f"{describe(content)}, which is no known format; they have {signs}")


def as_declared(recording: Recording, layout: Graph) -> Recording:
    """The recording in a layout that its reader could not determine."""
    if recording.names:
        return in_order_of(recording, layout)
    if recording.layout is None or recording.layout.joints == layout.joints:
        return dataclasses.replace(recording, layout=layout)
    raise ValueError(f"its joints are {recording.layout.name}, not {layout.name}")


def _named(path: Path, error: object) -> str:
    text = " ".join(str(error).split())
    return text if str(path) in text else f"{path}: {text}"


def _read_ntu(path: Path) -> Recording:
    """All bodies of an NTU `.skeleton` file, in the sensor's coordinates."""
    skeleton = parse_skeleton(read_bytes(path, MAX_BYTES))
    found = [
        Detection(int(frame), name, joints, None)
        for name, body in skeleton.bodies.items()
        for frame, joints in zip(body.frames, body.joints, strict=True)
    ]
    joints, _, tracks = assemble(found, range(skeleton.num_frames))
    return Recording(joints, layout=NTU25, unit="m", up="y", fps=30.0, tracks=tracks)


def _has(*keys: str) -> Callable[[object], bool]:
    """Whether a value is an object with these keys."""
    return lambda content: isinstance(content, dict) and all(key in content for key in keys)


def _list_of(*keys: str) -> Callable[[object], bool]:
    """Whether a value is a list whose first item is an object with these keys."""
    known = _has(*keys)
    return lambda content: isinstance(content, list) and known(content[0] if content else None)


def _is_kinetics(content: object) -> bool:
    return _has("data")(content) and _list_of("skeleton")(content["data"])


_JSON = (".json",)
FORMATS = {
    "ntu": Format(_read_ntu, (".skeleton",)),
    "npy": Format(read_npy_file, (".npy",), has_axes=True),
    "npz": Format(read_npz_file, (".npz",), has_axes=True),
    "mat": Format(read_mat, (".mat",), has_axes=True),
    "csv": Format(read_csv, (".csv", ".tsv")),
    "bvh": Format(read_bvh, (".bvh",)),
    "nw_ucla": Format(read_nw_ucla, _JSON, "skeletons", _has("skeletons")),
    "openpose": Format(
        read_openpose, _JSON, "people", lambda c: _has("people")(c) or _list_of("people")(c)
    ),
    "kinetics": Format(read_kinetics, _JSON, "data of skeleton", _is_kinetics),
    "mediapipe": Format(
        read_mediapipe, _JSON, "pose_landmarks", lambda content: bool(frames_of(content))
    ),
    "alphapose": Format(
        read_annotations, _JSON, "image_id, keypoints", _list_of("image_id", "keypoints")
    ),
    "coco": Format(read_annotations, _JSON, "annotations", _has("annotations")),
}
SUFFIXES = tuple(dict.fromkeys(suffix for kind in FORMATS.values() for suffix in kind.suffixes))
ARRAYS = tuple(suffix for kind in FORMATS.values() if kind.has_axes for suffix in kind.suffixes)
