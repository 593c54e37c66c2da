"""Writes clips to a TFDS directory of ArrayRecord files, without TensorFlow.

In: a Recipe, i.e. the clips of a dataset as a list of shards, and how to split them. Out: one
record per clip in shard order. One clip is in memory. Finished shards survive a killed build, so
that the next build resumes after them.
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

from hocslm_jax.data.channels import USUAL
from hocslm_jax.data.clip import Clip, Nobody
from hocslm_jax.data.records import SPLIT
from hocslm_jax.data.store import COLUMNS
from hocslm_jax.errors import UserError, brief
from hocslm_jax.files.atomic import literal_globs, write_json
from hocslm_jax.graph import Graph

literal_globs()

VERSION = "1.0.0"
KEPT, NOTE = "shards", ".json"  # folder of finished shards, and the suffix of the note beside each
SHARD_CLIPS = 2048  # clips in a file, some 60 MB of joints
BAD_FILES = "bad_files.json"
MAX_LISTED = 50  # bad files shown on the terminal

Shard = Callable[[], Iterable[Clip]]
Columns = dict[str, np.ndarray]
Protocols = dict[str, dict[str, np.ndarray]]
BadFile = dict[str, str | int | None]  # file, line, reason; empty: it only shows nobody
OnBad = Callable[..., None]  # (file, reason, whether it only shows nobody)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to write, and how to split it.

    Attributes:
      name: of the dataset.
      graph: the skeleton.
      classes: class names in label order.
      shards: functions that yield the clips; the record order is theirs, so it must be repeatable.
      protocols: from the columns (id, label, subject, …) to {protocol: {split: rows}}.
      source: identifies the files the clips are made from, as JSON types; a later prepare compares
        it.
      expected: number of clips of the complete set, or None if unknown.
      feeder: the feeder whose protocol the clips follow; "" if they may have any origin.
      captions: who wrote the captions in the clips; "" if there are none.
      portable: the shards as JSON values for other machines, which `ntu.reader.read_task` takes;
        empty if that is not supported.
      channels: of the clips, one of `channels.CHANNELS`.
      reading: settings with which the files were read, as JSON types, if not the default;
        prediction uses them too.
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

    Finished shards are kept in `<data_dir>/shards`; existing ones are reused.

    Args:
      point: joints and channels of a pose.
      note: returns what to store with the shard just read; `read_notes` reads it.

    Raises:
      UserError: raised by a shard, or there is no clip at all.
    """
    import tensorflow_datasets as tfds  # slow to import

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
        except OSError:  # the file system has no links
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
    """The file of a shard in `folder`; it is written, with its note, unless it exists."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

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
    """The notes of all finished shards, in order."""
    return [json.loads(path.read_text()) for path in sorted((data_dir / KEPT).glob("*" + NOTE))]


def make_features(point: tuple[int, int]):
    """The TFDS `FeaturesDict` of a record with joints [T, M, V, C]; `point` is (V, C)."""
    import tensorflow_datasets as tfds

    joints = tfds.features.Tensor(  # TFDS needs encoding if two dimensions are unknown
        shape=(None, None, *point), dtype=np.float32, encoding="bytes"
    )
    numbers = dict.fromkeys(("label", *COLUMNS), tfds.features.Scalar(np.int32))
    return tfds.features.FeaturesDict({"id": tfds.features.Text(), "joints": joints, **numbers})


def bad_file(file: str, reason: str, empty: bool = False) -> BadFile:
    """A BadFile; a line number at the start of the reason becomes its `line`."""
    match = re.fullmatch(r"line (\d+): (.*)", reason, re.DOTALL)
    line, reason = (int(match[1]), match[2]) if match else (None, reason)
    found = {"file": file, "line": line, "reason": reason}
    return found | {"empty": True} if empty else found


def report_bad(on_bad: OnBad, where: str, error: Exception) -> None:
    """Reports an unusable clip; if it only shows nobody, its file does not count as bad."""
    on_bad(where, str(error), *([True] if isinstance(error, Nobody) else []))


def report_bad_files(bad: list[BadFile], folder: Path) -> None:
    """Lists bad files in `folder`, replacing an old list, and the first ones on the terminal."""
    (folder / BAD_FILES).unlink(missing_ok=True)
    if bad:
        write_json(folder / BAD_FILES, bad)
    for entry in bad[:MAX_LISTED]:
        line = f", line {entry['line']}" if entry["line"] else ""
        kind = "left out" if entry.get("empty") else "bad file"
        print(brief(f"{kind} {entry['file']}{line}: {entry['reason']}"), file=sys.stderr)
