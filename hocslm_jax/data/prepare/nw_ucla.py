"""Northwestern-UCLA Multiview Action 3D: one JSON file per clip, as distributed with CTR-GCN.

In: the folder or archive of 1,484 files `aAA_sSS_eEE_vVV.json` (action, subject, episode, view),
each with `file_name`, `label` (1-10) and `skeletons` (T x 20 x 3 metres). Out: Clips, labels 0-9,
sorted by id. An invalid file is reported as (name, reason) and skipped.
"""

import functools
import importlib.resources
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.archive import Limits, read_members
from hocslm_jax.files.text import parse_json

CLASSES = (
    "pick up with one hand",
    "pick up with two hands",
    "drop trash",
    "walk around",
    "sit down",
    "stand up",
    "donning",
    "doffing",
    "throw",
    "carry",
)
ACTIONS = (1, 2, 3, 4, 5, 6, 8, 9, 11, 12)  # actions 7 and 10 do not exist; position = label
NUM_CLIPS = 1484
# In the distributed files, view 3 of these actions has the joints of view 2, number by number. So
# 95 of the 464 test clips of the protocol xview have the joints of training clips.
COPIED_ACTIONS = ("a02", "a03")
NUM_JOINTS = 20
# The whole set has 38 MB, its largest file 0.13 MB.
LIMITS = Limits(members=100_000, member_bytes=4 << 20, total_bytes=128 << 20)

_NAME = re.compile(r"a(\d\d)_s(\d\d)_e(\d\d)_v0([123])")


def read_clips(source: str | Path, on_bad: Callable[[str, str], None]) -> Iterator[Clip]:
    """Yields the valid clips of `source` sorted by id; calls `on_bad(name, reason)` for the others.

    Sorting makes the rows the same for a folder, a zip and a tar; it keeps the whole set, 14 MB, in
    memory.

    Raises:
      UserError: an unreadable or unsafe source.
    """
    clips = {}
    for name, data in read_members(source, (".json",), LIMITS):
        try:
            clip = parse_clip(PurePosixPath(name).stem, data)
            if clip.id in clips:
                raise ValueError("a second file of this name")
            clips[clip.id] = clip
        except ValueError as error:
            on_bad(name, str(error))
    yield from (clips[key] for key in sorted(clips))


def copied(clip_id: str) -> bool:
    """Whether a clip of view 3 has the joints of the clip of view 2 with the same name."""
    return clip_id.startswith(COPIED_ACTIONS) and clip_id.endswith("_v03")


def parse_clip(name: str, data: bytes) -> Clip:
    """One file's bytes as a Clip with joints [T, 1, 20, 3].

    Args:
      name: the file's name without folder and suffix; it carries action, subject, episode and view.

    Raises:
      ValueError: with the reason, if name, label or skeleton is invalid.
    """
    match = _NAME.fullmatch(name)
    action, subject, episode, view = map(int, match.groups()) if match else (0, 0, 0, 0)
    if action not in ACTIONS:
        raise ValueError("not named aAA_sSS_eEE_vVV with a known action and view")
    content = _parse_json(data)
    if content.get("file_name", name) != name:
        raise ValueError(f"file_name is {content['file_name']!r}")
    label = ACTIONS.index(action)
    if content.get("label") != label + 1:
        raise ValueError(f"label is {content.get('label')!r}, but action {action} is {label + 1}")
    joints = _read_joints(content)
    return Clip(name, joints, label, subject=subject, camera=view, replication=episode)


def parse_joints(data: bytes) -> np.ndarray:
    """Only the skeleton in one file's bytes, ignoring its label: float32 [T, 1, 20, 3].

    Raises:
      ValueError: with the reason, if it holds no skeleton.
    """
    return _read_joints(_parse_json(data))


@functools.cache
def ctrgcn_order() -> tuple[str, ...]:
    """Ids of the 464 test clips (view 3) in the order in which CTR-GCN's feeder lists them.

    Its score files, and those of the projects built on it, number the clips by that order.
    """
    file = importlib.resources.files("hocslm_jax.data.prepare") / "nw_ucla_test.txt"
    return tuple(file.read_text(encoding="utf-8").split())


def label_of(name: str) -> int | None:
    """The label in a file's name without folder and suffix; None if it has another form."""
    match = _NAME.fullmatch(name)
    action = int(match[1]) if match else 0
    return ACTIONS.index(action) if action in ACTIONS else None


def _parse_json(data: bytes) -> dict:
    if not data.strip():
        raise ValueError("empty file")
    try:
        content = parse_json(data)
    except ValueError as error:
        raise ValueError(f"damaged JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError("damaged JSON (not an object)")
    return content


def _read_joints(content: dict) -> np.ndarray:
    """The `skeletons` entry as float32 [T, 1, 20, 3]."""
    skeletons = content.get("skeletons")
    if not isinstance(skeletons, list) or not skeletons:
        raise ValueError("no frames")
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            joints = np.asarray(skeletons, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("frames of unequal shape, or coordinates that are not numbers") from None
    if joints.ndim != 3 or joints.shape[1:] != (NUM_JOINTS, 3):
        raise ValueError(f"shape {joints.shape}, expected (T, {NUM_JOINTS}, 3)")
    if not np.isfinite(joints).all():
        raise ValueError("coordinates that are not finite")
    return joints[:, None]
