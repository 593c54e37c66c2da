"""Small valid files of every format of `data.prepare.readers`, for `benchmarks.fuzz`.

In: nothing. Out: contents by suffix.
"""

import io
import json

import numpy as np
import scipy.io

BVH = b"""HIERARCHY
ROOT Hips
{
OFFSET 0 1 0
CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
JOINT Spine
{
OFFSET 0 0.5 0
CHANNELS 3 Zrotation Xrotation Yrotation
End Site
{
OFFSET 0 0.1 0
}
}
}
MOTION
Frames: 2
Frame Time: 0.04
0 0 0 0 0 0 10 0 0
1 2 3 90 0 0 0 90 0
"""
CSV = b"frame,person,hand_x,hand_y,hand_c\n1,a,2,3,0.5\n2,b,4,5,0.5\n"


def seeds() -> dict[str, tuple[bytes, ...]]:
    """Files by suffix."""
    points = np.linspace(0.1, 0.9, 17 * 3).round(3).tolist()
    landmark = {"x": 0.1, "y": 0.2, "z": 0.3, "visibility": 0.9}
    entry = {"image_id": "0.jpg", "category_id": 1, "keypoints": points, "score": 1, "idx": 1}
    image = {"id": 1, "file_name": "000001.png"}
    pose = {"pose": [0.5] * 36, "score": [1] * 18}
    values = (
        {"version": 1.3, "people": [{"pose_keypoints_2d": [1.5] * 54}]},  # OpenPose
        {"data": [{"frame_index": 1, "skeleton": [pose]}]},  # Kinetics-skeleton
        [{"pose_world_landmarks": [landmark] * 33}, {"pose_landmarks": None}],  # MediaPipe
        [entry],  # AlphaPose
        {"images": [image], "annotations": [entry | {"image_id": 1}]},  # COCO
        {"skeletons": np.ones((2, 20, 3)).tolist()},  # NW-UCLA
    )
    return {
        ".json": tuple(json.dumps(value).encode() for value in values),
        ".bvh": (BVH,),
        ".csv": (CSV,),
        ".mat": (_mat(False), _mat(True)),
        ".npy": (_npy(),),
        ".npz": (_npz(),),
    }


def _mat(packed: bool) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"d_skel": np.ones((20, 3, 4)), "a": "b"}, do_compression=packed)
    return file.getvalue()


def _npy() -> bytes:
    file = io.BytesIO()
    np.save(file, np.ones((30, 2, 25, 3), np.float32))
    return file.getvalue()


def _npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, keypoint=np.ones((30, 2, 17, 2)), keypoint_score=np.ones((30, 2, 17)), fps=30)
    return file.getvalue()
