"""`python -m hocslm_jax render`: draws clips of a prepared dataset, with the results of a run.

In: a dataset, and the workdir of a finished run with its `scores.npz` or `descriptions.jsonl`. Out:
a PNG filmstrip or a GIF animation of one clip, or a PNG of several clips with their sentences.
"""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax

from hocslm_jax.data.store import Store, open_store
from hocslm_jax.draw.descriptions import render_descriptions
from hocslm_jax.draw.skeletons import render_clip
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import load_scores
from hocslm_jax.language.description_scores import DESCRIPTIONS, read_descriptions
from hocslm_jax.predict.clip_files import to_draw


def run(args: argparse.Namespace) -> None:
    """Draws clips of a prepared dataset, with the results of a run if a workdir is given."""
    store, out = open_store(args.dataset, args.data_dir), Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    if args.descriptions is None:
        _draw_clip(args, store, out)
    elif not args.workdir or args.descriptions < 1:
        raise UserError("--descriptions N draws N clips of a run: give at least 1, and --workdir")
    else:
        draw_examples(args.workdir, store, args.descriptions, out)
    print(f"wrote {out} ({out.stat().st_size / 1024:.0f} KiB)")


def _draw_clip(args: argparse.Namespace, store: Store, out: Path) -> None:
    if args.clip not in store.ids:
        near = difflib.get_close_matches(args.clip, store.ids, n=1)
        hint = f"did you mean {near[0]}?" if near else f"ids look like {store.ids[0]}"
        raise UserError(f"{args.dataset} has no clip {args.clip}; {hint}")
    if args.poses < 1:
        raise UserError(f"--poses {args.poses}: a filmstrip has at least one pose")
    row = store.ids.index(args.clip)
    true_class = store.classes[int(store.labels[row])]
    options = {"title": f"{args.clip}: {true_class}"}
    if args.workdir:
        options = {"probabilities": predicted(Path(args.workdir), store, args.clip)}
    options |= {"true_class": true_class, "poses": args.poses}
    joints = to_draw(store.joints(row), store.graph, store.channels)
    render_clip(joints, store.graph, out, **options)


def predicted(workdir: Path, store: Store, clip: str) -> dict[str, float]:
    """A finished run's class probabilities for a clip, from its `scores.npz`."""
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
    return dict(zip(store.classes, softmax(logits).tolist(), strict=True))


def choose(rows: Sequence[Mapping], count: int) -> list[Mapping]:
    """`count` rows, evenly spaced over the rows sorted by class; none are picked by hand."""
    rows = sorted(rows, key=lambda row: row["truth"])
    count = min(count, len(rows))
    return [rows[int((place + 0.5) * len(rows) / count)] for place in range(count)]


def draw_examples(workdir: str | Path, store: Store, count: int, path: Path) -> None:
    """Draws `count` test clips of a finished run with their sentences, and the total count.

    Raises:
        UserError: no descriptions, or they belong to other clips than `store`, or as
            `render_descriptions`.
    """
    rows = read_descriptions(Path(workdir) / DESCRIPTIONS)
    chosen, place = choose(rows, count), {clip: row for row, clip in enumerate(store.ids)}
    if strangers := [row["id"] for row in chosen if row["id"] not in place]:
        raise UserError(
            f"{workdir} describes {strangers[0]}, which is not in {store.name}; name the dataset "
            "the run was trained on"
        )
    found = [store.joints(place[row["id"]]) for row in chosen]
    clips = [to_draw(joints, store.graph, store.channels) for joints in found]
    correct = sum(row["named"] == row["truth"] for row in rows)
    title = f"{correct} of {len(rows)} sentences about test clips name the class"
    render_descriptions(chosen, clips, store.graph, path, f"{store.name}: {title}")
