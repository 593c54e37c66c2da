"""Arrays of joints in .npy and .npz files, whose axes are declared or unambiguous.

In: a path, or an array. Out: a Recording. Axes are written as letters, e.g. `TVC` or `CTVM`: T
frames, M persons, V joints, C coordinates: 2, 3, or 4 with a confidence as the last.
"""

import dataclasses
import re
from pathlib import Path

import numpy as np

from hocslm_jax.data.prepare.readers.recording import UNITS, Recording, check_size, guess_unit
from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import replaced
from hocslm_jax.files.npy import read_npy, read_npz
from hocslm_jax.graph import GRAPHS, Graph

ORDERS = {
    3: ("TVC", "TCV", "VTC", "VCT", "CTV", "CVT"),
    4: ("TMVC", "MTVC", "TVMC", "TVCM", "CTVM", "CTMV", "MCTV"),
}
MOST_PERSONS = 10  # and the fewest joints if axes are not declared
JOINTS = ("keypoint", "keypoints", "joints", "skeleton", "skeletons", "poses", "positions", "data")
SAID = {
    "layout": GRAPHS,
    "unit": UNITS,
    "up": ("x", "-x", "y", "-y", "z", "-z"),
    "axes": (*ORDERS[3], *ORDERS[4]),
}
CONFIDENCE = ("keypoint_score", "keypoint_scores", "confidence", "scores", "visibility")


def read_npy_file(
    path: Path, axes: str | None = None, layout: Graph | None = None, likely: int = 0
) -> Recording:
    """The array of a .npy file; see `from_array`."""
    return from_array(read_npy(path), axes, layout, likely=likely)


def read_npz_file(
    path: Path, axes: str | None = None, layout: Graph | None = None, likely: int = 0
) -> Recording:
    """The joints of an .npz file, and their confidence and `fps` if it has them.

    Joints are the array with a usual name (`JOINTS`), or the only one of three or four dimensions.
    `layout`, `unit`, `up` and `axes` are arrays of one string, as `write_npz` writes them.

    Raises:
      ValueError: no such array, several, an unknown string, or as `from_array`.
    """
    arrays = read_npz(path)
    says = {key: str(arrays[key].reshape(-1)[0]) for key in SAID if _is_text(arrays.get(key))}
    for key, known in SAID.items():
        if key in says and says[key] not in known:
            raise ValueError(f"{key} is {says[key][:30]!r}, expected one of {', '.join(known)}")
    fps = arrays.get("fps")
    name = pick({key: array.shape for key, array in arrays.items() if array.dtype.kind in "fiu"})
    scores = next((arrays[key] for key in CONFIDENCE if key in arrays), None)
    fps = float(fps) if fps is not None and fps.size == 1 and fps.dtype.kind in "fiu" else None
    own = GRAPHS[says.pop("layout")] if "layout" in says else layout
    axes = axes or says.pop("axes", None)
    found = from_array(arrays[name], axes, own, scores, fps, likely)
    return dataclasses.replace(found, **{key: says[key] for key in ("unit", "up") if key in says})


def write_npz(path: Path, recording: Recording) -> None:
    """Writes a recording of a built-in layout; `read_npz_file` reads it unchanged."""
    said = {"layout": recording.layout.name, "unit": recording.unit, "up": recording.up}
    said["axes"] = "TMVC"
    kept = {"confidence": recording.confidence, "fps": recording.fps, **said}
    with replaced(path) as partial:
        arrays = {key: value for key, value in kept.items() if value is not None}
        np.savez_compressed(partial, joints=recording.joints, **arrays)


def _is_text(array: np.ndarray | None) -> bool:
    return array is not None and array.dtype.kind == "U" and array.size == 1


def pick(shapes: dict[str, tuple[int, ...]]) -> str:
    """The name of the array that holds the joints, by names and shapes of a file's numeric arrays.

    Raises:
      ValueError: none, or several.
    """
    found = {key: shape for key, shape in shapes.items() if len(shape) in ORDERS}
    found = {key: shape for key, shape in found.items() if key not in CONFIDENCE}
    known = [key for key in JOINTS if key in found]
    if known:
        return known[0]
    if len(found) == 1:
        return next(iter(found))
    there = ", ".join(f"{key[:30]!r} {shape}" for key, shape in [*shapes.items()][:4]) or "none"
    many = "several arrays" if found else "no numeric array"
    raise ValueError(f"{many} of 3 or 4 dimensions: {there}; name the joints {JOINTS[0]!r}")


def from_array(
    array: np.ndarray,
    axes: str | None = None,
    layout: Graph | None = None,
    confidence: np.ndarray | None = None,
    fps: float | None = None,
    likely: int = 0,
) -> Recording:
    """A Recording of an array of three or four dimensions.

    Four coordinates are x, y, z and a confidence. Three are x, y and a confidence if the first two
    are pixels and the third is between 0 and 1.

    Args:
      axes: the order of the axes; None = the only one that fits the shape.
      layout: layout of the joints; None = unknown.
      confidence: with the same axes except C, if there is one.
      likely: the number of joints that decides between several orders of the axes; 0 = none.

    Raises:
      ValueError: no numbers, axes that do not fit or are ambiguous, or as `Recording`.
    """
    if array.dtype.kind not in "fiu":
        raise ValueError(f"an array of {array.dtype}, expected numbers")
    check_size(array.shape)
    axes = _checked(axes, array.shape, layout) if axes else _only_order(array.shape, layout, likely)
    with np.errstate(over="ignore", invalid="ignore"):
        joints = _ordered(np.asarray(array, np.float32), axes, "TMVC")
    if confidence is not None:
        short = axes.replace("C", "")
        if confidence.ndim != len(short) or confidence.dtype.kind not in "fiu":
            raise ValueError(f"a confidence of shape {confidence.shape}, expected the axes {short}")
        confidence = _ordered(np.asarray(confidence, np.float32), short, "TMV")
        if confidence.shape != joints.shape[:3]:
            raise ValueError(f"confidence {confidence.shape} does not fit joints {joints.shape}")
    joints, confidence = split(joints, confidence)
    unit, up = guess_unit(joints), layout.up if layout else None
    if unit == "px" and up != "-y":
        up = None  # the layout usually comes with a sensor's y, which says nothing about pixels
    return Recording(
        joints,
        confidence,
        layout=layout,
        unit=unit,
        up=up,
        fps=fps if fps and 0 < fps < 1e4 else None,
    )


def split(
    joints: np.ndarray, confidence: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(joints of 2 or 3 coordinates, confidence or None); the last coordinate may be the
    confidence.

    Raises:
      ValueError: 4 coordinates without a confidence, or with two.
    """
    count = joints.shape[3]
    if confidence is None and count > 2 and joints.size:
        last, box = joints[..., -1], joints[..., :2].reshape(-1, 2)
        scores = bool(np.all(np.isnan(last) | ((last >= 0) & (last <= 1)))) and last.any()
        if count == 4 and not scores:
            raise ValueError("4 coordinates, of which the last is not a confidence between 0 and 1")
        with np.errstate(over="ignore", invalid="ignore"):
            pixels = (np.fmax.reduce(box) - np.fmin.reduce(box) > 20).all()
        if scores and (count == 4 or pixels):
            return joints[..., :-1], last
    if count == 4:
        raise ValueError("4 coordinates and a separate confidence")
    return joints, confidence


def check_axes(axes: str) -> str:
    """The axes in capitals; "" where none are declared.

    Raises:
      UserError: other letters than T, V, C and optionally M, each once.
    """
    letters = axes.upper()
    good = re.fullmatch(r"[TMVC]+", letters) and {*"TVC"} <= {*letters}
    if axes and (not good or len({*letters}) != len(letters)):
        raise UserError(
            f"axes {axes[:20]!r}: write T, V, C and, if there is one, M in their order, e.g. TMVC"
        )
    return letters


def _checked(axes: str, shape: tuple[int, ...], layout: Graph | None) -> str:
    axes = check_axes(axes)
    sizes = dict(zip(axes, shape, strict=False))
    if len(axes) != len(shape):
        raise ValueError(f"shape {shape} has {len(shape)} axes, {axes} has {len(axes)}")
    if sizes["C"] not in (2, 3, 4):
        raise ValueError(f"shape {shape} read as {axes} has {sizes['C']} coordinates, not 2 to 4")
    if layout and sizes["V"] != layout.num_joints:
        raise ValueError(
            f"shape {shape} read as {axes} has {sizes['V']} joints, {layout.name} has "
            f"{layout.num_joints}"
        )
    return axes


def _only_order(shape: tuple[int, ...], layout: Graph | None, likely: int) -> str:
    """The only order of axes that an array of this shape can have."""
    if len(shape) not in ORDERS:
        raise ValueError(
            f"shape {shape}, expected three axes or four: frames, persons, joints, xyz"
        )
    fits = []
    for axes in ORDERS[len(shape)]:
        sizes = dict(zip(axes, shape, strict=True))
        joints = sizes["V"] == layout.num_joints if layout else sizes["V"] > MOST_PERSONS
        if sizes["C"] in (2, 3, 4) and joints and sizes.get("M", 1) <= MOST_PERSONS:
            fits.append(axes)
    if len(fits) > 1 and likely:
        fits = [axes for axes in fits if shape[axes.index("V")] == likely] or fits
    if len(fits) == 1:
        return fits[0]
    if layout and layout.num_joints not in shape:
        raise ValueError(
            f"shape {shape} has no axis of the {layout.num_joints} {layout.name} joints"
        )
    what = (
        f"can be {' or '.join(fits[:3])}" if fits else "is none of frames, joints and coordinates"
    )
    known = "" if layout else ", and its layout with --layout"
    raise ValueError(
        f"shape {shape} {what}; name its axes, e.g. --axes {fits[0] if fits else 'TMVC'}{known}"
    )


def _ordered(array: np.ndarray, axes: str, order: str) -> np.ndarray:
    """The array with its axes in another order; without an axis of persons there is one person."""
    if "M" not in axes:
        array, axes = array[None], "M" + axes
    return np.ascontiguousarray(array.transpose([axes.index(letter) for letter in order]))
