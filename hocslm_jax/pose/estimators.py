"""The table of pose estimators, and the function that extracts skeletons from a video.

In: a video file. Out: `Poses`, in metres, in the camera's coordinates. Another estimator (RTMPose
through rtmlib, MediaPipe Tasks) is a function of one picture (see `own_function`), or one like
`blazepose.open_follow`, from pictures to the bodies in each, with an entry in `ESTIMATORS`.
"""

import collections
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hocslm_jax.errors import UserError
from hocslm_jax.files.videos import MIN_SHARE, measure_video, pictures
from hocslm_jax.graph import GRAPHS
from hocslm_jax.pose import blazepose
from hocslm_jax.pose.blazepose import Body
from hocslm_jax.pose.own_function import follow, load_function

LONGEST = 1280  # pixels of a frame's longer side; larger frames take longer for no gain
USUAL_FPS = 30  # of the sensors that models were trained on; faster videos are subsampled
SHORTEST = 0.2  # least frames of another person, as a share of the longest-seen person's


Follow = Callable[[Iterable[Image.Image], int], Iterator[list[Body]]]


class Estimator(NamedTuple):
    """A pose estimator.

    Attributes:
      open: the folder of its models -> a function (pictures, max. persons) -> the bodies in each
        picture. Raises UserError if a package or a model is missing.
      layout: layout of its joints, a name of `layout_tables`.
    """

    open: Callable[[Path], Follow]
    layout: str


def _blazepose(kind: str) -> Estimator:
    return Estimator(functools.partial(blazepose.open_follow, kind=kind), "blazepose33")


ESTIMATORS = {
    "blazepose": _blazepose("full"),
    "blazepose-lite": _blazepose("lite"),
    "blazepose-heavy": _blazepose("heavy"),
}
MODELS = Path("package")  # the folder that an npm package unpacks to

# Options of commands that read videos, with argparse's arguments.
OPTIONS = {
    "--pose-model": dict(
        type=Path,
        default=MODELS,
        metavar="DIR",
        help="for videos: the unpacked npm package @mediapipe/pose (default: %(default)s)",
    ),
    "--pose": dict(
        default="blazepose",
        metavar="NAME",
        help=f"for videos: the estimator, one of {', '.join(ESTIMATORS)} (default: %(default)s), "
        "or your own function, package.module:function (docs/video.md)",
    ),
    "--persons": dict(
        type=int,
        choices=(1, 2),
        default=1,
        help="for videos: most persons to track (default: %(default)s)",
    ),
    "--mirrored": dict(
        action="store_true",
        help="for videos: they are mirror images, as NTU's are and many selfies",
    ),
}


class Poses(NamedTuple):
    """The skeletons in a video.

    Attributes:
      joints: float32 [T, M, V, 3], metres from the camera: x right, y down, z away; NaN in frames
        without the person, and everywhere if the estimator gives no depth.
      pixels: float32 [T, M, V, 2], the same in the image; NaN if the estimator gives only metres.
      confidence: float32 [T, M, V], 0 to 1, that a joint is visible; NaN in frames without the
        person.
      layout: layout of the joints.
      fps: frames per second.
    """

    joints: np.ndarray
    pixels: np.ndarray
    confidence: np.ndarray
    layout: str
    fps: float


class Pose(NamedTuple):
    """An opened estimator and its options.

    Attributes:
      follow: see `Estimator`.
      layout: layout of its joints.
      persons: most persons to track.
      mirrored: whether videos are mirror images, as NTU's are and those of many selfie cameras.
    """

    follow: Follow
    layout: str
    persons: int = 1
    mirrored: bool = False


def open_pose(
    folder: Path = MODELS, name: str = "blazepose", persons: int = 1, mirrored: bool = False
) -> Pose:
    """An estimator, ready for any number of videos.

    Args:
      folder: folder of its models.
      name: one of `ESTIMATORS`, or a function, `package.module:function` (see `own_function`).
      persons, mirrored: as in `Pose`.

    Raises:
      UserError: no such estimator, or a package or a model is missing.
    """
    if ":" in name:
        function, layout = load_function(name)
        return Pose(
            functools.partial(follow, function, GRAPHS[layout].num_joints),
            layout,
            persons,
            mirrored,
        )
    if name not in ESTIMATORS:
        raise UserError(
            f"--pose {name}: not one of {', '.join(ESTIMATORS)}, nor a function, "
            "package.module:function"
        )
    kind = ESTIMATORS[name]
    return Pose(kind.open(Path(folder)), kind.layout, persons, mirrored)


def estimate(video: Path, pose: Pose) -> Poses:
    """The skeletons in a video.

    Raises:
      ValueError: with the reason: a damaged video, or no person in it.
      UserError: PyAV is not installed.
    """
    found, fps = bodies(video, pose)
    return Poses(*assemble([*found]), pose.layout, fps)


def bodies(video: Path, pose: Pose) -> tuple[Iterator[list[Body]], float]:
    """(Bodies in each frame, one frame at a time; frames per second). Errors as in `estimate`."""
    total, rate = measure_video(video)
    every = max(1, round(rate / USUAL_FPS))
    images = pictures(video, LONGEST, every, pose.mirrored)
    return pose.follow(whole(images, math.ceil(total / every)), pose.persons), rate / every


def whole(images: Iterable, expected: int) -> Iterator:
    """The pictures; raises ValueError at their end if they are far fewer than expected."""
    count = 0
    for image in images:
        count += 1
        yield image
    if count < MIN_SHARE * expected:
        raise ValueError(f"cut off: {count} of {expected} frames could be decoded")


def assemble(frames: Sequence[Sequence[Body]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(joints [T, M, V, 3], pixels [T, M, V, 2], confidence [T, M, V]) of the bodies in each frame.

    NaN in frames without the person.

    People seen in less than a fifth of the frames of the longest-seen person are left out.

    Raises:
      ValueError: no frame has a body.
    """
    counts = collections.Counter(body.track for frame in frames for body in frame)
    if not counts:
        raise ValueError("no person was found in it")
    kept = sorted(t for t, n in counts.items() if n >= SHORTEST * max(counts.values()))
    somebody = next(frame[0] for frame in frames if frame)
    shape = (len(frames), len(kept), len(somebody.joints))
    joints = np.full((*shape, 3), np.nan, np.float32)
    pixels = np.full((*shape, 2), np.nan, np.float32)
    confidence = np.full(shape, np.nan, np.float32)
    for t, frame in enumerate(frames):
        for body in frame:
            if body.track in kept:
                m = kept.index(body.track)
                joints[t, m], pixels[t, m] = body.joints, body.pixels
                confidence[t, m] = body.confidence
    return joints, pixels, confidence
