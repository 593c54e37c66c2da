"""Pictures of skeleton clips, of predictions for them, and of the topologies a model learnt.

In: joints float32 [T, M, V, 3] in metres (x right, y up, z away from the camera) and a `Graph`;
for a prediction, class probabilities. Out: a PNG filmstrip, a GIF animation or a heat map.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hocslm_jax.draw.fonts import drawable, families
from hocslm_jax.draw.primitives import (
    FAINT,
    FRAME,
    INK,
    SIDES,
    centre_of,
    draw_bars,
    draw_people,
    draw_strip,
    new_figure,
    side_of,
    trim,
    view_of,
    write_gif,
)
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph

MAX_STRIP = 9  # inches of poses: two people need wider poses, so fewer of them
MAX_GIF_FRAMES = 60
FPS = 30  # of both Kinects


def render_clip(
    joints: np.ndarray,
    graph: Graph,
    path: str | Path,
    *,
    title: str = "",
    probabilities: Mapping[str, float] | None = None,
    true_class: str = "",
    poses: int = 6,
) -> None:
    """Draws a clip as a filmstrip (`.png`) or an animation (`.gif`), seen from the camera.

    Args:
        joints: float32 [T, M, V, 3], metres. A person who is all zero in a frame is not drawn.
        graph: the skeleton. Joints named left or right give its limbs their colour.
        path: where to write; the suffix chooses the kind.
        title: a line above the picture.
        probabilities: class name to probability; the five largest become bars at the right.
        true_class: the bar to mark as right; a wrong best class is marked as wrong.
        poses: how many frames a filmstrip shows at most, evenly spaced.

    Raises:
        UserError: another suffix, joints that do not fit the graph, or nobody in the clip.
    """
    path, joints = Path(path), np.asarray(joints, np.float32)
    if path.suffix.lower() not in (".png", ".gif"):
        raise UserError(f"{path}: pictures of clips are .png or .gif; name the file so")
    if joints.ndim != 4 or joints.shape[2:] != (graph.num_joints, 3):
        expected = f"[T, M, {graph.num_joints}, 3]"
        raise UserError(f"{path}: joints are {list(joints.shape)}, {graph.name} needs {expected}")
    joints = trim(joints, str(path))
    draw = _filmstrip if path.suffix.lower() == ".png" else _animation
    draw(joints, graph, path, title, probabilities or {}, true_class, poses)


def render_topology(matrix: np.ndarray, graph: Graph, path: str | Path, title: str = "") -> None:
    """Draws a topology [V, V] as a heat map with joint names: rows receive, columns send.

    Signed values get a diverging scale centred on zero, others a scale from zero.

    Raises:
        UserError: the matrix does not fit the graph or has values that are not finite.
    """
    matrix = np.asarray(matrix, np.float32)
    count = graph.num_joints
    if matrix.shape != (count, count) or not np.isfinite(matrix).all():
        raise UserError(f"{path}: a topology of {graph.name} is a finite {count} x {count} matrix")
    figure = Figure(figsize=(7.0, 7.0), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.2, 0.2, 0.7, 0.7))
    peak = float(np.abs(matrix).max()) or 1.0
    signed = matrix.min() < 0
    colours = {"cmap": "RdBu_r", "vmin": -peak} if signed else {"cmap": "Blues", "vmin": 0}
    image = axes.imshow(matrix, vmax=peak, interpolation="nearest", **colours)
    ticks, joints = np.arange(count), list(map(drawable, graph.joints))
    names = {"fontsize": 8, "parse_math": False, "family": families(joints)}
    axes.set_xticks(ticks, joints, rotation=90, **names)
    axes.set_yticks(ticks, joints, **names)
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        for label, joint in zip(labels, graph.joints, strict=True):
            label.set_color(SIDES[side_of(joint)])
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_color(FRAME)
    axes.set_xlabel("from joint", color=FAINT)
    axes.set_ylabel("to joint", color=FAINT)
    look = {"fontsize": 11, "parse_math": False, "family": families(title)}
    axes.set_title(drawable(title), loc="left", color=INK, **look)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.02, 0, 0.025, 1)))
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    bar.outline.set_visible(False)
    figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.15)


def _filmstrip(joints, graph, path, title, probabilities, true_class, poses) -> None:
    view = view_of(joints, height=2.7, narrowest=1.15, widest=2.2)
    poses = min(poses, len(joints), max(3, int(MAX_STRIP / view.width)))
    strip = view.width * poses
    figure = new_figure(strip + (3.85 if probabilities else 0.4), view.height + 1.1, title)
    draw_strip(figure, joints, graph, view, 0.2, 0.55, poses)
    if probabilities:
        draw_bars(figure, strip + 0.5, 0.55 + view.height, probabilities, true_class)
    figure.savefig(path, dpi=110)


def _animation(joints, graph, path, title, probabilities, true_class, poses) -> None:
    del poses  # all frames are shown, up to a limit
    step = -(-len(joints) // MAX_GIF_FRAMES)
    joints = joints[::step]
    view = view_of(joints, height=3.2, narrowest=2.6, widest=4.6)
    width = view.width + (3.8 if probabilities else 0.4)
    figure = new_figure(width, max(view.height, 2.6) + 0.95, title)
    if probabilities:
        top = figure.get_size_inches()[1] - 0.55
        draw_bars(figure, view.width + 0.45, top, probabilities, true_class)
    images = []
    for pose in joints:
        axes = view.on(figure, 0.2, 0.4)
        draw_people(axes, pose, graph, centre_of(pose))
        figure.canvas.draw()
        images.append(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy())
        axes.remove()
    write_gif(images, path, pause=round(1000 * step / FPS))
