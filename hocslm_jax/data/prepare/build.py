"""Builds a dataset in a hidden folder beside its final place, and moves it there when complete.

The index is written last, in one step. So after a killed `prepare` there is either the earlier
dataset, or one that is recognised as half-prepared, but never a partial dataset that looks
complete. The next `prepare` resumes.
"""

import datetime
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from hocslm_jax.data.prepare import beam
from hocslm_jax.data.prepare.index import make_index
from hocslm_jax.data.prepare.writer import (
    BAD_FILES,
    KEPT,
    VERSION,
    BadFile,
    Recipe,
    Shard,
    read_notes,
    report_bad_files,
    write_records,
)
from hocslm_jax.data.store import INDEX, PREPARING, dataset_folder, read_index
from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import check_folder, held, make_folder, replaced, write_json

CAPTIONS = "captions.jsonl"
RECIPE = "recipe.json"  # the recipe of the finished shards in PREPARING


def prepare(
    recipe: Recipe,
    data_dir: Path,
    bad: list[BadFile],
    *,
    allow_bad: bool = False,
    force: bool = False,
    beam_options: str | None = None,
) -> str:
    """Writes `<data_dir>/<recipe.name>/` unless it exists.

    Args:
      bad: filled by the recipe's shards with {"file", "line", "reason"} while they run.
      allow_bad: install the dataset without the bad files instead of failing. Clips without any
        person are always left out, and listed.
      force: rebuild it even if it is complete.
      beam_options: if given, Apache Beam writes the shards with these options.

    Returns:
      The summary line.

    Raises:
      UserError: bad files, an unusable source, a dataset already made from another source.
    """
    start = time.monotonic()
    target = dataset_folder(recipe.name, data_dir)
    check_folder("--data-dir", data_dir)
    make_folder("--data-dir", target)
    with held(target.with_name(f".{recipe.name}.lock"), f"prepares {target}"):
        index = None if force else _existing(target)
        if index is None:
            try:
                index = _build(recipe, target, bad, allow_bad, beam_options)
            except UserError:
                shutil.rmtree(target / PREPARING, ignore_errors=True)
                raise
            shutil.rmtree(target / PREPARING, ignore_errors=True)
            return f"{_summary(index, target)}, {time.monotonic() - start:.1f} s"
        if index["source"] != recipe.source:
            raise UserError(f"{target} was made from another source; --force replaces it")
        return f"{_summary(index, target)}: already prepared, --force rebuilds it"


def _build(
    recipe: Recipe, target: Path, bad: list[BadFile], allow_bad: bool, beam_options: str | None
) -> dict:
    """Builds in `target/.preparing`, then swaps the records in and writes the index."""
    staging = target / PREPARING
    done = _stage(recipe, staging)
    gathered = _Notes(bad, recipe)
    with tqdm(
        total=recipe.expected, initial=done, unit=" clips", desc=recipe.name, disable=None
    ) as bar:
        shards = [gathered.listen(shard, bar.update) for shard in recipe.shards]
        try:
            if beam_options is not None:
                beam.write_shards(recipe, staging / KEPT, beam_options)
            records = write_records(recipe.name, recipe.point, shards, staging, gathered.note)
        finally:
            notes = read_notes(staging)
            bad[:] = gathered.everything(notes)
            report_bad_files(bad, target)
    faulty = [entry for entry in bad if not entry.get("empty")]
    if faulty and not allow_bad:
        raise UserError(
            f"{len(faulty)} bad files, listed in {target / BAD_FILES}; nothing was "
            "prepared; fix or remove them, or leave them out with --allow-bad"
        )
    index = make_index(recipe, records)
    (target / INDEX).unlink(missing_ok=True)
    shutil.rmtree(target / index["version"], ignore_errors=True)
    records.rename(target / index["version"])
    if recipe.captions:
        with replaced(target / CAPTIONS) as partial, partial.open("w") as file:
            file.writelines(line for note in notes for line in note["captions"])
    write_json(target / INDEX, index, indent=None)
    return index


def _stage(recipe: Recipe, staging: Path) -> int:
    """Empties the folder, keeping finished shards of this recipe; returns their number of clips."""
    identity = {"source": recipe.source, "shards": len(recipe.shards), "version": VERSION}
    try:
        same = json.loads((staging / RECIPE).read_text()) == identity
        read_notes(staging)
    except (OSError, ValueError):
        same = False
    for path in staging.iterdir() if staging.exists() else ():
        if not same:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif path.is_dir() and path.name != KEPT:
            shutil.rmtree(path)  # incomplete files of TFDS
    for path in (staging / KEPT).glob("*.partial"):
        path.unlink()
    staging.mkdir(exist_ok=True)
    write_json(staging / RECIPE, identity)
    return sum(note["clips"] for note in read_notes(staging))


class _Notes:
    """Collects reports of the shards besides clips, which are stored with each finished shard."""

    def __init__(self, bad: list[BadFile], recipe: Recipe):
        self._bad, self._writer, self._captions = bad, recipe.captions, []
        self._before = len(bad)  # reported before any shard is read, in every run
        self._noted = len(bad)
        self._time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def listen(self, shard: Shard, seen: Callable[[], None]) -> Shard:
        """The shard, with each clip counted and its caption noted as it is read."""

        def clips():
            for clip in shard():
                if clip.caption:
                    entry = {"id": clip.id, "caption": clip.caption, "model": self._writer}
                    line = json.dumps(entry | {"prompt": "", "time": self._time}) + "\n"
                    self._captions.append(line)
                seen()
                yield clip

        return clips

    def note(self) -> dict:
        """Everything reported since the last note."""
        note = {"bad": self._bad[self._noted :], "captions": self._captions}
        self._noted, self._captions = len(self._bad), []
        return note

    def everything(self, notes: list[dict]) -> list[BadFile]:
        """All bad files, including those of shards that an earlier run finished."""
        noted = [entry for note in notes for entry in note["bad"]]
        return [*self._bad[: self._before], *noted, *self._bad[self._noted :]]


def _existing(target: Path) -> dict | None:
    """The index of a complete dataset, or None."""
    try:
        return read_index(target)
    except UserError:
        return None


def _summary(index: dict, target: Path) -> str:
    splits = "; ".join(
        f"{name} " + ", ".join(f"{split} {len(rows):,}" for split, rows in parts.items())
        for name, parts in index["protocols"].items()
    )
    clips, size = len(index["columns"]["id"]), sum(index["files"].values())
    short = f" of {index['expected']:,}" if clips < (index["expected"] or 0) else ""
    return (
        f"{index['dataset']}: {clips:,}{short} clips, {len(index['classes'])} classes, {splits}; "
        f"{size:,} bytes in {target}"
    )
