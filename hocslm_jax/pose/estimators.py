"""The table of pose estimators, and the one function that makes skeletons of a video.

In: a video file. Out: `Poses`, in metres before the camera. Another estimator (RTMPose through
rtmlib, MediaPipe Tasks) is a function of one picture (`own_function`), or one like
`blazepose.open_follow`, from pictures to the bodies in each, with a line in `ESTIMATORS`.
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

LONGEST = 1280  # pixels of a frame's longer side; larger frames only take time
USUAL_FPS = 30  # of the sensors that models were trained on; of faster videos frames are left out
SHORTEST = 0.2  # of the frames with the first person; who is seen in fewer is no second person


Follow = Callable[[Iterable[Image.Image], int], Iterator[list[Body]]]


class Estimator(NamedTuple):
    """How skeletons are made of pictures.

    Attributes:
      open: the folder of its models -> a function (pictures, most persons) -> the bodies in each
        picture. Raises UserError where a package or a model is not there.
      layout: whose joints these are, a name of `layout_tables`.
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

# Options of commands that take videos, as of argparse.
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
        help="for videos: look for so many persons (default: %(default)s)",
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
        without the person, and everywhere if the estimator knows no depth.
      pixels: float32 [T, M, V, 2], the same in the image; NaN if the estimator knows only metres.
      confidence: float32 [T, M, V], that a joint is seen, 0 to 1; NaN in frames without the person.
      layout: whose joints these are.
      fps: frames a second, of which T are.
    """

    joints: np.ndarray
    pixels: np.ndarray
    confidence: np.ndarray
    layout: str
    fps: float


class Pose(NamedTuple):
    """An estimator with its models, and what to look for.

    Attributes:
      follow: see `Estimator`.
      layout: whose joints it gives.
      persons: at most so many.
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
      folder: of its models.
      name: of `ESTIMATORS`, or a function, `package.module:function` (see `own_function`).
      persons, mirrored: as of `Pose`.

    Raises:
      UserError: no such estimator, or a package or a model is not there.
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
      ValueError: with the reason: a damaged video, or nobody in it.
      UserError: PyAV is not there.
    """
    found, fps = bodies(video, pose)
    return Poses(*assemble([*found]), pose.layout, fps)


def bodies(video: Path, pose: Pose) -> tuple[Iterator[list[Body]], float]:
    """(The bodies in each frame, one frame at a time; frames a second). Errors as of `estimate`."""
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

    Somebody who is seen in less than a fifth of the frames of the longest is left out.

    Raises:
      ValueError: nobody is in them.
    """
    counts = collections.Counter(body.track for frame in frames for body in frame)
    if not counts:
        raise ValueError("nobody was found in it")
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
