"""Error of the skeleton estimated from a video, relative to that of a depth sensor.

    python -m benchmarks.pose_error --video CLIP.avi --skeleton CLIP.skeleton --pose-model DIR

In: a video of NTU RGB+D and its Kinect skeleton, frame by frame. In each frame, the estimated
skeleton is aligned with the measured one by the best similarity transform, so that only the error
of the pose remains. Out: the mean distance of each joint in centimetres.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.record import measured_here, one_line_errors, table, write_result
from hocslm_jax.data.layouts import convert_layout
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, NTU25, Graph
from hocslm_jax.pose.estimators import ESTIMATORS, estimate, open_pose
from hocslm_jax.predict.clip_files import load_clip


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`source` [V, 3], rotated, scaled and translated as close to `target` [V, 3] as possible.

    Umeyama 1991, equations 40 to 42; without reflection.
    """
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    a, b = source - middle, target - goal
    u, spread, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = (spread * signs).sum() / (a**2).sum()
    return scale * a @ (u * signs @ vt).T + goal


def errors(found: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Distances [T, V] after alignment, centimetres, of joints [T, V, 3] in metres; NaN stays."""
    rows = []
    for one, other in zip(found, measured, strict=True):
        whole = not np.isnan(one).any()
        near = similarity(one, other) if whole else one
        rows.append(100 * np.linalg.norm(near - other, axis=1))
    return np.array(rows)


def measure(video: Path, measured: np.ndarray, folder: Path, name: str, mirrored: bool) -> dict:
    """The errors of one estimator, and its time per frame."""
    start = time.perf_counter()
    poses = estimate(video, open_pose(folder, name, mirrored=mirrored))
    seconds = time.perf_counter() - start
    if len(poses.joints) != len(measured):
        raise UserError(
            f"{video} gives {len(poses.joints)} frames, the skeleton has {len(measured)}"
        )
    found = in_ntu(poses.joints, GRAPHS[poses.layout])
    off = errors(found[:, 0], measured[:, 0])
    seen = ~np.isnan(off).any(axis=1)
    means = off[seen].mean(axis=0)
    return {
        "frames": len(off),
        "found": int(seen.sum()),
        "mean_cm": float(means.mean()),
        "joints_cm": dict(zip(NTU25.joints, map(float, means), strict=True)),
        "ms_a_frame": 1000 * seconds / len(off),
    }


def in_ntu(joints: np.ndarray, layout: Graph) -> np.ndarray:
    """Joints [T, M, V, 3] mapped to those of NTU [T, M, 25, 3]."""
    return convert_layout(joints, layout, NTU25)[0]


def make_table(result: dict) -> str:
    """Table with joints as rows and estimators as columns."""
    found = result["estimators"]
    lines = [
        [joint, *(f"{row['joints_cm'][joint]:.1f}" for row in found.values())]
        for joint in NTU25.joints
    ]
    lines.append(["**mean**", *(f"**{row['mean_cm']:.1f}**" for row in found.values())])
    lines.append(
        ["frames with the person", *(f"{r['found']} / {r['frames']}" for r in found.values())]
    )
    lines.append(["ms a frame", *(f"{row['ms_a_frame']:.0f}" for row in found.values())])
    machine = result["machine"]
    return (
        table(["cm", *(f"`{name}`" for name in found)], lines)
        + f"\n\n{machine['cpu']}, {machine['cpu_cores']} cores. `{result['command']}`"
    )


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pose_error")
    add = parser.add_argument
    add("--video", type=Path, required=True)
    add("--skeleton", type=Path, required=True)
    add("--pose-model", type=Path, required=True)
    add("--estimators", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    add("--as-it-is", action="store_true", help="the video is not a mirror image, unlike NTU's")
    add("--json", type=Path)
    args = parser.parse_args(argv)
    measured = load_clip(args.skeleton)
    found = {}
    for name in args.estimators:
        found[name] = measure(args.video, measured, args.pose_model, name, not args.as_it_is)
        print(f"{name}: {found[name]['mean_cm']:.1f} cm, {found[name]['ms_a_frame']:.0f} ms")
    machine = measured_here("pose_error", "ai-edge-litert", "av", arguments=argv)
    write_result(args.json, {"benchmark": "pose_error", "estimators": found, **machine})


if __name__ == "__main__":
    sys.exit(main())
