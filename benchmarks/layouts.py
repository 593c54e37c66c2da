"""Accuracy of a model of one skeleton layout on clips in other layouts.

    python -m benchmarks.layouts --data-dir data --json results/benchmarks/layouts.json
    python -m benchmarks.layouts --data-dir data --write DIR --to coco17 --flat

In: a prepared NW-UCLA and a model released for it. Out: correct / total for the test clips in every
built-in layout: joints are renamed, merged and dropped, and the clips read as `predict` reads
files. With --write, a folder for `prepare folder` with all clips in another layout.
"""

import argparse
import csv
import dataclasses
import sys
from pathlib import Path

import numpy as np

from benchmarks.record import measured_here, one_line_errors, table, write_result
from hocslm_jax.data.layouts import conversion
from hocslm_jax.data.prepare.readers.clips import clip_of
from hocslm_jax.data.prepare.readers.recording import Recording, as_layout, turned_up
from hocslm_jax.data.store import Store, open_store
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, UCLA20, Graph, resolve_graph
from hocslm_jax.predict.load_model import load_pretrained
from hocslm_jax.predict.predictor import Predictor

WEIGHTS = Path("results/nw_ucla/weights/hglnet/joint_30_seed0")
FOCAL, IMAGE = 571.4, (640, 480)  # pixels, of Kinect v1's depth camera


def in_layout(joints: np.ndarray, layout: Graph) -> Recording:
    """A clip of NW-UCLA [T, M, 20, 3] in another layout."""
    as_recorded = Recording(joints, layout=UCLA20, unit="m", up="y")
    converted, _ = as_layout(as_recorded, layout)
    return turned_up(converted, layout.up)


def projected(recording: Recording) -> Recording:
    """The clip projected to a camera in the place of the sensor, in pixels with y down."""
    x, y, depth = np.moveaxis(turned_up(recording, "y").joints, -1, 0)
    depth = np.where(depth == 0, np.nan, depth)  # a missing joint is at the origin
    width, height = IMAGE
    pixels = (width / 2 + FOCAL * x / depth, height / 2 - FOCAL * y / depth)
    flat = np.stack(pixels, axis=-1).astype(np.float32)
    return dataclasses.replace(recording, joints=flat, unit="px", up="-y")


def lifted(recording: Recording) -> Recording:
    """A 2D clip for a 3D model, which would otherwise refuse it: all joints have one depth."""
    joints = recording.joints / np.float32(FOCAL)  # in units of the depth
    joints = np.concatenate([joints, 0 * joints[..., :1]], axis=-1)
    return dataclasses.replace(recording, joints=joints, unit="m")


def count(predictor: Predictor, store: Store, rows: np.ndarray, layout: Graph, flat: bool) -> int:
    """Number of clips in that layout that the model classifies correctly."""
    clips = []
    for row in rows:
        recording = in_layout(store.joints(row), layout)
        recording = lifted(projected(recording)) if flat else recording
        clips.append(clip_of(recording, predictor.graph, predictor.reading))
    found = predictor.predict(clips)
    truth = [store.classes[label] for label in store.labels[rows]]
    return sum(one.name == name for one, name in zip(found, truth, strict=True))


def measure(predictor: Predictor, store: Store, rows: np.ndarray) -> list[dict]:
    """A row for every layout, and one for COCO's joints in 2D."""
    lines = []
    for name, flat in [*((name, False) for name in GRAPHS), ("coco17", True)]:
        layout = GRAPHS[name]
        there = conversion(predictor.graph, layout)
        lacking = tuple(v for v, weights in enumerate(there) if not weights)
        back = conversion(layout, predictor.graph, lacking)
        joints = list(enumerate(zip(predictor.graph.joints, back, strict=True)))
        missing = [name for _, (name, weights) in joints if not weights]
        made = [name for v, (name, weights) in joints if weights and _moved(v, weights, there)]
        correct = count(predictor, store, rows, layout, flat)
        line = {"layout": name, "flat": flat, "correct": correct, "total": len(rows)}
        lines.append(line | {"made": made, "missing": missing})
        print(f"{name}{' in 2D' if flat else ''}: {correct}/{len(rows)}", file=sys.stderr)
    return lines


def _moved(joint: int, weights: dict[int, float], there: tuple[dict, ...]) -> bool:
    """Whether a joint is replaced by another joint, or the midpoint of others."""
    return any(there[v] != {joint: 1.0} for v in weights)


def make_table(result: dict) -> str:
    """The table of counts by layout, for the documents."""
    lines = []
    for row in result["rows"]:
        joints = str(resolve_graph(row["layout"]).num_joints)
        name = f"`{row['layout']}`" + (", x and y alone" if row["flat"] else "")
        share = f"{row['correct']} / {row['total']} = {row['correct'] / row['total']:.1%}"
        lines.append([name, joints, share, _names(row["made"]), _names(row["missing"])])
    columns = ["layout of the clips", "joints", "correct", "made of others", "missing"]
    command = f"`{result['model']}`. `{result['command']}`"
    return f"{table(columns, lines)}\n\n{command}"


def _names(names: list[str]) -> str:
    """Of a pair of left and right only the one name."""
    both = {name.removeprefix("left ") for name in names if name.startswith("left ")}
    short = [name for name in names if name.partition(" ")[2] not in both]
    pairs = [{"foot": "feet"}.get(name, f"{name}s") for name in sorted(both)]
    return ", ".join([*pairs, *short]) or "–"


def write_folder(store: Store, protocol: str, layout: Graph, flat: bool, folder: Path) -> None:
    """All clips of a protocol in another layout, for `prepare folder --graph LAYOUT`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "file", "label", "split", "subject", "camera"])
        for split in ("train", "test"):
            for row in store.rows(protocol, split):
                recording = in_layout(store.joints(row), layout)
                recording = projected(recording) if flat else recording
                name, columns = store.ids[row], store.columns
                np.save(folder / f"{name}.npy", recording.joints)
                people = (columns["subject"][row], columns["camera"][row])
                label = store.classes[store.labels[row]]
                writer.writerow([name, f"{name}.npy", label, split, *people])
    (folder / "classes.txt").write_text("\n".join(store.classes) + "\n", encoding="utf-8")


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layouts")
    parser.add_argument("--data-dir", default="data", help="folder of the prepared nw_ucla")
    parser.add_argument("--checkpoint", type=Path, default=WEIGHTS, help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="where to write the counts")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write the clips here instead")
    parser.add_argument("--to", default="coco17", metavar="LAYOUT", help="of --write")
    parser.add_argument(
        "--flat", action="store_true", help="with --write: in 2D, as seen by a camera"
    )
    args = parser.parse_args(argv)
    store = open_store("nw_ucla", args.data_dir)
    if args.write:
        write_folder(store, "xview", resolve_graph(args.to), args.flat, args.write)
        return
    predictor = load_pretrained(args.checkpoint)
    if predictor.graph.joints != UCLA20.joints:
        raise UserError(f"{args.checkpoint} is of {predictor.graph.name}; give a model of NW-UCLA")
    rows = measure(predictor, store, store.rows("xview", "test"))
    found = measured_here("layouts", arguments=argv)
    found.pop("load_average")
    write_result(args.json, {"rows": rows, "model": str(args.checkpoint), **found})


if __name__ == "__main__":
    sys.exit(main())
