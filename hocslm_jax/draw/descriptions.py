"""Clips beside what a run said of them: a picture like Figure 7 of the HocSLM paper.

In: rows of `descriptions.jsonl`, which a run with language leaves in its workdir, and the joints
float32 [T, M, V, 3] of their clips. Out: a PNG, for each clip a filmstrip, its true class, the
reference and the generated sentence, marked green where that names the class and red where not.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hocslm_jax.draw.fonts import drawable, families
from hocslm_jax.draw.primitives import (
    FAINT,
    INK,
    RIGHT_MARK,
    WRONG_MARK,
    draw_strip,
    new_figure,
    trim,
    view_of,
)
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph

POSES = 7
# Inches, but for the last two.
CELL, GAP, TOP, BOTTOM = 5.7, 0.5, 0.65, 0.35
HEAD, STRIP, LINE, LABEL = 0.35, 1.75, 0.185, 1.05
LETTERS, MOST_LINES = 64, 3  # of a line, of a sentence


def render_descriptions(
    rows: Sequence[Mapping], clips: Sequence[np.ndarray], graph: Graph, path: str | Path,
    title: str = "",
) -> None:  # fmt: skip
    """Draws a grid, two clips a row.

    Args:
        rows: of `read_descriptions`, with id, truth, reference, generated and named.
        clips: their joints float32 [T, M, V, 3], metres.
        graph: the skeleton.
        path: a `.png` to write.

    Raises:
        UserError: another suffix, no row, joints of another skeleton, or nobody in a clip.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: pictures of descriptions are .png; name the file so")
    if not rows:
        raise UserError(f"{path}: no description to draw")
    cells = [_lines(row) for row in rows]
    columns, lines = min(2, len(rows)), max(sum(len(text) for _, _, text in cell) for cell in cells)
    cell_height = HEAD + STRIP + LINE * (lines + 1.5)
    down = -(-len(rows) // columns)
    width, height = columns * (CELL + GAP), TOP + BOTTOM + down * cell_height
    figure = new_figure(width, height, title)
    for place, (row, clip, cell) in enumerate(zip(rows, clips, cells, strict=True)):
        if clip.ndim != 4 or clip.shape[2:] != (graph.num_joints, 3):
            raise UserError(f"{row['id']}: joints are {list(clip.shape)}, not of {graph.name}")
        left = GAP / 2 + place % columns * (CELL + GAP)
        top = height - TOP - place // columns * cell_height
        _draw(figure, row, trim(clip, row["id"]), graph, cell, left, top)
    figure.savefig(path, dpi=110)


def _lines(row: Mapping) -> list[tuple[str, str, list[str]]]:
    """(label, colour, wrapped text) of both sentences."""
    right = row["named"] == row["truth"]
    said = row["generated"] or "(nothing)"
    if not right:
        said += f" [names {row['named'] or 'no class'}]"
    mark, colour = ("✓", RIGHT_MARK) if right else ("✗", WRONG_MARK)
    pairs = [("reference", FAINT, row["reference"]), (f"generated {mark}", colour, said)]
    options = {"width": LETTERS, "max_lines": MOST_LINES, "placeholder": " …"}
    return [(label, colour, textwrap.wrap(text, **options)) for label, colour, text in pairs]


def _draw(figure: Figure, row, clip, graph: Graph, cell, left: float, top: float) -> None:
    """One cell with its upper left corner at (left, top) inches."""
    width, height = figure.get_size_inches()

    def write(text: str, x: float, y: float, **look) -> None:
        look |= {"va": "top", "parse_math": False, "family": families(text)}
        figure.text(x / width, y / height, drawable(text), **look)

    view = view_of(clip, height=STRIP, narrowest=0.8, widest=CELL / 3)
    poses = min(POSES, len(clip), int(CELL / view.width))
    write(row["truth"], left, top, color=INK, fontsize=12, weight="bold")
    write(row["id"], left + CELL, top, color=FAINT, fontsize=8, ha="right")
    bottom = top - HEAD - STRIP
    draw_strip(figure, clip, graph, view, left, bottom, poses, numbers=False)
    y = bottom - 0.5 * LINE
    for label, colour, text in cell:
        write(label, left, y, color=colour, fontsize=9, weight="bold")
        for line in text:
            write(line, left + LABEL, y, color=INK, fontsize=9)
            y -= LINE
