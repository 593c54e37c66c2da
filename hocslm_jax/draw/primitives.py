"""Drawing primitives of skeleton pictures: people, the view they are seen in, bars, GIF files.

In: poses [M, V, 3] in metres (x right, y up, z away from the camera) and Matplotlib axes.
`skeletons` composes these into filmstrips and animations.
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
GHOSTS = 3  # earlier frames drawn faintly behind each pose of a filmstrip


@dataclass(frozen=True)
class View:
    """A window on the scene in metres, and the size in inches that shows it to scale."""

    half: float  # metres from the middle to either side
    bottom: float
    top: float
    width: float
    height: float

    def on(self, figure: Figure, left: float, bottom: float) -> Axes:
        """Bare axes of this view, `left` and `bottom` inches from the figure's corner."""
        full_width, full_height = figure.get_size_inches()
        size = (self.width / full_width, self.height / full_height)
        axes = figure.add_axes((left / full_width, bottom / full_height, *size))
        axes.set_axis_off()
        axes.set(xlim=(-self.half, self.half), ylim=(self.bottom, self.top))
        return axes


def trim(joints: np.ndarray, name: str) -> np.ndarray:
    """The frames of joints [T, M, V, 3] that have somebody; UserError with `name` if none has."""
    present = np.abs(joints).sum(axis=(1, 2, 3)) > 0
    if not present.any():
        raise UserError(f"{name}: the clip has nobody in it")
    return joints[present]


def view_of(joints: np.ndarray, height: float, narrowest: float, widest: float) -> View:
    """The window that holds every frame of joints [T, M, V, 3], within sizes in inches."""
    poses = [people(pose) for pose in joints]
    half = max(float(np.ptp(pose[..., 0])) / 2 for pose in poses) + MARGIN
    bottom = min(float(pose[..., 1].min()) for pose in poses) - MARGIN
    top = max(max(float(pose[..., 1].max()) for pose in poses), bottom + 1.0) + MARGIN
    scale = min(height / (top - bottom), widest / (2 * half))  # inches a metre
    width = max(narrowest, scale * 2 * half)
    return View(width / scale / 2, bottom, top, width, scale * (top - bottom))


def write_gif(images: list[np.ndarray], path: Path, pause: int) -> None:
    """Writes RGB images with one small palette, without which a GIF is many times as large."""
    sample = np.concatenate([images[0], images[len(images) // 2], images[-1]]).reshape(-1, 3)
    # Five bits a channel: Pillow's search would take a near-white for the white background.
    colours, counts = np.unique(sample | 7, axis=0, return_counts=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours[np.argsort(-counts)[:64]].ravel().tolist())
    dither = Image.Dither.NONE
    frames = [Image.fromarray(image).quantize(palette=palette, dither=dither) for image in images]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=pause, loop=0)


def new_figure(width: float, height: float, title: str) -> Figure:
    """A white figure with its title at the top and the key to the colours at the bottom.

    `width` and `height` are inches; a title that is longer makes the figure wider.
    """
    title = drawable(title)
    width = max(width, 0.5 + 0.11 * len(title))
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    place = {"va": "center", "ha": "left", "family": families(title)}
    figure.text(
        0.25 / width, 1 - 0.28 / height, title, color=INK, fontsize=13, parse_math=False, **place
    )
    for left, side in ((0.25, "left"), (0.6, "right")):
        figure.text(
            left / width, 0.14 / height, side, color=SIDES[side], fontsize=9, weight="bold", **place
        )
    return figure


def people(pose: np.ndarray) -> np.ndarray:
    """Those of the people [M, V, 3] who are in the frame: the absent are all zero."""
    return pose[np.abs(pose).sum(axis=(1, 2)) > 0]


def centre_of(pose: np.ndarray) -> float:
    """Where the people of a frame stand from left to right: the view follows them."""
    across = people(pose)[..., 0]
    return float(across.min() + across.max()) / 2


def draw_people(
    axes: Axes, pose: np.ndarray, graph: Graph, centre: float, fade: float = 1.0
) -> None:
    """Draws everyone in a frame [M, V, 3], the farther first; fade < 1 pales towards white."""
    for person in sorted(range(len(pose)), key=lambda person: -pose[person, :, 2].mean()):
        joints = pose[person]  # [V, 3]
        if not np.abs(joints).sum():
            continue
        shades = {
            side: 1 - fade * (1 - np.array(to_rgb(colour)))
            for side, colour in (SECOND if person else SIDES).items()
        }
        colours = [shades[side_of(name)] for name in graph.joints]
        points = joints[:, :2] - (centre, 0)  # [V, 2]
        edges = sorted(graph.edges, key=lambda edge: -joints[edge[0], 2])
        bones = LineCollection(
            [points[list(edge)] for edge in edges],
            colors=[colours[child] for child, _ in edges],
            linewidths=3.6,
            capstyle="round",
            clip_on=False,
        )
        axes.add_collection(bones)
        if fade == 1.0 and "head" in graph.joints:
            head = graph.joints.index("head")
            axes.scatter(*points[head], s=150, color=colours[head], zorder=3, clip_on=False)


def draw_strip(
    figure: Figure, joints: np.ndarray, graph: Graph, view: View, left: float, bottom: float,
    poses: int, numbers: bool = True,
) -> None:  # fmt: skip
    """Draws `poses` frames of joints [T, M, V, 3] side by side, evenly spaced in time.

    Everyone is in some frame; `left` and `bottom` are inches, `numbers` writes the frame's below.
    """
    frames = np.linspace(0, len(joints) - 1, poses).round().astype(int)
    for place, frame in enumerate(frames):
        axes = view.on(figure, left + place * view.width, bottom)
        axes.plot((-0.8 * view.half, 0.8 * view.half), (view.bottom,) * 2, color=FRAME, lw=1)
        if numbers:
            axes.annotate(
                f"frame {frame + 1}",
                (0, view.bottom),
                (0, -5),
                textcoords="offset points",
                color=FAINT,
                fontsize=9,
                ha="center",
                va="top",
            )
        step = max(1, (frame - frames[place - 1]) // (GHOSTS + 1)) if place else 0
        for back in range(GHOSTS if place else 0, 0, -1):
            ghost, centre = joints[frame - back * step], centre_of(joints[frame])
            if np.abs(people(ghost)[..., 0] - centre).max() < view.half:
                draw_people(axes, ghost, graph, centre, fade=0.34 - 0.08 * back)
        draw_people(axes, joints[frame], graph, centre_of(joints[frame]))


def side_of(joint: str) -> str:
    return next((side for side in ("left", "right") if side in joint.lower()), "trunk")


def draw_bars(
    figure: Figure, left: float, top: float, probabilities: Mapping[str, float], true_class: str
) -> None:
    """Draws the five most probable classes: the true one green, a wrong best one red."""
    width, height = figure.get_size_inches()
    best = sorted(probabilities, key=probabilities.__getitem__, reverse=True)[:5]
    tall = 0.46 * len(best)  # inches
    axes = figure.add_axes((left / width, (top - tall) / height, 3.1 / width, tall / height))
    for line, name in enumerate(best):
        share = probabilities[name]
        colour = RIGHT_MARK if name == true_class else "#b9c3cc"
        if line == 0 and true_class not in ("", name):
            colour = WRONG_MARK
        axes.barh(line, 1, height=0.3, color="#f0f3f5")
        axes.barh(line, share, height=0.3, color=colour)
        look = {"fontsize": 10, "va": "bottom", "parse_math": False, "family": families(name)}
        axes.text(0, line - 0.24, drawable(name), color=INK, **look)
        percent = f"{100 * share:.1f} %"
        axes.text(1, line - 0.24, percent, color=FAINT, fontsize=10, ha="right", va="bottom")
    axes.set(xlim=(0, 1), ylim=(len(best) - 0.75, -0.75))
    axes.set_axis_off()
