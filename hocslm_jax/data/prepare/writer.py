"""Clips to a TFDS directory of ArrayRecord files, and the index over it. TensorFlow is not needed.

In: a Recipe, i.e. the clips of a dataset as a list of shards, and how to split them. Out: one
record per clip in shard order, and the index.json mapping, which is made by reading the records
back, so that row i of the index is record i. One clip is in memory, and a finished shard is kept
when its build dies, so that the next build goes on after it.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.measure import Census
from hocslm_jax.data.records import SPLIT, add_joints, open_records
from hocslm_jax.data.store import COLUMNS
from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import literal_globs
from hocslm_jax.files.checksums import sha256
from hocslm_jax.graph import Graph

literal_globs()

VERSION = "1.0.0"
KEPT, NOTE = "shards", ".json"  # folder of finished shards, and what lies beside each
SHARD_CLIPS = 2048  # some 60 MB of joints, a file

Shard = Callable[[], Iterable[Clip]]
Columns = dict[str, np.ndarray]
Protocols = dict[str, dict[str, np.ndarray]]


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


class ShardWriter(tfds.core.ExampleWriter):
    """Writes a shard to `folder` once, with a note of its clips, and links it to where TFDS asks.

    What TFDS passes as examples is left alone: it would keep all of a shard in memory to count it.

    Args:
      note: called after each shard for what else to keep with it, as JSON types.
    """

    def __init__(
        self,
        features: tfds.features.FeaturesDict,
        shards: Sequence[Shard] | Mapping[int, Shard],
        folder: Path,
        note: Callable[[], dict],
    ):
        super().__init__(tfds.core.FileFormat.ARRAY_RECORD)
        self._features, self._shards, self._folder, self._note = features, shards, folder, note
        self._serializer = ExampleSerializer(features.get_serialized_info())

    def write(self, path, examples) -> None:
        del examples
        number = int(os.fspath(path).rpartition("array_record-")[2].partition("-of-")[0])
        kept = self.keep(number)
        try:
            os.link(kept, path)
        except OSError:  # a file system without links
            shutil.copyfile(kept, path)

    def keep(self, number: int) -> Path:
        """The file of a shard in the folder, written unless it is there."""
        kept = self._folder / f"{number:05}.array_record"
        if not kept.with_suffix(NOTE).exists():
            ids, partial = [], kept.with_suffix(f".{uuid.uuid4().hex}.partial")
            super().write(partial, map(self._serialize, _noting(ids, self._shards[number]())))
            partial.replace(kept)
            partial.write_text(json.dumps({"clips": len(ids)} | self._note()))
            partial.replace(kept.with_suffix(NOTE))
        return kept

    def counted(self, number: int) -> Iterator[tuple[str, dict]]:
        """As many empty examples as the shard has clips, to be drawn once it is written."""
        note = json.loads((self._folder / f"{number:05}{NOTE}").read_text())
        yield from itertools.repeat(("", {}), note["clips"])

    def _serialize(self, clip: Clip) -> tuple[str, bytes]:
        record = {key: getattr(clip, key) for key in ("id", "label", *COLUMNS[:-1])}
        joints = np.ascontiguousarray(clip.joints, np.float32)
        record |= {"joints": joints, "num_frames": len(joints)}
        example = self._serializer.get_tf_example(self._features.encode_example(record))
        return clip.id, example.SerializeToString(deterministic=True)


class ClipBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """One TFDS dataset of clips; an instance per dataset, its name given at run time.

    Shard based, because TFDS's generator-based builders hold or shuffle the whole set through
    TensorFlow's file system once it exceeds 1 GB, as NTU does.
    """

    VERSION = tfds.core.Version(VERSION)

    def __init__(self, name: str, num_joints: int, data_dir: Path, shards, kept: Path, note):
        self.name = name
        self._num_joints, self._num_shards = num_joints, len(shards)
        super().__init__(data_dir=data_dir)
        self._writer = ShardWriter(self.info.features, shards, kept, note)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Skeleton clips, one record each; splits are indices kept in index.json.",
            features=make_features(self._num_joints),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager):
        del dl_manager
        counted = self._writer.counted
        return {SPLIT: [functools.partial(counted, n) for n in range(self._num_shards)]}

    def _example_writer(self) -> ShardWriter:
        return self._writer


def make_features(num_joints: int) -> tfds.features.FeaturesDict:
    """What TFDS is told about a record."""
    joints = tfds.features.Tensor(  # encoded, as TFDS asks where two dimensions are unknown
        shape=(None, None, num_joints, 3), dtype=np.float32, encoding="bytes"
    )
    numbers = dict.fromkeys(("label", *COLUMNS), tfds.features.Scalar(np.int32))
    return tfds.features.FeaturesDict({"id": tfds.features.Text(), "joints": joints, **numbers})


def _noting(ids: list[str], clips: Iterable[Clip]) -> Iterator[Clip]:
    for clip in clips:
        ids.append(clip.id)
        yield clip


def write_records(
    name: str,
    num_joints: int,
    shards: Sequence[Shard],
    data_dir: Path,
    note: Callable[[], dict] = dict,
) -> Path:
    """Writes `<data_dir>/<name>/<version>/` and returns that path.

    Finished shards are kept in `<data_dir>/shards`, and taken from there if they are there already.

    Args:
      note: what else to keep with the shard that has just been read; `read_notes` gives it back.

    Raises:
      UserError: what a shard raises, or no clip at all.
    """
    kept = data_dir / KEPT
    kept.mkdir(parents=True, exist_ok=True)
    with _quiet():
        builder = ClipBuilder(name, num_joints, data_dir, shards, kept, note)
        builder.download_and_prepare(download_dir=data_dir, file_format="array_record")
    if not builder.info.splits[SPLIT].num_examples:
        raise UserError(f"{name}: the source holds no usable clip")
    return Path(builder.data_dir)


def read_notes(data_dir: Path) -> list[dict]:
    """What was noted of each finished shard, in order."""
    return [json.loads(path.read_text()) for path in sorted((data_dir / KEPT).glob("*" + NOTE))]


def make_index(recipe: Recipe, records: Path) -> dict:
    """The index.json of a dataset whose records lie in `records`, as JSON types."""
    columns, num_persons, content, measured = _read_columns(records)
    if len(set(columns["id"])) != len(columns["id"]):
        raise ValueError(f"{recipe.name}: clip ids are not unique")
    files = sorted(path for path in records.iterdir() if path.is_file())
    return {
        "dataset": recipe.name,
        "version": VERSION,
        "graph": recipe.graph.as_mapping(),
        "classes": list(recipe.classes),
        "num_persons": num_persons,
        "feeder": recipe.feeder,
        "measured": measured,
        "content": content,
        "source": recipe.source,
        "expected": recipe.expected,
        "files": {path.name: path.stat().st_size for path in files},
        "checksums": {path.name: sha256(path) for path in files},
        "protocols": {
            name: {split: np.asarray(rows).tolist() for split, rows in splits.items()}
            for name, splits in recipe.protocols(columns).items()
        },
        "columns": {key: values.tolist() for key, values in columns.items()},
    }


def _read_columns(records: Path) -> tuple[Columns, int, str, dict]:
    """Every field but the joints as arrays [N], the most persons in a clip, a hash of all joints,
    and what the clips measure."""
    keys = ("id", "label", *COLUMNS)
    values, num_persons, census = {key: [] for key in keys}, 1, Census()
    content = hashlib.sha256()
    with _quiet():
        source = open_records(records)
        for record in map(source.__getitem__, range(len(source))):
            for key in keys:
                values[key].append(record[key])
            num_persons = max(num_persons, record["joints"].shape[1])
            census.add(record["joints"])
            add_joints(content, record["joints"])
    values["id"] = [name.decode() for name in values["id"]]
    columns = {key: np.asarray(value) for key, value in values.items()}
    return columns, num_persons, content.hexdigest(), census.summary()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides what TFDS prints and logs on its way; its errors still come through."""
    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
