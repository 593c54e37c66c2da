"""Clips with the sentences of a run: a picture like Figure 7 of the HocSLM paper.

In: rows of `descriptions.jsonl`, which a run with language writes, and the joints float32 [T, M, V,
3] of their clips. Out: a PNG with a filmstrip of each clip, its true class, the reference sentence
and the generated one, which is green if it names the class and red if not.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.draw import primitives as draw
from hocslm_jax.draw.primitives import FAINT, INK, RIGHT_MARK, WRONG_MARK, write
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph

POSES = 7
# Inches, except the last two.
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
        UserError: another suffix, no rows, joints of another skeleton, or an empty clip.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: the picture is a .png: use that suffix")
    if not rows:
        raise UserError(f"{path}: no description to draw")
    texts = [_lines(row) for row in rows]
    columns, lines = min(2, len(rows)), max(sum(len(text) for _, _, text in cell) for cell in texts)
    cell_height = HEAD + STRIP + LINE * (lines + 1.5)
    height = TOP + BOTTOM + -(-len(rows) // columns) * cell_height
    figure = draw.new_figure(columns * (CELL + GAP), height, title)
    for place, (row, clip, cell) in enumerate(zip(rows, clips, texts, strict=True)):
        clip = draw.trim(clip, graph, row["id"])
        left = GAP / 2 + place % columns * (CELL + GAP)
        top = height - TOP - place // columns * cell_height
        write(figure, row["truth"], left, top, color=INK, fontsize=12, weight="bold", va="top")
        write(figure, row["id"], left + CELL, top, color=FAINT, fontsize=8, ha="right", va="top")
        view = draw.view_of(clip, height=STRIP, narrowest=0.8, widest=CELL / 3)
        poses = min(POSES, len(clip), int(CELL / view.width))
        y = top - HEAD - STRIP
        draw.draw_strip(figure, clip, graph, view, left, y, poses, numbers=False)
        y -= 0.5 * LINE
        for label, colour, text in cell:
            write(figure, label, left, y, color=colour, fontsize=9, weight="bold", va="top")
            for line in text:
                write(figure, line, left + LABEL, y, color=INK, fontsize=9, va="top")
                y -= LINE
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
