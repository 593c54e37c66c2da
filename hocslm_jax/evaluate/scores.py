"""Classification scores of a model on a set of clips, and the files that report them.

In: batches of `data.pipeline.eval_batches` and a `predict` function from clips to logits. Out:
`Scores`, one row per clip, from which ensembles, tables and figures are computed. They are saved in
`scores.npz`, so that nothing has to be recomputed on an accelerator.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hocslm_jax.data.store import Store
from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import replaced, write_json
from hocslm_jax.files.npy import read_npz

if TYPE_CHECKING:
    import jax  # slow to import; tables of saved scores do not need it

MAX_CLIPS = 2_000_000  # clips in a file of scores


@dataclass(frozen=True, eq=False)
class Scores:
    """Logits of N clips over C classes, each clip once."""

    ids: tuple[str, ...]
    labels: np.ndarray  # int32 [N]
    logits: np.ndarray  # float32 [N, C]
    classes: tuple[str, ...] = ()  # C names, if known
    parts: dict[str, "Scores"] = field(default_factory=dict)  # members of an ensemble, by stream

    @cached_property
    def ranks(self) -> np.ndarray:
        """Rank of the true class [N], 0 for the best; of equal logits the lower class is first."""
        true = np.take_along_axis(self.logits, self.labels[:, None].astype(np.int64), axis=1)
        earlier = np.arange(self.logits.shape[1]) < self.labels[:, None]
        ahead = (self.logits > true) | ((self.logits == true) & earlier)  # [N, C]
        return ahead.sum(axis=1)

    @property
    def total(self) -> int:
        return len(self.ids)

    @property
    def correct(self) -> int:
        return int((self.ranks < 1).sum())

    @property
    def top5_correct(self) -> int:
        return int((self.ranks < 5).sum())

    @property
    def top1(self) -> float:
        """Fraction in [0, 1]."""
        return self.correct / self.total

    @property
    def predictions(self) -> np.ndarray:
        """Best class of every clip, int [N]."""
        return self.logits.argmax(axis=1)


def collect_scores(
    predict: Callable[[np.ndarray], "jax.Array"],
    batches: Iterable[dict[str, np.ndarray]],
    store: Store,
    rows: np.ndarray | None = None,
) -> Scores:
    """Scores every clip of `batches` exactly once, over all hosts, sorted by row of the store.

    Arguments and errors are those of `collect_logits` and `make_scores`.
    """
    return make_scores(store, *collect_logits(predict, batches, store, rows))


def collect_logits(
    predict: Callable[[np.ndarray], "jax.Array"],
    batches: Iterable[dict[str, np.ndarray]],
    store: Store,
    rows: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The rows [N] of the clips in `batches`, ascending, and their logits [N, …, C].

    Args:
        predict: maps x [B, …] of this host to logits [B, …, C]; jitted and sharded by the caller.
        batches: this host's padded batches; all hosts must have the same number and size.
        store: provides ids and labels.
        rows: the rows that must be scored, e.g. `store.rows(protocol, "test")`. Without it, missing
            clips are not detected.

    Raises:
        UserError: a clip is scored twice or not at all.
    """
    all_rows, all_logits, pending = [], [], None
    for batch in batches:
        logits = predict(batch["x"])
        # The result is read one batch late, so that the device stays busy while the host waits.
        if pending is not None:
            all_logits.append(_host_rows(pending))
        pending = logits
        all_rows.append(np.where(np.asarray(batch["mask"]) > 0, batch["row"], -1))
    if pending is None:
        raise UserError(f"nothing to score in {store.name}: there are no batches")
    all_logits.append(_host_rows(pending))
    got, logits = _all_hosts(np.concatenate(all_rows), np.concatenate(all_logits))
    real = got >= 0
    got, logits = got[real], logits[real]
    _check_rows(got, rows, store)
    order = np.argsort(got)
    return got[order], logits[order]


def make_scores(store: Store, rows: np.ndarray, logits: np.ndarray, stream: str = "") -> Scores:
    """Scores from the logits [N, C] of `rows`. Raises UserError if some are not finite."""
    scores = Scores(
        ids=tuple(store.ids[row] for row in rows),
        labels=np.asarray(store.labels)[rows].astype(np.int32),
        logits=logits,
        classes=tuple(getattr(store, "classes", ())),
    )
    check_scores(scores, f"{store.name} {stream}".strip())
    return scores


def save_scores(path: str | Path, scores: Scores) -> None:
    """Writes `scores` as an .npz of plain arrays: ids, classes (both unicode), labels, logits."""
    names = {key: np.asarray(getattr(scores, key), np.str_) for key in ("ids", "classes")}
    with replaced(Path(path)) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **names, labels=scores.labels, logits=scores.logits)


def load_scores(path: str | Path) -> Scores:
    """Reads a file written by `save_scores`; nothing is unpickled.

    Raises:
        UserError: the file is missing, damaged, or holds no scores.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; evaluate the run first to get its scores")
    try:
        arrays = read_npz(path)
        ids, labels, logits = (arrays[name] for name in ("ids", "labels", "logits"))
    except KeyError as error:
        raise UserError(f"{path}: not a file of scores, it has no array {error}") from None
    except ValueError as error:
        raise UserError(
            f"{path}: not a readable file of scores ({error}); evaluate the run again"
        ) from None
    classes = arrays.get("classes", np.array([], np.str_))
    kinds = ids.dtype.kind + labels.dtype.kind + logits.dtype.kind
    shapes = ids.ndim == 1 and labels.shape == ids.shape and logits.shape[:-1] == ids.shape
    shapes = shapes and 0 < len(ids) <= MAX_CLIPS and logits.shape[1] > 0
    named = classes.dtype.kind == "U" and classes.shape in ((0,), logits.shape[1:])
    if kinds not in ("Uif", "Uuf") or not shapes or not named:
        raise UserError(f"{path}: ids, labels and logits do not fit together; evaluate it again")
    with np.errstate(all="ignore"):  # what is not finite is refused below
        values = (labels.astype(np.int32), logits.astype(np.float32))
    scores = Scores(tuple(ids.tolist()), *values, tuple(classes.tolist()))
    check_scores(scores, path)
    return scores


def check_scores(scores: Scores, where: object) -> None:
    """Refuses scores whose accuracy would be meaningless, e.g. because argmax prefers NaN.

    Raises:
        UserError: no clips, a repeated clip, a label outside the classes, or a logit that is not
            finite.
    """
    num_classes = scores.logits.shape[1]
    if not scores.total or len(set(scores.ids)) != scores.total:
        raise UserError(f"{where}: scores of no clip, or of one clip twice; evaluate it again")
    if scores.labels.min() < 0 or scores.labels.max() >= num_classes:
        raise UserError(f"{where}: a label is outside the {num_classes} classes of the logits")
    bad = ~np.isfinite(scores.logits).all(axis=1)
    if bad.any():
        first = scores.ids[int(bad.argmax())]
        raise UserError(
            f"{where}: logits of {bad.sum()} clips are not finite, the first {first}; "
            "the run diverged (lower the learning rate or clip gradients)"
        )


def confusion_matrix(scores: Scores, num_classes: int) -> np.ndarray:
    """Counts of clips by [true class, predicted class]; int64 [num_classes, num_classes]."""
    matrix = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(matrix, (scores.labels, scores.predictions), 1)
    return matrix


def write_report(workdir: str | Path, scores: Scores, classes: Sequence[str]) -> None:
    """Writes scores.npz, per_class.json, confusion.json and confusion.png.

    Raises:
        UserError: another number of class names than of logits.
    """
    from hocslm_jax.draw.confusion import save_confusion  # slow to import

    if len(classes) != scores.logits.shape[1]:
        raise UserError(f"{len(classes)} class names for {scores.logits.shape[1]} logits")
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    matrix = confusion_matrix(scores, len(classes))
    per_class = []
    for name, row, hits in zip(classes, matrix.tolist(), matrix.diagonal().tolist(), strict=True):
        accuracy = hits / sum(row) if sum(row) else None
        per_class.append({"class": name, "correct": hits, "total": sum(row), "accuracy": accuracy})
    save_scores(workdir / "scores.npz", scores)
    write_json(workdir / "per_class.json", per_class)
    confusion = {"classes": list(classes), "rows": "true class", "counts": matrix.tolist()}
    write_json(workdir / "confusion.json", confusion, indent=None)
    with replaced(workdir / "confusion.png") as partial:
        save_confusion(matrix, classes, partial)


def _host_rows(logits: "jax.Array") -> np.ndarray:
    """This host's rows of the logits, float32 [B, …, C], even if the array spans hosts."""
    if getattr(logits, "is_fully_addressable", True):
        return np.asarray(logits, np.float32)
    # Copies of the same rows on several devices have the same start; one is kept.
    shards = {shard.index[0].start or 0: shard.data for shard in logits.addressable_shards}
    return np.concatenate([np.asarray(shards[start], np.float32) for start in sorted(shards)])


def _all_hosts(rows: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concatenates the rows and logits of all hosts."""
    if len(rows) != len(logits):
        raise ValueError(f"predict gave {len(logits)} rows of logits for {len(rows)} clips")
    import jax
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return rows, logits
    rows, logits = multihost_utils.process_allgather((rows, logits))  # [hosts, N], [hosts, N, C]
    # Hosts that share a replica of the model read the same shard; it is kept once.
    _, hosts = np.unique(rows, axis=0, return_index=True)
    return np.concatenate(rows[hosts]), np.concatenate(logits[hosts])


def _check_rows(got: np.ndarray, expected: np.ndarray | None, store: Store) -> None:
    unique, counts = np.unique(got, return_counts=True)
    wrong = [(unique[counts > 1], "were scored more than once (each host reads its own shard)")]
    if expected is not None:
        wrong.append((np.setdiff1d(expected, unique), "were not scored"))
        wrong.append((np.setdiff1d(unique, expected), "are of another split"))
    for rows, what in wrong:
        if len(rows):
            first = store.ids[rows[0]]
            raise UserError(f"{store.name}: {len(rows)} clips {what}, the first {first}")
