"""`python -m hocslm_jax prepare`: raw clips in, a dataset that `open_store` opens out.

A dataset is built in a hidden folder beside its final place and moved there when it is whole; the
index is written last, in one step. So a killed prepare leaves either the dataset that was there
before or one that is seen as half-prepared, never a partial one that looks complete.
"""

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from hocslm_jax.data import folder, nw_ucla, protocols, quickstart
from hocslm_jax.data.archive import fingerprint
from hocslm_jax.data.builders import Recipe, Shard, make_index, write_records
from hocslm_jax.data.quickstart.generate import SUBJECTS
from hocslm_jax.data.store import INDEX, PREPARING, dataset_folder, read_index
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, UCLA20

CAPTIONS = "captions.jsonl"
BAD_FILES = "bad_files.json"

OnBad = Callable[[str, str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command for each dataset, with the options that it understands."""
    datasets = parser.add_subparsers(dest="dataset", metavar="DATASET", required=True)
    for name, (_, about, options) in DATASETS.items():
        dataset = datasets.add_parser(name, help=about, description=about)
        for flag, settings in (options | _COMMON).items():
            dataset.add_argument(flag, **settings)


def run(args: argparse.Namespace) -> None:
    """Prepares what the arguments ask for and prints a one-line summary."""
    bad: list[dict[str, str]] = []
    make_recipe, _, _ = DATASETS[args.dataset]
    recipe = make_recipe(args, lambda name, reason: bad.append({"file": name, "reason": reason}))
    print(prepare(recipe, args.data_dir, bad, allow_bad=args.allow_bad, force=args.force))


def prepare(
    recipe: Recipe, data_dir: Path, bad: list[dict[str, str]], *, allow_bad=False, force=False
) -> str:
    """Writes `<data_dir>/<recipe.name>/` unless it is already there.

    Args:
      bad: filled by the recipe's shards with {"file", "reason"} while they run.
      allow_bad: install the dataset without the bad files instead of failing.
      force: build it anew even if it is complete.

    Returns:
      The summary line.

    Raises:
      UserError: bad files, an unusable source, a dataset already made from another source.
    """
    start = time.monotonic()
    target = dataset_folder(recipe.name, data_dir)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create {target} ({error.strerror})") from None
    with _locked(target):
        index = None if force else _existing(target)
        if index is None:
            try:
                index = _build(recipe, target, bad, allow_bad)
            finally:
                shutil.rmtree(target / PREPARING, ignore_errors=True)
            return f"{_summary(index, target)}, {time.monotonic() - start:.1f} s"
        if index["source"] != recipe.source:
            raise UserError(f"{target} was made from another source; --force replaces it")
        return f"{_summary(index, target)}: already prepared, --force rebuilds it"


def _build(recipe: Recipe, target: Path, bad: list[dict[str, str]], allow_bad: bool) -> dict:
    """Builds in `target/.preparing`, then swaps the records in and writes the index."""
    staging = target / PREPARING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    with (
        tqdm(total=recipe.expected, unit=" clips", desc=recipe.name, disable=None) as bar,
        (staging / CAPTIONS).open("w") as captions,
    ):
        shards = [_observed(recipe, shard, bar.update, captions) for shard in recipe.shards]
        try:
            records = write_records(recipe.name, recipe.graph.num_joints, shards, staging)
        finally:
            _report_bad(bad, target)
    if bad and not allow_bad:
        raise UserError(
            f"{len(bad)} bad files, listed above and in {target / BAD_FILES}, nothing was "
            "prepared; mend or remove them, or leave them out with --allow-bad"
        )
    index = make_index(recipe, records)
    (target / INDEX).unlink(missing_ok=True)
    shutil.rmtree(target / index["version"], ignore_errors=True)
    records.rename(target / index["version"])
    if recipe.captions:
        (staging / CAPTIONS).replace(target / CAPTIONS)
    (staging / INDEX).write_text(json.dumps(index))
    (staging / INDEX).replace(target / INDEX)
    return index


def _observed(recipe: Recipe, shard: Shard, seen: Callable[[], None], captions) -> Shard:
    """The shard, with each clip counted and its caption noted as it passes."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def clips():
        for clip in shard():
            if clip.caption:
                entry = {"id": clip.id, "caption": clip.caption, "model": recipe.captions}
                captions.write(json.dumps(entry | {"prompt": "", "time": now}) + "\n")
            seen()
            yield clip

    return clips


def _existing(target: Path) -> dict | None:
    """The index of a complete dataset, or None."""
    try:
        return read_index(target)
    except UserError:
        return None


def _report_bad(bad: list[dict[str, str]], target: Path) -> None:
    (target / BAD_FILES).unlink(missing_ok=True)
    if bad:
        (target / BAD_FILES).write_text(json.dumps(bad, indent=1) + "\n")
    for entry in bad:
        print(f"bad file {entry['file']}: {entry['reason']}", file=sys.stderr)


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


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Holds the dataset's folder against a second prepare; the system frees it if we die."""
    handle = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UserError(f"another prepare is working on {target}; wait for it") from None
    except OSError:
        pass  # some network file systems cannot lock a folder
    try:
        yield
    finally:
        os.close(handle)


def _nw_ucla(args: argparse.Namespace, on_bad: OnBad) -> Recipe:
    return Recipe(
        name="nw_ucla",
        graph=UCLA20,
        classes=nw_ucla.CLASSES,
        shards=[lambda: nw_ucla.read_clips(args.source, on_bad)],
        protocols=lambda columns: protocols.public("nw_ucla", columns),
        source=fingerprint(args.source),
        expected=nw_ucla.NUM_CLIPS,
    )


def _quickstart(args: argparse.Namespace, on_bad: OnBad) -> Recipe:
    del on_bad  # generated clips are never bad
    subjects = protocols.rule("subject", quickstart.TRAIN_SUBJECTS, range(1, SUBJECTS + 1))
    return Recipe(
        name="quickstart",
        graph=NTU25,
        classes=quickstart.CLASSES,
        shards=[lambda: quickstart.clips(seed=args.seed)],
        protocols=lambda columns: protocols.split_rows({"xsub": subjects}, columns),
        source={"generator": "quickstart", "seed": args.seed},
        captions="grammar",
    )


def _folder(args: argparse.Namespace, on_bad: OnBad) -> Recipe:
    return folder.recipe(args.name, args.source, args.graph, on_bad)


_COMMON = {
    "--data-dir": dict(type=Path, default=Path("data"), help="default: %(default)s"),
    "--allow-bad": dict(action="store_true", help="leave bad files out instead of failing"),
    "--force": dict(action="store_true", help="rebuild what is already prepared"),
}
_SOURCE = {"--source": dict(type=Path, required=True, metavar="PATH")}

# dataset -> its Recipe from the arguments, what it is, its own options
DATASETS: dict[str, tuple[Callable[[argparse.Namespace, OnBad], Recipe], str, dict]] = {
    "nw_ucla": (
        _nw_ucla,
        "Northwestern-UCLA from its JSON files: --source is a folder, .zip or .tar.*",
        _SOURCE,
    ),
    "quickstart": (
        _quickstart,
        "a small generated dataset with captions; needs no source",
        {"--seed": dict(type=int, default=0, help="default: %(default)s")},
    ),
    "folder": (
        _folder,
        "your own clips: --source is a folder with clips.csv, .npy files and graph.json",
        _SOURCE
        | {
            "--name": dict(required=True, help="what to call the dataset"),
            "--graph": dict(metavar="NAME", help="ntu25 or ucla20 instead of graph.json"),
        },
    ),
}
