"""A puzzle made of NW-UCLA's training views, for self-supervised learning.

    python -m benchmarks.jigsaw --data-dir data --out runs/jigsaw_clips

In: the prepared dataset. Out: a folder for `prepare folder`: of every clip its three thirds in each
of the six orders, the order being the class. Clips of view 1 train, those of view 2 test; view 3,
the official test view, is not read. configs/search/pretext.py says what it is for.
"""

import argparse
import csv
import itertools
import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.record import one_line_errors
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError

PROTOCOL = "view2_val"
ORDERS = tuple(itertools.permutations(range(3)))
HEADER = ("id", "file", "label", "split")


def puzzles(joints: np.ndarray) -> dict[str, np.ndarray]:
    """One clip [T, M, V, 3], its thirds in every order: "012" is the clip as it is."""
    thirds = np.array_split(joints, 3)
    return {
        "".join(map(str, order)): np.concatenate([thirds[place] for place in order])
        for order in ORDERS
    }


def write(data_dir: Path, out: Path) -> int:
    """Writes the folder; returns the number of clips.

    Raises:
        UserError: the dataset is not prepared, or `out` has files already.
    """
    store = open_store("nw_ucla", data_dir)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty: give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for split in ("train", "test"):
        for row in store.rows(PROTOCOL, split):
            for order, joints in puzzles(store.joints(row)).items():
                name = f"{store.ids[row]}_{order}"
                np.save(out / f"{name}.npy", joints)
                rows.append((name, f"{name}.npy", order, split))
    (out / "graph.json").write_text(json.dumps(store.graph.as_mapping()), encoding="utf-8")
    with open(out / "clips.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return len(rows)


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(f"wrote {write(args.data_dir, args.out):,} clips to {args.out}")


if __name__ == "__main__":
    sys.exit(main())
