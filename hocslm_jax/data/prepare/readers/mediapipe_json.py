"""Landmarks of MediaPipe's pose solutions (BlazePose, 33 joints), saved as JSON.

In: a parsed JSON value: a frame or a list of frames, each with `pose_world_landmarks` or
`pose_landmarks` in the spelling of Python, of JavaScript, or of a protocol buffer. Out: a Recording
of world landmarks in metres, or else of image landmarks as shares of the image.
"""

import numpy as np

from hocslm_jax.data.prepare.readers.recording import (
    Detection,
    Recording,
    assemble,
    floats,
    guess_unit,
)
from hocslm_jax.graph import GRAPHS

BLAZEPOSE = GRAPHS["blazepose33"]
WORLD = ("pose_world_landmarks", "poseWorldLandmarks", "world_landmarks", "worldLandmarks")
IMAGE = ("pose_landmarks", "poseLandmarks", "landmarks")
_NUMBERS = ("frame_index", "frame_number", "frame_id", "frame")


def read_mediapipe(content: dict | list) -> Recording:
    """World landmarks (metres, origin at the hips) if the file has any, or else image landmarks.

    Only x and y of image landmarks are read, because z has another scale. Both are shares of the
    image's sides, so a body is stretched unless the image is square.
    """
    frames = frames_of(content)
    world = any(_find(frame, WORLD) for frame in frames)
    found, numbers = [], []
    for position, frame in enumerate(frames):
        number = next((frame[key] for key in _NUMBERS if key in frame), position)
        if type(number) is not int or abs(number) >= 10**15:
            raise ValueError(f"{str(number)[:50]!r} is not a frame number")
        numbers.append(number)
        for person, body in enumerate(_bodies(_find(frame, WORLD if world else IMAGE))):
            points, visibility = _points(body, 3 if world else 2)
            found.append(Detection(number, person, points, visibility))
    joints, confidence, tracks = assemble(found, numbers)
    fps = content.get("fps") if isinstance(content, dict) else None
    return Recording(
        joints,
        confidence,
        layout=BLAZEPOSE,
        unit="m" if world else guess_unit(joints),
        up="-y",
        fps=float(fps) if type(fps) in (int, float) and 0 < fps < 1e4 else None,
        tracks=tracks,
    )


def frames_of(content: object) -> list[dict]:
    """The frames in a value, each an object; [] if it has no landmarks."""
    if isinstance(content, dict) and isinstance(content.get("frames"), list):
        content = content["frames"]
    if _is_body(content):
        content = [content]
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        return []
    frames = [{IMAGE[0]: frame} if _is_body(frame) else frame or {} for frame in content]
    objects = all(isinstance(frame, dict) for frame in frames)
    named = objects and any(key in frame for frame in frames for key in (*WORLD, *IMAGE))
    return frames if named else []


def _is_body(value: object) -> bool:
    """Whether a value is a list of landmarks, which are objects with x and y."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(point, dict) and "x" in point and "y" in point for point in value)
    )


def _find(frame: dict, keys: tuple[str, ...]) -> object:
    return next((frame[key] for key in keys if frame.get(key)), None)


def _bodies(value: object) -> list[list]:
    """The persons of a frame; each is a list of landmarks."""
    value = _unpacked(value) or []
    if not isinstance(value, list):
        raise ValueError(f"landmarks are {type(value).__name__}, expected a list")
    first = _unpacked(value[0]) if value else None
    several = isinstance(first, list) and (not first or isinstance(first[0], dict | list))
    return [_unpacked(body) for body in value] if several else [value] if value else []


def _unpacked(value: object) -> object:
    """The list in a protocol buffer's landmark list; other values are returned unchanged."""
    is_buffer = isinstance(value, dict) and "x" not in value
    return value.get("landmark", value.get("landmarks")) if is_buffer else value


def _points(body: list, axes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """(coordinates [33, axes], visibility [33] or None)."""
    if not isinstance(body, list) or len(body) != BLAZEPOSE.num_joints:
        count = len(body) if isinstance(body, list) else "no"
        raise ValueError(f"{count} landmarks, expected 33")
    if all(isinstance(point, dict) for point in body):
        body = [[point.get(key) for key in ("x", "y", "z", "visibility")] for point in body]
    table = floats(body, "landmarks")
    if table.ndim != 2 or table.shape[1] < axes:
        raise ValueError(f"landmarks of shape {table.shape}, expected x, y, z and visibility")
    seen = table[:, 3] if table.shape[1] > 3 and not np.isnan(table[:, 3]).all() else None
    return table[:, :axes], seen
