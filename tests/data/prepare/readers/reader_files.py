"""Bodies, and files of them, for the tests of readers."""

import json
from pathlib import Path

import numpy as np

RNG = np.random.default_rng(0)
BODY = RNG.uniform(-1, 1, (6, 1, 25, 3)).astype(np.float32)  # [T, M, V, 3], metres
PIXELS = np.float32(RNG.uniform(50, 400, (6, 2, 17, 2)).round(2))  # [T, M, V, 2]


def save(folder: Path, name: str, content) -> Path:
    """Writes bytes, text, or a value as JSON; returns the path."""
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
    return path


def with_scores(points, score=0.9):
    """Points [V, 2] as the flat list x, y, score, …"""
    return np.column_stack([points, np.full(len(points), score)]).round(3).ravel().tolist()


def openpose(points):
    """One frame as OpenPose writes it, of people's keypoints [V, 2]."""
    people = [
        {"person_id": [-1], "pose_keypoints_2d": with_scores(body), "face_keypoints_2d": []}
        for body in points
    ]
    return {"version": 1.3, "people": people}


BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 1 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT LeftUpLeg
  {
    OFFSET 0.5 0 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT LeftLeg
    {
      OFFSET 0 -0.5 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 0 -0.5 0
      }
    }
  }
}
MOTION
Frames: 3
Frame Time: 0.04
0 0 0  0 0 0  0 0 0  0 0 0
1 2 3  0 0 0  0 0 0  0 0 0
0 0 0  90 0 0  0 90 0  0 0 0
"""
