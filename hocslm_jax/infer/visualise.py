"""Pictures of skeleton clips, of predictions for them, and of the topologies a model learnt.

In: joints float32 [T, M, V, 3] in metres (x right, y up, z away from the camera) and a `Graph`;
for a prediction, class probabilities. Out: a PNG filmstrip, a GIF animation or a heat map.
Also the verb `render`, which draws clips of a prepared dataset with what a run said of them.
"""

import argparse
import difflib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hocslm_jax.data.store import Store, open_store
from hocslm_jax.errors import UserError
from hocslm_jax.eval.classification import load_scores
from hocslm_jax.eval.fonts import drawable, families
from hocslm_jax.graph import Graph
from hocslm_jax.infer.drawing import (
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `python -m hocslm_jax render`."""
    parser.add_argument("--dataset", required=True, help="a prepared dataset, e.g. nw_ucla")
    parser.add_argument("--data-dir", default="data", help="folder of prepared datasets")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--clip", help="id of the clip")
    what.add_argument("--descriptions", type=int, metavar="N", help="N clips and what a run says")
    parser.add_argument("--workdir", help="a finished run: show what it predicted or said")
    parser.add_argument("--out", required=True, help="picture to write: .png or .gif")
    parser.add_argument("--poses", type=int, default=6, help="poses in a filmstrip")


def run(args: argparse.Namespace) -> None:
    """Draws clips of a prepared dataset, with what a run made of them if a workdir is given."""
    store, out = open_store(args.dataset, args.data_dir), Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw = _draw_clip if args.descriptions is None else _draw_examples
    draw(args, store, out)
    print(f"wrote {out} ({out.stat().st_size / 1024:.0f} KiB)")


def _draw_examples(args: argparse.Namespace, store: Store, out: Path) -> None:
    from hocslm_jax.infer.examples import draw_examples  # with all of training, seconds

    if not args.workdir or args.descriptions < 1:
        raise UserError("--descriptions N draws N clips of a run: give at least 1, and --workdir")
    draw_examples(args.workdir, store, args.descriptions, out)


def _draw_clip(args: argparse.Namespace, store: Store, out: Path) -> None:
    if args.clip not in store.ids:
        near = difflib.get_close_matches(args.clip, store.ids, n=1)
        hint = f"did you mean {near[0]}?" if near else f"ids look like {store.ids[0]}"
        raise UserError(f"{args.dataset} has no clip {args.clip}; {hint}")
    if args.poses < 1:
        raise UserError(f"--poses {args.poses}: a filmstrip has at least one pose")
    row = store.ids.index(args.clip)
    true_class = store.classes[int(store.labels[row])]
    title, probabilities = f"{args.clip}: {true_class}", None
    if args.workdir:
        probabilities = predicted(Path(args.workdir), store, args.clip)
        best = max(probabilities, key=probabilities.__getitem__)
        title = f"predicted {best} ({100 * probabilities[best]:.1f} %), true class {true_class}"
    render_clip(
        store.joints(row),
        store.graph,
        out,
        title=title,
        probabilities=probabilities,
        true_class=true_class,
        poses=args.poses,
    )


def predicted(workdir: Path, store: Store, clip: str) -> dict[str, float]:
    """Class probabilities that a finished run gave a clip, from its `scores.npz`."""
    scores = load_scores(workdir / "scores.npz")
    if clip not in scores.ids:
        raise UserError(
            f"{workdir}: {clip} is not among the {scores.total} clips this run was tested on; "
            f"choose one that is, e.g. {scores.ids[0]}"
        )
    logits = scores.logits[scores.ids.index(clip)].astype(np.float64)
    if len(logits) != len(store.classes):
        raise UserError(
            f"{workdir}: scores of {len(logits)} classes, but {store.name} has "
            f"{len(store.classes)}; name the dataset the run was trained on"
        )
    weights = np.exp(logits - logits.max())
    return dict(zip(store.classes, (weights / weights.sum()).tolist(), strict=True))


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
