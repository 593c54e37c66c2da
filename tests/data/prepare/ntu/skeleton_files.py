"""Skeleton files for the tests: the real sample, and small ones written to order."""

import functools
import tarfile
from pathlib import PurePosixPath

import numpy as np


@functools.cache
def sample(shared) -> dict[str, bytes]:
    """{id: bytes} of every file of the sample."""
    with tarfile.open(shared / "data/ntu_sample/skeletons.tar.xz") as archive:
        return {
            PurePosixPath(info.name).stem: archive.extractfile(info).read()
            for info in archive
            if info.name.endswith(".skeleton")
        }


def body(seed=0, frames=20, at=(0.1, 0.2, 3.0)) -> np.ndarray:
    """float32 [frames, 25, 3]: a body that is taller than wide, moving a little."""
    rng = np.random.default_rng(seed)
    pose = rng.uniform(-1, 1, (25, 3)) * (0.2, 1, 0.2) + at
    joints = pose + rng.normal(0, 0.02, (frames, 25, 3))
    return joints.astype(np.float32)


def write(frames, newline="\n") -> bytes:
    """A file from [{body id: joints [25, 3]} for each frame]."""
    lines = [str(len(frames))]
    for bodies in frames:
        lines.append(str(len(bodies)))
        for key, joints in bodies.items():
            lines += [f"{key} 0 1 1 1 1 0 0.0276 0.0574 2", "25"]
            lines += [f"{x:.9G} {y:.9G} {z:.9G} 1 2 3 4 0 0 NaN 1 2" for x, y, z in joints]
    return (newline.join(lines) + newline).encode()


def solo(seed=0, frames=20) -> bytes:
    """A file with one body."""
    return write([{72057594037931101: pose} for pose in body(seed, frames)])
