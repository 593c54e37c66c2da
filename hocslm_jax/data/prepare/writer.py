"""Clips to a TFDS directory of ArrayRecord files. TensorFlow is not needed.

In: a Recipe, i.e. the clips of a dataset as a list of shards, and how to split them. Out: one
record per clip in shard order. One clip is in memory, and a finished shard is kept when its build
dies, so that the next build goes on after it.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from hocslm_jax.data.channels import USUAL
from hocslm_jax.data.clip import Clip, Nobody
from hocslm_jax.data.records import SPLIT
from hocslm_jax.data.store import COLUMNS
from hocslm_jax.errors import UserError, brief
from hocslm_jax.files.atomic import literal_globs, write_json
from hocslm_jax.graph import Graph

literal_globs()

VERSION = "1.0.0"
KEPT, NOTE = "shards", ".json"  # folder of finished shards, and what lies beside each
SHARD_CLIPS = 2048  # some 60 MB of joints, a file
BAD_FILES = "bad_files.json"
MAX_LISTED = 50  # bad files on the terminal

Shard = Callable[[], Iterable[Clip]]
Columns = dict[str, np.ndarray]
Protocols = dict[str, dict[str, np.ndarray]]
BadFile = dict[str, str | int | None]  # file, line, reason; empty: nobody is in it, no fault
OnBad = Callable[..., None]  # (file, reason, whether it is only empty)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to write and how it is split.

    Attributes:
      name: of the dataset.
      graph: the skeleton.
      classes: class names in label order.
      shards: functions that yield the clips; the record order is theirs, so it must be repeatable.
      protocols: from the columns (id, label, subject, …) to {protocol: {split: rows}}.
      source: what the clips are made from, as JSON types; another prepare compares it.
      expected: number of clips if nothing is missing or bad, or None.
      feeder: the feeder that takes the clips as they are; "" where they have any origin.
      captions: who wrote the clips' captions, "" if they carry none.
      portable: the shards once more, for other machines: JSON values that `ntu.reader.read_task`
        takes; empty where there are none.
      channels: of the clips, one of `channels.CHANNELS`.
      reading: how the files were read, as JSON types, where that is unusual; prediction does the
        same.
    """

    name: str
    graph: Graph
    classes: tuple[str, ...]
    shards: Sequence[Shard]
    protocols: Callable[[Columns], Protocols]
    source: dict
    expected: int | None = None
    feeder: str = ""
    captions: str = ""
    portable: Sequence[dict] = ()
    channels: str = USUAL
    reading: Mapping = dataclasses.field(default_factory=dict)

    @property
    def point(self) -> tuple[int, int]:
        """(V, C): joints and channels of a pose."""
        return self.graph.num_joints, len(self.channels)


def write_records(
    name: str,
    point: tuple[int, int],
    shards: Sequence[Shard],
    data_dir: Path,
    note: Callable[[], dict] = dict,
) -> Path:
    """Writes `<data_dir>/<name>/<version>/` and returns that path.

    Finished shards are kept in `<data_dir>/shards`, and taken from there if they are there already.

    Args:
      point: joints and channels of a pose.
      note: what else to keep with the shard that has just been read; `read_notes` gives it back.

    Raises:
      UserError: what a shard raises, or no clip at all.
    """
    kept, records = data_dir / KEPT, data_dir / name / VERSION
    kept.mkdir(parents=True, exist_ok=True)
    records.mkdir(parents=True)
    lengths, sizes = [], []
    for number, shard in enumerate(shards):
        path = write_shard(shard, point, kept, number, note)
        lengths.append(json.loads(path.with_suffix(NOTE).read_text())["clips"])
        sizes.append(path.stat().st_size)
        place = f"{name}-{SPLIT}.array_record-{number:05}-of-{len(shards):05}"
        try:
            os.link(path, records / place)
        except OSError:  # a file system without links
            shutil.copyfile(path, records / place)
    if not sum(lengths):
        raise UserError(f"{name}: the source holds no usable clip")
    template = tfds.core.ShardedFileTemplate(
        data_dir=records, dataset_name=name, split=SPLIT, filetype_suffix="array_record"
    )
    split = tfds.core.SplitInfo(
        name=SPLIT, shard_lengths=lengths, num_bytes=sum(sizes), filename_template=template
    )
    with contextlib.redirect_stdout(None):
        tfds.folder_dataset.write_metadata(
            data_dir=records,
            features=make_features(point),
            split_infos=[split],
            filename_template=template,
            check_data=False,
            description="Skeleton clips, one record each; splits are indices kept in index.json.",
            disable_shuffling=True,
        )
    return records


def write_shard(
    shard: Shard, point: tuple[int, int], folder: Path, number: int, note: Callable[[], dict] = dict
) -> Path:
    """The file of a shard in `folder`, written with its note unless it is there."""
    path = folder / f"{number:05}.array_record"
    if path.with_suffix(NOTE).exists():
        return path
    partial = path.with_suffix(f".{uuid.uuid4().hex}.partial")
    features, count = make_features(point), 0
    serializer = ExampleSerializer(features.get_serialized_info())
    writer = ArrayRecordWriter(str(partial), "group_size:1")
    for clip in shard():
        record = {key: getattr(clip, key) for key in ("id", "label", *COLUMNS[:-1])}
        joints = np.ascontiguousarray(clip.joints, np.float32)
        record |= {"joints": joints, "num_frames": len(joints)}
        example = serializer.get_tf_example(features.encode_example(record))
        writer.write(example.SerializeToString(deterministic=True))
        count += 1
    writer.close()
    partial.replace(path)
    partial.write_text(json.dumps({"clips": count} | note()))
    partial.replace(path.with_suffix(NOTE))
    return path


def read_notes(data_dir: Path) -> list[dict]:
    """What was noted of each finished shard, in order."""
    return [json.loads(path.read_text()) for path in sorted((data_dir / KEPT).glob("*" + NOTE))]


def make_features(point: tuple[int, int]) -> tfds.features.FeaturesDict:
    """What TFDS is told about a record with joints [T, M, V, C]; `point` is (V, C)."""
    joints = tfds.features.Tensor(  # encoded, as TFDS asks where two dimensions are unknown
        shape=(None, None, *point), dtype=np.float32, encoding="bytes"
    )
    numbers = dict.fromkeys(("label", *COLUMNS), tfds.features.Scalar(np.int32))
    return tfds.features.FeaturesDict({"id": tfds.features.Text(), "joints": joints, **numbers})


def bad_file(file: str, reason: str, empty: bool = False) -> BadFile:
    """With the line that a reason may begin with as a number."""
    match = re.fullmatch(r"line (\d+): (.*)", reason, re.DOTALL)
    line, reason = (int(match[1]), match[2]) if match else (None, reason)
    found = {"file": file, "line": line, "reason": reason}
    return found | {"empty": True} if empty else found


def tell_bad(on_bad: OnBad, where: str, error: Exception) -> None:
    """Reports a clip that cannot be used; one in which nobody is, as no fault of its file."""
    on_bad(where, str(error), *([True] if isinstance(error, Nobody) else []))


def report_bad_files(bad: list[BadFile], folder: Path) -> None:
    """Lists them in `folder`, and the first ones on the terminal; a list that was there goes."""
    (folder / BAD_FILES).unlink(missing_ok=True)
    if bad:
        write_json(folder / BAD_FILES, bad)
    for entry in bad[:MAX_LISTED]:
        line = f", line {entry['line']}" if entry["line"] else ""
        kind = "left out" if entry.get("empty") else "bad file"
        print(brief(f"{kind} {entry['file']}{line}: {entry['reason']}"), file=sys.stderr)
