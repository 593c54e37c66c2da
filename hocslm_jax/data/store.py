"""A prepared dataset on disk, opened for random access.

In: `<data_dir>/<dataset>/` as `python -m hocslm_jax prepare` leaves it: ArrayRecord files of TFDS
and an `index.json` with everything but the joints. Out: a Store. Its metadata is in memory; its
joints are read one record at a time, or all at once into memory. Row i of the index is record i.
"""

import dataclasses
import functools
import json
import re
from pathlib import Path

import numpy as np

from hocslm_jax.data.channels import CHANNELS, USUAL
from hocslm_jax.data.protocols import validation
from hocslm_jax.data.records import Damaged, Joints, Pinned, open_joints, pin
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph, resolve_graph

INDEX = "index.json"
PREPARING = ".preparing"  # folder in which a dataset is built; it remains if prepare is interrupted
CACHES = ("", "ram")
COLUMNS = ("subject", "camera", "setup", "replication", "num_frames")

_KEYS = {
    *("dataset", "version", "graph", "classes", "num_persons", "source", "expected"),
    *("files", "protocols", "columns"),
}
# Feeders of datasets that were prepared before the index recorded the feeder.
FEEDER_OF = {"nw_ucla": "nw_ucla", **dict.fromkeys(("ntu60", "ntu120", "ntu120_mini"), "ntu")}
FEEDER_OF["quickstart"] = "ntu"

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COMMANDS = {
    "nw_ucla": "nw_ucla --source ARCHIVE_OR_FOLDER",
    "ntu60": "ntu60 --source ARCHIVE_OR_FOLDER",
    "ntu120": "ntu120 --source PART_1 --source PART_2",
    "ntu120_mini": "ntu120_mini --source ARCHIVE_OR_FOLDER",
    "quickstart": "quickstart",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """Metadata in memory, joints on disk or in memory too.

    Attributes:
      name: of the dataset, and of its folder.
      graph: the skeleton.
      classes: class names in label order.
      num_persons: the most persons in any clip.
      ids: clip ids; position = row.
      labels: int32 [N].
      columns: subject, camera, setup, replication, num_frames, each int32 [N].
      protocols: {protocol: {split: rows}}, rows int32, ascending; the index's and those of
        `protocols.validation`.
      path: the folder with the records.
      feeder: the feeder whose protocol the clips were prepared for, so that it takes them as they
        are; "" if there is none.
      channels: of the clips, one of `channels.CHANNELS`.
      reading: the unusual settings with which the files of an own dataset were read; see
        `readers.clips.Reading`.
      compat: how NTU's files were read, the fields of `ntu.bodies.Compat`; {} for other files.
      measured: measurements of the clips, see `measure.Census`; {} if the index has none.
      content: sha256 of the joints of all clips; "" if an older version prepared the dataset.
      cache: where the joints are; "" for on disk, "ram" for in memory.
      unseen: labels of the classes that nothing trains on, see `class_splits.hold_out`.
    """

    name: str
    graph: Graph
    classes: tuple[str, ...]
    num_persons: int
    ids: tuple[str, ...]
    labels: np.ndarray
    columns: dict[str, np.ndarray]
    protocols: dict[str, dict[str, np.ndarray]]
    path: Path
    feeder: str = ""
    channels: str = USUAL
    reading: dict = dataclasses.field(default_factory=dict)
    compat: dict = dataclasses.field(default_factory=dict)
    measured: dict = dataclasses.field(default_factory=dict)
    content: str = ""
    cache: str = ""
    unseen: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def about(self) -> dict:
        """What prediction must know about the clips of a run, as JSON types."""
        size = self.measured.get("size", [0.0, 0.0, 0.0])[1]
        unusual = {"reading": self.reading} if self.reading else {}
        unusual |= {} if self.channels == USUAL else {"channels": self.channels}
        return {"compat": self.compat, "size": size, **unusual}

    def joints(self, row: int) -> np.ndarray:
        """The clip of that row, float32 [T, M, V, C], as prepared. Thread-safe.

        A fresh array, or with cache "ram" a read-only view.
        """
        try:
            return self._joints[int(row)]
        except Damaged:
            raise self._damaged(row) from None

    def rows(self, protocol: str, split: str) -> np.ndarray:
        """Rows of one split, int32, ascending.

        Raises:
          UserError: unknown protocol or split (lists the known ones), or a split without clips.
        """
        for kind, key, known in (
            ("protocol", protocol, self.protocols),
            ("split", split, self.protocols.get(protocol, ())),
        ):
            if key not in known:
                raise UserError(f"{self.name} has no {kind} {key!r}; known: {', '.join(known)}")
        rows = self.protocols[protocol][split]
        if not len(rows):
            raise UserError(f"{self.name}: the {split} split of {protocol} has no clips")
        return rows

    def has_split(self, protocol: str, split: str) -> bool:
        """Whether there are clips in that split."""
        return len(self.protocols.get(protocol, {}).get(split, ())) > 0

    @functools.cached_property
    def _joints(self) -> Joints | Pinned:
        joints = open_joints(self.path)
        if not self.cache:
            return joints
        frames = int(self.columns["num_frames"].sum())
        numbers = self.num_persons * self.graph.num_joints * len(self.channels)
        try:
            return pin(joints, frames * numbers)
        except Damaged as error:
            raise self._damaged(error.args[0]) from None

    def _damaged(self, row: int) -> UserError:
        folder = self.path.parent
        return UserError(
            f"{self.path}: the record of clip {self.ids[row]} is damaged; run: "
            f"{_command(folder)} --force"
        )

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != "_joints"}


def open_store(dataset: str, data_dir: str | Path, cache: str = "") -> Store:
    """Opens `<data_dir>/<dataset>`.

    Args:
      cache: "" reads each clip on demand; "ram" reads all of them now and keeps them,
        12 bytes a joint: some 1.6 GB for NTU60 and 3 GB for NTU120. A process that receives the
        pickled store reads them again.

    Raises:
      UserError: not prepared, half-prepared or damaged, with the command that repairs it; or an
        unknown cache.
    """
    if cache not in CACHES:
        raise UserError(f"data.cache {cache!r}: expected one of {', '.join(map(repr, CACHES))}")
    folder = dataset_folder(dataset, data_dir)
    index = read_index(folder)
    columns = {key: np.asarray(index["columns"][key]) for key in ("id", "label", *COLUMNS)}
    protocols = {
        name: {split: np.asarray(rows, np.int32) for split, rows in splits.items()}
        for name, splits in index["protocols"].items()
    }
    _check_rows(folder, index["classes"], columns, protocols)
    store = Store(
        name=index["dataset"],
        graph=resolve_graph(index["graph"]),
        classes=tuple(index["classes"]),
        num_persons=index["num_persons"],
        ids=tuple(index["columns"]["id"]),
        labels=columns["label"].astype(np.int32),
        columns={key: columns[key].astype(np.int32) for key in COLUMNS},
        protocols=protocols | validation(index["dataset"], protocols, columns),
        path=folder / index["version"],
        feeder=index.get("feeder", FEEDER_OF.get(index["dataset"], "")),
        channels=index.get("channels", USUAL),
        reading=index.get("reading", {}),
        compat=index["source"].get("compat", {}),
        measured=index.get("measured", {}),
        content=index.get("content", ""),
        cache=cache,
    )
    if cache:
        len(store._joints)
    return store


def dataset_folder(dataset: str, data_dir: str | Path) -> Path:
    """`<data_dir>/<dataset>`, existing or not.

    Raises:
      UserError: the name has other characters than lower-case letters, digits and underscores.
    """
    if not _NAME.fullmatch(dataset):
        raise UserError(
            f"dataset name {dataset!r}: use lower-case letters, digits and _, a letter first"
        )
    return Path(data_dir).expanduser() / dataset


def read_index(folder: Path) -> dict:
    """The index of a completely prepared dataset.

    Raises:
      UserError: no index, a damaged one, or records that are missing or of another size.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        _check_index(index)
        files = {folder / index["version"] / name: size for name, size in index["files"].items()}
    except FileNotFoundError:
        half = (folder / PREPARING).exists() or any(folder.glob("[0-9]*.*.*"))
        state = "half-prepared: an earlier prepare was interrupted" if half else "not prepared"
        raise UserError(f"{folder} is {state}; run: {_command(folder)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise UserError(f"{folder / INDEX} is damaged; run: {_command(folder)} --force") from None
    for path, size in files.items():
        if not path.is_file() or path.stat().st_size != size:
            raise UserError(
                f"{path} is missing or not {size} bytes long; run: {_command(folder)} --force"
            )
    return index


def _check_index(index: dict) -> None:
    """Raises an error that `read_index` reports as damage: a wrong key or name."""
    if missing := _KEYS - set(index):
        raise KeyError(missing)
    if any(Path(name).name != name for name in [index["version"], *index["files"]]):
        raise ValueError("a file outside the folder")
    names = [*index["classes"], *index["columns"]["id"], index["dataset"]]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("a name that is not text")
    if type(index["num_persons"]) is not int or index["num_persons"] < 1:
        raise ValueError("an impossible number of persons")
    reading = index.get("reading", {})
    if index.get("channels", USUAL) not in CHANNELS or not isinstance(reading, dict):
        raise ValueError("impossible channels or an impossible reading")
    for key in ("label", *COLUMNS):
        np.asarray(index["columns"][key], np.int32)
    for splits in index["protocols"].values():
        for rows in splits.values():
            if np.asarray(rows, np.int32).ndim != 1:
                raise ValueError("a split that is not a list of rows")


def _check_rows(folder: Path, classes: list, columns: dict, protocols: dict) -> None:
    """Raises UserError unless columns, labels and splits fit the clips."""
    count, labels = len(columns["id"]), columns["label"]
    fits = count and all(len(values) == count for values in columns.values())
    known = fits and 0 <= labels.min() <= labels.max() < len(classes)
    splits = [rows for splits in protocols.values() for rows in splits.values() if len(rows)]
    if not known or not all(0 <= rows.min() <= rows.max() < count for rows in splits):
        raise UserError(
            f"{folder / INDEX}: its columns, labels and splits do not fit together; run: "
            f"{_command(folder)} --force"
        )


def _command(folder: Path) -> str:
    what = _COMMANDS.get(folder.name, f"folder --name {folder.name} --source FOLDER")
    return f"python -m hocslm_jax prepare {what} --data-dir {folder.parent}"
