"""Drawing primitives of skeleton pictures: people, the view they are seen in, text, bars, GIFs.

In: poses [M, V, 3] in metres (x right, y up, z away from the camera) and Matplotlib figures, where
positions are inches from the lower left corner. `skeletons` and `descriptions` use these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from hocslm_jax.draw.fonts import drawable, families
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph

INK, FAINT, FRAME = "#22303c", "#7b8894", "#d5dbe1"
SIDES = {"left": "#2a78b8", "right": "#e2703a", "trunk": "#46525e"}  # colour-blind safe
SECOND = {"left": "#8dbbdf", "right": "#f2b596", "trunk": "#a3adb7"}  # the second person, paler
RIGHT_MARK, WRONG_MARK = "#2f8f5b", "#c0392b"
MARGIN = 0.12  # metres around the people
GHOSTS = 3  # earlier frames drawn in pale colours behind each pose of a filmstrip


@dataclass(frozen=True)
class View:
    """A part of the scene in metres, and its size in inches."""

    half: float  # metres from the middle to either side
    bottom: float
    top: float
    width: float
    height: float

    def on(self, figure: Figure, left: float, bottom: float) -> Axes:
        """Axes of this view, without frame, with the lower left corner at (left, bottom)."""
        axes = bare_axes(figure, left, bottom, self.width, self.height)
        axes.set(xlim=(-self.half, self.half), ylim=(self.bottom, self.top))
        return axes


def view_of(joints: np.ndarray, height: float, narrowest: float, widest: float) -> View:
    """The View that contains every frame of joints [T, M, V, 3], within limits in inches."""
    poses = [people(pose) for pose in joints]
    half = max(float(np.ptp(pose[..., 0])) / 2 for pose in poses) + MARGIN
    bottom = min(float(pose[..., 1].min()) for pose in poses) - MARGIN
    top = max(max(float(pose[..., 1].max()) for pose in poses), bottom + 1.0) + MARGIN
    scale = min(height / (top - bottom), widest / (2 * half))  # inches a metre
    width = max(narrowest, scale * 2 * half)
    return View(width / scale / 2, bottom, top, width, scale * (top - bottom))


def trim(joints: np.ndarray, graph: Graph, name: str) -> np.ndarray:
    """The frames of joints [T, M, V, 3] that show somebody.

    Raises:
        UserError: joints of another skeleton, or an empty clip; the message begins with `name`.
    """
    if joints.ndim != 4 or joints.shape[2:] != (graph.num_joints, 3):
        expected = f"[T, M, {graph.num_joints}, 3]"
        raise UserError(f"{name}: joints are {list(joints.shape)}, {graph.name} needs {expected}")
    present = joints.any(axis=(1, 2, 3))
    if not present.any():
        raise UserError(f"{name}: the clip shows nobody")
    return joints[present]


def people(pose: np.ndarray) -> np.ndarray:
    """The people [M, V, 3] who are present in a frame; absent ones are all zero."""
    return pose[pose.any(axis=(1, 2))]


def centre_of(pose: np.ndarray) -> float:
    """The horizontal centre of the people in a frame, which the view follows."""
    across = people(pose)[..., 0]
    return float(across.min() + across.max()) / 2


def side_of(joint: str) -> str:
    return next((side for side in ("left", "right") if side in joint.lower()), "trunk")


def new_figure(width: float, height: float, title: str) -> Figure:
    """A white figure with its title at the top and the key to the colours at the bottom.

    `width` and `height` are inches; a long title makes the figure wider.
    """
    width = max(width, 0.5 + 0.11 * len(drawable(title)))
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    write(figure, title, 0.25, height - 0.28, color=INK, fontsize=13, va="center")
    for left, side in ((0.25, "left"), (0.6, "right")):
        look = {"fontsize": 9, "weight": "bold", "va": "center"}
        write(figure, side, left, 0.14, color=SIDES[side], **look)
    return figure


def bare_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes without frame or ticks, of this size in inches."""
    across, up = figure.get_size_inches()
    axes = figure.add_axes((left / across, bottom / up, width / across, height / up))
    axes.set_axis_off()
    return axes


def write(on: Figure | Axes, text: str, x: float, y: float, **look) -> None:
    """Writes text in fonts that have its letters; positions are inches (figure) or data (axes)."""
    across, up = on.get_size_inches() if isinstance(on, Figure) else (1, 1)
    look |= {"family": families(text), "parse_math": False}
    on.text(x / across, y / up, drawable(text), **look)


def draw_people(
    axes: Axes, pose: np.ndarray, graph: Graph, centre: float, fade: float = 1.0
) -> None:
    """Draws everyone in a frame [M, V, 3], the farthest first; fade < 1 pales towards white."""
    for person in sorted(range(len(pose)), key=lambda person: -pose[person, :, 2].mean()):
        joints = pose[person]  # [V, 3]
        if not joints.any():
            continue
        palette = SECOND if person else SIDES
        shades = {side: 1 - fade * (1 - np.array(to_rgb(palette[side]))) for side in palette}
        colours = [shades[side_of(name)] for name in graph.joints]
        points = joints[:, :2] - (centre, 0)  # [V, 2]
        edges = sorted(graph.edges, key=lambda edge: -joints[edge[0], 2])
        lines, shown = (
            [points[list(edge)] for edge in edges],
            [colours[child] for child, _ in edges],
        )
        look = {"linewidths": 3.6, "capstyle": "round", "clip_on": False}
        axes.add_collection(LineCollection(lines, colors=shown, **look))
        if fade == 1.0 and "head" in graph.joints:
            head = graph.joints.index("head")
            axes.scatter(*points[head], s=150, color=colours[head], zorder=3, clip_on=False)


def draw_strip(
    figure: Figure, joints: np.ndarray, graph: Graph, view: View, left: float, bottom: float,
    poses: int, numbers: bool = True,
) -> None:  # fmt: skip
    """Draws `poses` frames of joints [T, M, V, 3] side by side, evenly spaced in time.

    Everyone is in some frame; `numbers` writes the frame's below.
    """
    frames = np.linspace(0, len(joints) - 1, poses).round().astype(int)
    below = {"textcoords": "offset points", "fontsize": 9, "ha": "center", "va": "top"}
    for place, frame in enumerate(frames):
        axes = view.on(figure, left + place * view.width, bottom)
        axes.plot((-0.8 * view.half, 0.8 * view.half), (view.bottom,) * 2, color=FRAME, lw=1)
        if numbers:
            axes.annotate(f"frame {frame + 1}", (0, view.bottom), (0, -5), color=FAINT, **below)
        centre = centre_of(joints[frame])
        step = max(1, (frame - frames[place - 1]) // (GHOSTS + 1)) if place else 0
        for back in range(GHOSTS if place else 0, 0, -1):
            ghost = joints[frame - back * step]
            if np.abs(people(ghost)[..., 0] - centre).max() < view.half:
                draw_people(axes, ghost, graph, centre, fade=0.34 - 0.08 * back)
        draw_people(axes, joints[frame], graph, centre)


def draw_bars(
    figure: Figure, left: float, top: float, probabilities: Mapping[str, float], true_class: str
) -> None:
    """Draws the five most probable classes; the true one is green, a wrong prediction red."""
    best = sorted(probabilities, key=probabilities.__getitem__, reverse=True)[:5]
    tall = 0.46 * len(best)  # inches
    axes = bare_axes(figure, left, top - tall, 3.1, tall)
    for line, name in enumerate(best):
        share, above = probabilities[name], {"fontsize": 10, "va": "bottom"}
        colour = RIGHT_MARK if name == true_class else "#b9c3cc"
        if line == 0 and true_class not in ("", name):
            colour = WRONG_MARK
        axes.barh(line, 1, height=0.3, color="#f0f3f5")
        axes.barh(line, share, height=0.3, color=colour)
        write(axes, name, 0, line - 0.24, color=INK, **above)
        write(axes, f"{100 * share:.1f} %", 1, line - 0.24, color=FAINT, ha="right", **above)
    axes.set(xlim=(0, 1), ylim=(len(best) - 0.75, -0.75))


def write_gif(images: list[np.ndarray], path: Path, pause: int) -> None:
    """Writes RGB images with one small palette, which makes a GIF many times smaller."""
    sample = np.concatenate([images[0], images[len(images) // 2], images[-1]]).reshape(-1, 3)
    # Five bits a channel: Pillow's search would pick a near-white for the white background.
    colours, counts = np.unique(sample | 7, axis=0, return_counts=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours[np.argsort(-counts)[:64]].ravel().tolist())
    dither = Image.Dither.NONE
    frames = [Image.fromarray(image).quantize(palette=palette, dither=dither) for image in images]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=pause, loop=0)
