"""Pictures of skeleton clips, of predictions for them, and of a model's learnt topologies.

In: joints float32 [T, M, V, 3] in metres (x right, y up, z away from the camera) and a `Graph`;
for a prediction, class probabilities. Out: a PNG filmstrip, a GIF animation or a heat map.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hocslm_jax.draw import primitives as draw
from hocslm_jax.draw.fonts import drawable, families
from hocslm_jax.draw.primitives import FAINT, FRAME, INK, SIDES, side_of
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph

KINDS = (".png", ".gif")
MAX_STRIP = 9  # inches of all poses: two people need wider poses, so fewer fit
MAX_GIF_FRAMES = 60
FPS = 30  # of both Kinects


def check_picture(path: Path) -> None:
    """Raises UserError unless the suffix is .png or .gif."""
    if path.suffix.lower() not in KINDS:
        raise UserError(f"{path}: the picture of a clip is a .png or .gif: use that suffix")


def render_clip(
    joints: np.ndarray,
    graph: Graph,
    path: str | Path,
    *,
    title: str = "",
    probabilities: Mapping[str, float] | None = None,
    true_class: str | None = None,
    poses: int = 6,
) -> None:
    """Draws a clip as a filmstrip (`.png`) or an animation (`.gif`), seen from the camera.

    Args:
        joints: float32 [T, M, V, 3], metres. A person who is all zero in a frame is not drawn.
        graph: the skeleton. Joints named left or right give its limbs their colour.
        path: where to write; the suffix chooses the kind. Its folder is made.
        title: a line above the picture; by default the most probable class.
        probabilities: class name to probability; the five largest become bars at the right.
        true_class: its bar is marked as correct; a wrong prediction is marked as wrong.
        poses: how many frames a filmstrip shows at most, evenly spaced.

    Raises:
        UserError: another suffix, joints that do not fit the graph, or an empty clip.
    """
    path, joints = Path(path), np.asarray(joints, np.float32)
    check_picture(path)
    joints = draw.trim(joints, graph, str(path))
    if probabilities and not title:
        best = max(probabilities, key=probabilities.__getitem__)
        title = f"predicted {best} ({100 * probabilities[best]:.1f} %)"
        title += f", true class {true_class}" if true_class else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    strip = path.suffix.lower() == ".png"
    step = 1 if strip else -(-len(joints) // MAX_GIF_FRAMES)
    sizes = (2.7, 1.15, 2.2) if strip else (3.2, 2.6, 4.6)
    view = draw.view_of(joints[::step], *sizes)
    poses = min(poses, len(joints), max(3, int(MAX_STRIP / view.width))) if strip else 1
    beside = 0.0 if not probabilities else 3.45 if strip else 3.4  # inches
    height = view.height + 1.1 if strip else max(view.height, 2.6) + 0.95
    figure = draw.new_figure(poses * view.width + 0.4 + beside, height, title)
    if probabilities:
        left, top = (0.5, 0.55 + view.height) if strip else (0.45, height - 0.55)
        draw.draw_bars(figure, poses * view.width + left, top, probabilities, true_class or "")
    if strip:
        draw.draw_strip(figure, joints, graph, view, 0.2, 0.55, poses)
        figure.savefig(path, dpi=110)
    else:
        images = [_frame(figure, pose, graph, view) for pose in joints[::step]]
        draw.write_gif(images, path, pause=round(1000 * step / FPS))


def _frame(figure: Figure, pose: np.ndarray, graph: Graph, view: draw.View) -> np.ndarray:
    """The figure with this pose in it, as RGB [H, W, 3]."""
    axes = view.on(figure, 0.2, 0.4)
    draw.draw_people(axes, pose, graph, draw.centre_of(pose))
    figure.canvas.draw()
    axes.remove()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def render_topology(matrix: np.ndarray, graph: Graph, path: str | Path, title: str = "") -> None:
    """Draws a topology [V, V] as a heat map with joint names: rows receive, columns send.

    Signed values get a diverging scale centred on zero, others a scale from zero.

    Raises:
        UserError: the matrix does not fit the graph or has values that are not finite.
    """
    matrix, count = np.asarray(matrix, np.float32), graph.num_joints
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
    for label, joint in zip(
        [*axes.get_xticklabels(), *axes.get_yticklabels()], graph.joints * 2, strict=True
    ):
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
