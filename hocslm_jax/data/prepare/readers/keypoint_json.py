"""2D keypoints in JSON: OpenPose, Kinetics-skeleton, AlphaPose and COCO; also NW-UCLA's 3D clips.

In: a parsed JSON value, or a folder of OpenPose's files. Out: a Recording in pixels or in shares of
the image, y down. A joint with confidence 0 is missing. Damaged files raise ValueError.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hocslm_jax.data.prepare.readers.recording import (
    Detection,
    Recording,
    assemble,
    floats,
    guess_unit,
    in_order_of,
    layout_of,
)
from hocslm_jax.errors import UserError, few
from hocslm_jax.files.text import parse_json, read_bytes
from hocslm_jax.graph import GRAPHS, UCLA20, Graph

FRAME_FILES = "*_keypoints.json"
FRAME_FILE = "*_[0-9]*_keypoints.json"  # of a folder that is one clip
MAX_FRAME_BYTES = 1 << 20  # of one of OpenPose's files: a crowd of 250 with faces and hands
MAX_FRAME_FILES = 100_000
_OPENPOSE = {25: "openpose25", 18: "openpose18"}
_COCO_FIRST = (17, 26, 133, 136)  # Halpe's and whole-body keypoints begin with COCO's 17
_NUMBER = re.compile(r"\d+")
_POSES = (("pose_keypoints_2d", 3), ("pose_keypoints", 3), ("pose_keypoints_3d", 4))
_TRACKS = ("track_id", "tracking_id", "instance_id", "idx")


def read_openpose(content: dict | list) -> Recording:
    """One file of OpenPose's `--write_json`, or a list of their contents, one per frame."""
    frames = content if isinstance(content, list) else [content]
    return _openpose(list(enumerate(frames)))


def holds_frames(folder: Path) -> bool:
    """Whether a path is a folder with OpenPose's files, one for each frame: a clip."""
    return folder.is_dir() and any(folder.glob(FRAME_FILE))


def read_openpose_folder(folder: Path) -> Recording:
    """The files `NAME_000000000000_keypoints.json` of one video, numbered by frame."""
    paths = sorted(folder.glob(FRAME_FILES))
    if not paths:
        raise ValueError(f"no {FRAME_FILES} in this folder")
    if len(paths) > MAX_FRAME_FILES:
        raise ValueError(f"over {MAX_FRAME_FILES} files")
    names = [path.name.removesuffix("_keypoints.json").rpartition("_") for path in paths]
    videos = sorted({video for video, _, _ in names})
    if len(videos) > 1:
        raise ValueError(f"files of several videos: {videos[0]!r}, {videos[1]!r}; split them")
    frames = []
    for path, (_, _, number) in zip(paths, names, strict=True):
        if not number.isdecimal() or len(number) > 15:
            raise ValueError(f"{path.name} has no frame number")
        try:
            frames.append((int(number), parse_json(read_bytes(path, MAX_FRAME_BYTES))))
        except (ValueError, UserError) as error:
            raise ValueError(f"{path.name}: {error}") from None
    return _openpose(frames)


def read_kinetics(content: dict) -> Recording:
    """A clip of Kinetics-skeleton (ST-GCN): OpenPose's 18 joints in shares of the image."""
    found, numbers = [], []
    for position, frame in enumerate(_list(content, "data")):
        number = _dict(frame, "a frame").get("frame_index", position)
        numbers.append(_frame_number(number))
        for person, skeleton in enumerate(_list(frame, "skeleton")):
            points = floats(_dict(skeleton, "a skeleton").get("pose"), "pose").ravel()
            scores = floats(skeleton.get("score"), "score").ravel()
            if points.shape != (36,) or scores.shape != (18,):
                raise ValueError(
                    f"frame {number} has {points.size} coordinates and {scores.size} scores, "
                    "expected 36 and 18"
                )
            found.append(_detection(numbers[-1], person, points.reshape(18, 2), scores))
    return _image_recording(found, numbers, GRAPHS["openpose18"])


def read_annotations(content: dict | list) -> Recording:
    """AlphaPose's results, COCO's results, or COCO's annotations with images and categories.

    Persons are matched over time by their track (`idx`, `track_id`), or else by their order in each
    frame. The first 17 of Halpe's 26 or 136 keypoints and of COCO-WholeBody's 133 are read.
    """
    entries = content if isinstance(content, list) else _list(content, "annotations")
    labels = isinstance(content, dict)  # in annotations the third value is a flag: 0 = not labelled
    numbers = _image_numbers(content) if labels else {}
    order: dict[str, int] = {}
    found, in_frame = [], {}
    if entries and not any(isinstance(entry, dict) and "keypoints" in entry for entry in entries):
        raise ValueError("no annotation has keypoints: these are boxes or outlines")
    for entry in entries:
        image = _dict(entry, "an annotation").get("image_id")
        frame = numbers.get(image) if isinstance(image, str | int) else None
        frame = _numbered(image, order) if frame is None else frame
        points = floats(entry.get("keypoints") or [], "keypoints")
        if points.size % 3:
            raise ValueError(f"{points.size} values in keypoints, expected x, y, score of each")
        points = points.reshape(-1, 3)
        scores = (points[:, 2] > 0).astype(np.float32) if labels else points[:, 2]
        if not (scores > 0).any():  # a box without keypoints
            continue
        track = next((str(entry[key]) for key in _TRACKS if key in entry), None)
        if track is None:
            track = in_frame[frame] = in_frame.get(frame, -1) + 1
        found.append(_detection(frame, track, points[:, :2], scores))
    names = _category_names(content) if labels else ()
    return _image_recording(found, numbers.values(), None, names)


def read_nw_ucla(content: dict) -> Recording:
    """One clip of Northwestern-UCLA: `skeletons` of [T, 20, 3], metres."""
    joints = floats(content["skeletons"], "skeletons")
    if joints.ndim != 3 or joints.shape[1:] != (UCLA20.num_joints, 3):
        raise ValueError(f"skeletons of shape {joints.shape}, expected (T, 20, 3)")
    return Recording(joints[:, None], layout=UCLA20, unit="m", up="y", fps=30.0)


def _openpose(frames: list[tuple[int, object]]) -> Recording:
    found = []
    for number, frame in frames:
        for person, body in enumerate(_list(_dict(frame, f"frame {number}"), "people")):
            found += _openpose_body(number, person, _dict(body, "a person"))
    recording_layout = None
    if found:
        count = len(found[0].joints)
        if count not in _OPENPOSE:
            raise ValueError(f"{count} keypoints a person; 25 (BODY_25) and 18 (COCO) are read")
        recording_layout = GRAPHS[_OPENPOSE[count]]
    return _image_recording(found, [number for number, _ in frames], recording_layout)


def _openpose_body(number: int, person: int, body: dict) -> Iterator[Detection]:
    """The person's 2D keypoints, or else the 3D ones, or nothing."""
    if not any(key in body for key, _ in _POSES):
        there = few(repr(str(key)[:30]) for key in body) or "nothing"
        raise ValueError(f"frame {number}: a person without pose_keypoints_2d; it has {there}")
    for key, width in _POSES:
        points = floats(body.get(key) or [], key)
        if points.size % width:
            raise ValueError(
                f"frame {number}: {points.size} values in {key}, expected {width} each"
            )
        if points.size:
            points = points.reshape(-1, width)
            ids = body.get("person_id")
            known = isinstance(ids, list) and len(ids) == 1 and type(ids[0]) is int and ids[0] >= 0
            track = f"id {ids[0]}" if known else person
            yield _detection(number, track, points[:, :-1], points[:, -1])
            return


def _detection(frame: int, track, points: np.ndarray, scores: np.ndarray) -> Detection:
    """A Detection, with NaN for joints of confidence 0."""
    return Detection(frame, track, np.where((scores > 0)[:, None], points, np.nan), scores)


def _image_recording(found, frames, layout: Graph | None, names: tuple[str, ...] = ()) -> Recording:
    joints, confidence, tracks = assemble(found, frames)
    count = joints.shape[2]
    if layout is None and len(names) != count:
        if count not in _COCO_FIRST:
            raise ValueError(f"{count} keypoints a person; of these formats, 17 (COCO) are read")
        layout, joints, confidence = GRAPHS["coco17"], joints[:, :, :17], confidence[:, :, :17]
        names = ()
    planar = joints.shape[3] == 2
    recording = Recording(
        joints,
        confidence,
        layout=layout,
        names=names,
        unit=guess_unit(joints) if planar else None,
        up="-y" if planar else None,
        tracks=tracks,
    )
    known = layout_of(names) if names else None
    return in_order_of(recording, known) if known else recording


def _image_numbers(content: dict) -> dict[object, int]:
    """Frame numbers by image id: `frame_id`, or the number in the file's name, or the id."""
    found = {}
    for image in content.get("images") or []:
        identity = _dict(image, "an image").get("id")
        digits = _NUMBER.findall(str(image.get("file_name", "")))
        number = image.get("frame_id", digits[-1] if digits else identity)
        if isinstance(identity, str | int):
            if identity in found:
                raise ValueError(f"two images have the id {str(identity)[:50]!r}")
            found[identity] = _frame_number(number)
    return found


def _category_names(content: dict) -> tuple[str, ...]:
    categories = content.get("categories")
    first = categories[0] if isinstance(categories, list) and categories else {}
    names = first.get("keypoints") if isinstance(first, dict) else None
    return tuple(str(name)[:50] for name in names) if isinstance(names, list) else ()


def _numbered(image: object, order: dict[str, int]) -> int:
    """The last number in an image's name or id; without one, by order of appearance."""
    digits = _NUMBER.findall(Path(str(image)).stem[:200])
    return _frame_number(digits[-1]) if digits else order.setdefault(str(image), len(order))


def _frame_number(number: object) -> int:
    if isinstance(number, str) and number.isdecimal() and len(number) <= 15:
        number = int(number)
    if type(number) is not int or abs(number) >= 10**15:
        raise ValueError(f"{str(number)[:50]!r} is not a frame number")
    return number


def _list(content: object, key: str) -> list:
    found = content.get(key) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise ValueError(f"{key} is not a list")
    return found


def _dict(value: object, what: str) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value
