"""The table of formats of skeleton files, and the one function that reads any of them.

In: a path. Out: a Recording. To read another format, write a function that makes a Recording of a
path or of a parsed JSON value, and give it a line in `FORMATS`.
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
    """How files of one kind are known and read.

    Attributes:
      read: makes a Recording of a path; of a parsed value if the suffix is .json.
      suffixes: of its files.
      sign: what its JSON has at the top, for messages.
      known_by: whether a parsed JSON value is of this kind.
      has_axes: whether `read` takes axes and a layout, since files do not say them.
    """

    read: Callable[..., Recording]
    suffixes: tuple[str, ...]
    sign: str = ""
    known_by: Callable[[object], bool] | None = None
    has_axes: bool = False


def read_recording(
    path: str | Path, axes: str | None = None, layout: str | Graph | None = None
) -> Recording:
    """The skeletons in one file, or in a folder of OpenPose's files, whatever the format.

    Args:
      axes: the order of an array's axes, e.g. "TMVC"; None = the only one that fits.
      layout: whose joints these are, where the file does not say; columns or bones with names are
        put into its order.

    Raises:
      UserError: in one line: the path, and what is wrong with it; `Nobody` if that is all.
    """
    path = Path(path)
    graph = resolve_graph(layout) if layout is not None else None
    try:
        with np.errstate(all="ignore"):  # damaged numbers are refused later, by name
            recording = _read(path, axes, graph)
        if graph is None or recording.layout == graph:
            return recording
        return as_declared(recording, graph)
    except UserError as error:
        kind = Nobody if isinstance(error, Nobody) else UserError
        raise kind(_named(path, error)) from None
    except (ValueError, OSError) as error:
        raise UserError(_named(path, getattr(error, "strerror", None) or error)) from None


def describe(content: object) -> str:
    """What a JSON value looks like, in a few words."""
    if isinstance(content, dict):
        return f"an object with the keys {few((repr(str(key)[:30]) for key in content), most=6)}"
    if isinstance(content, list):
        inner = describe(content[0]) if content and isinstance(content[0], dict) else None
        inner = inner or (type(content[0]).__name__ if content else "nothing")
        return f"a list of {len(content)}, the first {inner}"
    return type(content).__name__


def _read(path: Path, axes: str | None, layout: Graph | None) -> Recording:
    if path.is_dir():
        if not any(path.glob(FRAME_FILES)):
            raise ValueError(f"a folder without {FRAME_FILES} (OpenPose); name a file")
        return read_openpose_folder(path)
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise ValueError("not a plain file")
    suffix = path.suffix.lower()
    kinds = [kind for kind in FORMATS.values() if suffix in kind.suffixes]
    if not kinds:
        known = dict.fromkeys(ending for kind in FORMATS.values() for ending in kind.suffixes)
        raise ValueError(f"files of the kind {suffix!r} are not read; {', '.join(known)} are")
    if kinds[0].has_axes:
        return kinds[0].read(path, axes, layout)
    if axes:
        raise ValueError("axes are of arrays; the format of this file says them itself")
    if suffix != ".json":
        return kinds[0].read(path)
    content = parse_json(read_bytes(path, MAX_JSON_BYTES))
    for kind in kinds:
        if kind.known_by(content):
            return kind.read(content)
    signs = ", ".join(f"{name} ({kind.sign})" for name, kind in FORMATS.items() if kind.sign)
    raise ValueError(f"{describe(content)}, which is no known format; read are {signs}")


def as_declared(recording: Recording, layout: Graph) -> Recording:
    """The recording in the layout that its reader could not know."""
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
    """Whether a value is a list whose first is an object with these keys."""
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
