"""A confusion matrix as a PNG.

In: counts [C, C] and class names. Out: one file. Matplotlib's object interface with the Agg canvas
needs no display and no global state.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from hocslm_jax.draw.fonts import drawable, families

MAX_LABELLED = 40  # classes; with more, counts and names do not fit into the figure
MAX_CONFUSIONS = 15  # lines in the list beside a matrix without names
INK = "#22303c"
FAINT = "#7b8894"
FRAME = "#d5dbe1"


def save_confusion(matrix: np.ndarray, classes: Sequence[str], path: str | Path) -> None:
    """Draws a confusion matrix: colours are shares of the true class, numbers are clips.

    Args:
        matrix: counts, int [C, C], true class by predicted class.
        classes: C names. Up to 40 they label the axes; more are numbered from 1, as NTU does,
            and the most frequent confusions are listed by name beside the matrix.
        path: the PNG to write.
    """
    matrix, names = np.asarray(matrix), list(map(drawable, classes))
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    few = len(classes) <= MAX_LABELLED
    side = max(3.0, 0.5 * len(classes)) if few else 7.2  # inches
    figure, axes = _square(side, right=0.6 if few else 4.6)
    _draw_shares(figure, axes, shares)
    if few:
        _name_cells(axes, matrix, shares, names)
    else:
        _number_axes(axes, len(classes))
        _list_confusions(axes, matrix, names)
    correct, total = int(matrix.trace()), int(matrix.sum())
    share = f" ({100 * correct / total:.2f} %)" if total else ""
    axes.set_title(f"{correct} of {total} correct{share}", loc="left", color=INK, fontsize=11)
    figure.savefig(path, dpi=110, bbox_inches="tight", pad_inches=0.15)


def _square(side: float, right: float) -> tuple[Figure, Axes]:
    """A figure with one square axes of `side` inches and `right` inches of room beside it."""
    width, height = side + right + 0.6, side + 0.8
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_axes((0.6 / width, 0.4 / height, side / width, side / height))


def _draw_shares(figure: Figure, axes: Axes, shares: np.ndarray) -> None:
    # The square root makes small shares, the confusions, visible.
    norm = PowerNorm(0.5, vmin=0, vmax=1)
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest")
    bar = figure.colorbar(image, cax=axes.inset_axes((1.02, 0, 0.025, 1)))
    bar.set_ticks([0, 0.05, 0.2, 0.5, 1], labels=["0", "5", "20", "50", "100 %"])
    bar.ax.minorticks_off()
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FAINT)
    bar.outline.set_visible(False)
    axes.set_xlabel("predicted class", color=FAINT, labelpad=8)
    axes.set_ylabel("true class", color=FAINT, labelpad=8)
    axes.spines[:].set_color(FRAME)


def _name_cells(axes: Axes, matrix: np.ndarray, shares: np.ndarray, classes: Sequence[str]) -> None:
    ticks = np.arange(len(classes))
    names = {"fontsize": 9, "parse_math": False, "family": families(classes)}
    axes.set_xticks(ticks, classes, rotation=40, ha="right", rotation_mode="anchor", **names)
    axes.set_yticks(ticks, classes, **names)
    axes.tick_params(length=0, labelcolor=INK)
    for true, predicted in np.argwhere(matrix > 0):
        colour = "white" if shares[true, predicted] > 0.35 else INK
        text = str(matrix[true, predicted])
        axes.text(predicted, true, text, ha="center", va="center", color=colour, fontsize=8)


def _number_axes(axes: Axes, num_classes: int) -> None:
    ticks = np.arange(9, num_classes, 10)
    axes.set_xticks(ticks, ticks + 1, fontsize=8)
    axes.set_yticks(ticks, ticks + 1, fontsize=8)
    axes.tick_params(color=FRAME, labelcolor=INK)


def _list_confusions(axes: Axes, matrix: np.ndarray, classes: Sequence[str]) -> None:
    """Lists the largest off-diagonal cells by name, since 120 names do not fit on an axis."""
    wrong = matrix - np.diag(matrix.diagonal())
    largest = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    place = {"transform": axes.transAxes, "va": "top", "fontsize": 9, "parse_math": False}
    place["family"] = families([*classes, "→"])
    axes.text(1.13, 1, "most frequent confusions", color=FAINT, **place)
    for line, (true, predicted) in enumerate(np.transpose(np.unravel_index(largest, wrong.shape))):
        if not wrong[true, predicted]:
            break
        y = 0.95 - line * 0.0635
        counts = f"{wrong[true, predicted]} of {matrix[true].sum()}"
        axes.text(1.13, y, f"{true + 1}  {classes[true]}", color=INK, **place)
        arrow = f"→ {predicted + 1}  {classes[predicted]}: {counts}"
        axes.text(1.15, y - 0.026, arrow, color=FAINT, **place)
