"""A dataset of RGB videos: each video becomes a skeleton file, and `folder` reads these.

In: a folder of videos, labelled by a table or by their sub-folders. Out: a folder of skeletons with
clips.csv and graph.json, and the Recipe that `folder` makes of it. Existing skeletons are not made
again.
"""

import collections
import csv
import dataclasses
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hocslm_jax.data.channels import USUAL
from hocslm_jax.data.prepare import folder
from hocslm_jax.data.prepare.readers.arrays import write_npz
from hocslm_jax.data.prepare.readers.formats import read_recording
from hocslm_jax.data.prepare.readers.recording import Recording
from hocslm_jax.data.prepare.writer import OnBad, Recipe
from hocslm_jax.errors import UserError, few
from hocslm_jax.files.atomic import write_text
from hocslm_jax.files.text import read_json, read_table
from hocslm_jax.files.videos import find_videos
from hocslm_jax.graph import GRAPHS, resolve_graph
from hocslm_jax.pose.estimators import Poses, estimate, open_pose

TEST_EVERY = 5  # of each class's videos, if no split is given
MADE_BY = "poses.json"  # in the folder of skeletons: how they were made
OPTIONAL = ("id", "split", "subject", "camera", "setup", "replication", "caption")


def recipe(
    name: str,
    source: Path,
    on_bad: OnBad,
    labels: Path | None = None,
    skeletons: Path | None = None,
    graph: str = "",
    **settings,
) -> Recipe:
    """The Recipe of the dataset whose videos lie in `source`.

    Args:
      on_bad: called with (video, reason) for every video that is skipped.
      labels: a table with the columns file and label; without it, the folders name the labels.
      skeletons: where skeletons are written; by default beside the source.
      graph: the layout of the dataset; by default that of the estimator.
      settings: `pose_model`, `pose`, `persons`, `mirrored`, as of `estimators.OPTIONS`.

    Raises:
      UserError: no videos, no labels, no models, or skeletons made with other settings.
    """
    videos = find_videos(source)
    rows = list(_table(source, videos, labels, on_bad) if labels else _folders(source, videos))
    if not rows:
        raise UserError(f"{labels or source}: not one video has a label")
    rows = with_splits(rows)
    skeletons = skeletons or source.resolve().with_name(f"{source.resolve().name}_skeletons")
    if graph:
        resolve_graph(graph)
    _check_made_alike(skeletons, {key: settings[key] for key in ("pose", "persons", "mirrored")})
    good = list(_film(rows, videos, skeletons, settings, on_bad))
    if not good:
        raise UserError(f"{source}: not one video gave a skeleton")
    first = read_recording(skeletons / good[0]["file"])
    layout = resolve_graph(graph) if graph else first.layout
    _keep(skeletons / "graph.json", json.dumps(layout.as_mapping(), indent=1))
    _keep(skeletons / folder.TABLE, as_csv(good))
    channels = USUAL if first.joints.shape[3] == 3 else "xyc"
    made = folder.recipe(name, skeletons, None, on_bad, channels=channels)
    return dataclasses.replace(made, expected=len(rows))


def recording_of(poses: Poses, coordinates: int = 0) -> Recording:
    """The skeletons of a video as a Recording, in metres, or in pixels if `coordinates` is 2.

    Without `coordinates`, in pixels only if the estimator knows no depth.

    Raises:
      ValueError: the estimator does not give so many coordinates.
    """
    flat = bool(np.isnan(poses.joints).all())
    coordinates = coordinates or (2 if flat else 3)
    joints = poses.joints if coordinates == 3 else poses.pixels
    if np.isnan(joints).all():
        raise ValueError(f"{coordinates}D joints are needed, but the pose estimator gives none")
    return Recording(
        joints,
        poses.confidence,
        layout=GRAPHS[poses.layout],
        unit="m" if coordinates == 3 else "px",
        up="-y",
        fps=poses.fps or None,
    )


def with_splits(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Gives each row a split: if no row has one, every fifth video of each class tests."""
    if any(row.get("split") for row in rows):
        return rows
    counts = collections.Counter(row["label"] for row in rows)
    seen: collections.Counter[str] = collections.Counter()
    split = []
    for row in sorted(rows, key=lambda row: row["id"]):
        label = row["label"]
        seen[label] += 1
        every = min(TEST_EVERY, max(2, counts[label]))  # small classes need a test video too
        split.append(row | {"split": "train" if seen[label] % every else "test"})
    print(
        f"note: no split is given, so every {TEST_EVERY}th video of each class tests. A column "
        "split, or folders train and test, keep people apart",
        file=sys.stderr,
    )
    return split


def as_csv(rows: list[dict[str, str]]) -> str:
    """The table that `folder` reads."""
    columns = ["id", "file", "label", "split", *OPTIONAL[2:]]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _folders(source: Path, videos: dict[str, Path]) -> Iterator[dict[str, str]]:
    """Rows of videos in folders: LABEL/…, or train/LABEL/… with train, val, test for splits."""
    for clip, path in videos.items():
        parts = path.relative_to(source).parts[:-1]
        split = parts[0] if len(parts) > 1 and parts[0] in folder.SPLITS else ""
        if not parts:
            raise UserError(
                f"{path} is in no folder that names its label; move it into one, or give --labels"
            )
        yield {"id": clip, "label": parts[1] if split else parts[0], "split": split}


def _table(
    source: Path, videos: dict[str, Path], labels: Path, on_bad: OnBad
) -> Iterator[dict[str, str]]:
    """Rows of a table, which names a video by its path in the folder, its name, or its id."""
    names = {str(path.relative_to(source)): clip for clip, path in videos.items()}
    names |= {path.name: clip for clip, path in videos.items()}
    names |= {clip: clip for clip in videos}
    left = dict(videos)
    for line, row in read_table(labels, ("file", "label"), OPTIONAL, "each row names a video"):
        clip = names.get(row["file"].replace("\\", "/"))
        if clip is None:
            on_bad(f"{labels.name}:{line}", f"no video {row['file'][:80]!r} in {source}")
        elif clip not in left:
            on_bad(f"{labels.name}:{line}", f"a second row of {row['file'][:80]!r}")
        else:
            del left[clip]
            yield row | {"id": clip}
    if left:
        print(f"note: {len(left)} videos have no label: {few(left)}", file=sys.stderr)


def _check_made_alike(skeletons: Path, settings: dict) -> None:
    """Notes the settings of the skeletons; raises UserError if the folder holds others."""
    path = skeletons / MADE_BY
    if path.is_file() and (found := read_json(path)) != settings:
        raise UserError(
            f"{skeletons} holds skeletons made with {found}, not {settings}: name another folder "
            "with --skeletons"
        )
    skeletons.mkdir(parents=True, exist_ok=True)
    _keep(path, json.dumps(settings))


def _keep(path: Path, text: str) -> None:
    """Writes a file unless it already has that content, so that its dataset stays up to date."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


def _film(rows, videos: dict[str, Path], skeletons: Path, settings, on_bad) -> Iterator[dict]:
    """Makes missing skeletons; returns the rows that have one, with its file."""
    pose = None
    for number, row in enumerate(rows, 1):
        video, file = videos[row["id"]], skeletons / f"{row['id']}.npz"
        if not file.is_file() or file.stat().st_mtime < video.stat().st_mtime:
            pose = pose or open_pose(
                settings["pose_model"], settings["pose"], settings["persons"], settings["mirrored"]
            )
            print(f"{number} of {len(rows)}: {video}", file=sys.stderr)
            try:
                write_npz(file, recording_of(estimate(video, pose)))
            except ValueError as error:
                on_bad(str(video), str(error))
                continue
        yield row | {"file": file.name}
