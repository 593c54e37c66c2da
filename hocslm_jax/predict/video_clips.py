"""Videos for prediction: makes clips from their skeletons, and optionally saves these.

In: the options of `predict` and a path. Out: a clip float32 [T, M, V, 3]. Skeleton files are read
as usual.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.channels import coordinates_of
from hocslm_jax.data.prepare.filmed import recording_of
from hocslm_jax.data.prepare.readers.arrays import write_npz
from hocslm_jax.data.prepare.readers.clips import Reading, clip_of
from hocslm_jax.errors import UserError
from hocslm_jax.files.videos import is_video
from hocslm_jax.pose.estimators import Pose, estimate, open_pose
from hocslm_jax.predict.clip_files import check_clip, read_joints
from hocslm_jax.predict.predictor import Predictor

Read = Callable[[Path], np.ndarray]


def open_videos(args: argparse.Namespace, files: Sequence[Path]) -> Pose | None:
    """Opens the pose estimator if there are videos among the files, before any slow work.

    Raises:
      UserError: a package or a model is missing, or options do not fit the files.
    """
    videos = [path for path in files if is_video(path) and path.is_file()]
    if args.save_skeleton:
        if not videos:
            raise UserError("--save-skeleton is for videos, but no file is a video")
        if len(videos) > 1 and args.save_skeleton.suffix:
            raise UserError(
                f"--save-skeleton {args.save_skeleton} is one file, but there are {len(videos)} "
                "videos: name a folder"
            )
        stems = [path.stem for path in videos]
        if twice := next((path for path in videos if stems.count(path.stem) > 1), None):
            raise UserError(f"{twice} and another video have one name: save them separately")
        if len(videos) == 1 and args.save_skeleton.suffix not in ("", ".npz"):
            raise UserError(f"--save-skeleton {args.save_skeleton}: the name must end in .npz")
    if not videos:
        return None
    return open_pose(args.pose_model, args.pose, args.persons, args.mirrored)


def reader(
    predictor: Predictor, reading: Reading, pose: Pose | None = None, save: Path | None = None
) -> Read:
    """A function that reads a clip from a file; it raises ValueError with the reason.

    Args:
      reading: how skeleton files are read, and the channels of the clips.
      pose: the pose estimator for videos.
      save: where to save the skeleton of a video, in metres.
    """
    graph, compat = predictor.graph, predictor.compat

    def read(path: Path) -> np.ndarray:
        if pose is None or not is_video(path):
            return read_joints(path, graph, compat, reading)
        if not path.is_file():
            raise ValueError("no such file")
        poses = estimate(path, pose)
        if save:
            target = save if save.suffix else save / f"{path.stem}.npz"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_npz(target, recording_of(poses))
        recording = recording_of(poses, coordinates_of(reading.channels))
        return check_clip(clip_of(recording, graph, reading), graph, compat, reading)

    return read
