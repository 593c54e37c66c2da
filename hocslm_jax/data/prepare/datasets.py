"""The datasets that `prepare` knows: their options, and functions that make their Recipes."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hocslm_jax.data import protocols
from hocslm_jax.data.channels import CHANNELS
from hocslm_jax.data.gaps import LONGEST
from hocslm_jax.data.prepare import filmed, folder, nw_ucla, quickstart
from hocslm_jax.data.prepare.archive import fingerprint
from hocslm_jax.data.prepare.importers import ctrgcn_npz, pyskl
from hocslm_jax.data.prepare.ntu import reader as ntu
from hocslm_jax.data.prepare.ntu.bodies import COMPAT, change
from hocslm_jax.data.prepare.quickstart.recordings import SUBJECTS
from hocslm_jax.data.prepare.readers.arrays import check_axes
from hocslm_jax.data.prepare.readers.clips import Reading
from hocslm_jax.data.prepare.writer import OnBad, Recipe
from hocslm_jax.errors import UserError
from hocslm_jax.files.text import read_json, read_lines
from hocslm_jax.graph import NTU25, UCLA20, resolve_graph
from hocslm_jax.pose.estimators import OPTIONS

# NTU files that other projects prepared -> function (dataset, file, on_bad) -> Recipe
FOREIGN = {"ctrgcn-npz": ctrgcn_npz.recipe, "pyskl": pyskl.recipe}
# The same formats for any dataset -> function (name, file, on_bad, graph, classes) -> Recipe
OWN = {"ctrgcn-npz": ctrgcn_npz.own_recipe, "pyskl": pyskl.own_recipe}


def _nw_ucla(name: str, on_bad: OnBad, source: Path | None = None) -> Recipe:
    source = _needed(source)
    return Recipe(
        name=name,
        graph=UCLA20,
        classes=nw_ucla.CLASSES,
        shards=[lambda: nw_ucla.read_clips(source, on_bad)],
        protocols=lambda columns: protocols.public("nw_ucla", columns),
        source=fingerprint(source),
        expected=nw_ucla.NUM_CLIPS,
        feeder="nw_ucla",
    )


def _ntu(
    name: str,
    on_bad: OnBad,
    source: Sequence[Path] | None = None,
    workers: int = 1,
    compat: Sequence[str] = (),
    made_by: tuple[str, str] | None = None,
    protocol: str | None = None,
) -> Recipe:
    if not made_by:
        settings = change(COMPAT[name], compat)
        return ntu.recipe(name, _needed(source), on_bad, workers=workers, compat=settings)
    kind, path = made_by
    if kind not in FOREIGN:
        raise UserError(f"--from {kind}: expected one of {', '.join(FOREIGN)}")
    for flag, value in (("source", source), ("compat", compat)):
        if value:
            raise UserError(f"--{flag} is for raw files; leave it out with --from")
    if protocol and kind != "ctrgcn-npz":
        raise UserError(f"--protocol is for ctrgcn-npz; {kind} files name their protocols")
    options = {"protocol": protocol} if protocol else {}
    return FOREIGN[kind](name, Path(path), on_bad, **options)


def _ntu120_mini(
    name: str, on_bad: OnBad, source: Sequence[Path] | None = None, workers: int = 1
) -> Recipe:
    return ntu.mini_recipe(_needed(source), on_bad, workers=workers)


def _quickstart(name: str, on_bad: OnBad, seed: int = 0) -> Recipe:
    del on_bad  # no generated clip is bad
    subjects = protocols.rule("subject", quickstart.TRAIN_SUBJECTS, range(1, SUBJECTS + 1))
    return Recipe(
        name=name,
        graph=NTU25,
        classes=quickstart.CLASSES,
        shards=[lambda: quickstart.clips(seed=seed)],
        protocols=lambda columns: protocols.split_rows({"xsub": subjects}, columns),
        source={"generator": "quickstart", "seed": seed},
        feeder="ntu",
        captions="grammar",
    )


def _folder(
    name: str,
    on_bad: OnBad,
    source: Path | None = None,
    graph: str | None = None,
    made_by: tuple[str, str] | None = None,
    classes: str | None = None,
    channels: str = "",
    missing: float | None = None,
    gap: int = LONGEST,
    layout: str = "",
    axes: str = "",
) -> Recipe:
    if gap < 0:
        raise UserError(f"--gap {gap}: a number of frames is needed, 0 fills nothing")
    if missing is not None and not math.isfinite(missing):
        raise UserError(f"--missing {missing}: a number is needed; NaN is missing anyway")
    if layout:
        resolve_graph(layout)
    reading = Reading(missing=missing, gap=gap, layout=layout, axes=check_axes(axes))
    if not made_by:
        if classes:
            raise UserError("--classes is for --from; a folder has its own classes.txt")
        return folder.recipe(name, _needed(source), graph, on_bad, reading, channels)
    kind, path = made_by
    if kind not in FOREIGN or source or not graph:
        raise UserError(
            f"--from takes {' or '.join(FOREIGN)} and a file, with --graph NAME or --graph "
            "FILE.json and without --source"
        )
    skeleton = resolve_graph(read_json(graph) if graph.endswith(".json") else graph)
    names = [line for _, line in read_lines(classes)] if classes else []
    if axes or layout:
        raise UserError(f"--axes and --layout are for --source; {kind} files are read one way")
    if kind != "pyskl" and (channels or reading != Reading()):
        raise UserError(f"--channels, --missing and --gap are for --source and pyskl, not {kind}")
    options = {"reading": reading, "channels": channels} if kind == "pyskl" else {}
    return OWN[kind](name, Path(path), on_bad, skeleton, names, **options)


def _videos(name: str, on_bad: OnBad, source: Path | None = None, **options) -> Recipe:
    return filmed.recipe(name, _needed(source), on_bad, **options)


def _needed(source):
    if not source:
        raise UserError("--source is missing: name the files to read")
    return source


_SOURCE = {"--source": dict(type=Path, metavar="PATH")}
_NTU = {
    "--source": dict(
        type=Path,
        action="append",
        metavar="PATH",
        help="folder, .zip or .tar.* with .skeleton files; one --source for each",
    ),
    "--workers": dict(
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that parse; default: one for each core",
    ),
    "--compat": dict(
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change how raw files are read, e.g. close_gaps=off",
    ),
    "--beam": dict(
        metavar="OPTIONS",
        help="let Apache Beam write the shards, e.g. --beam='--runner=DirectRunner' (docs/data.md)",
    ),
    "--from": dict(
        nargs=2,
        dest="made_by",
        metavar=("FORMAT", "FILE"),
        help=f"instead of --source, a file of another project: {' or '.join(FOREIGN)}",
    ),
    "--protocol": dict(
        metavar="NAME", help="protocol of a renamed ctrgcn-npz file: xsub, xview or xset"
    ),
}

# kind of dataset -> function (name, on_bad, **options) -> Recipe, its description, its options
DATASETS: dict[str, tuple[Callable[..., Recipe], str, dict]] = {
    "nw_ucla": (
        _nw_ucla,
        "Northwestern-UCLA from its JSON files: --source is a folder, .zip or .tar.*",
        _SOURCE,
    ),
    "ntu60": (_ntu, "NTU RGB+D 60 from its .skeleton files, or from files of other projects", _NTU),
    "ntu120": (_ntu, "NTU RGB+D 120 likewise; its .skeleton files come in two parts", _NTU),
    "ntu120_mini": (
        _ntu120_mini,
        "A061 to A120 of three subjects of NTU RGB+D 120: 120 clips train, 60 test",
        {key: _NTU[key] for key in ("--source", "--workers")},
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
            "--graph": dict(
                metavar="NAME",
                help="a layout (docs/formats.md) instead of graph.json; with --from a file too",
            ),
            "--channels": dict(
                default="",
                choices=("", *CHANNELS),
                help="channels of a joint to keep, c is the confidence; default: as the first file",
            ),
            "--layout": dict(
                metavar="NAME",
                default="",
                help="layout of the files' joints, if not the graph's; they are mapped by name",
            ),
            "--axes": dict(
                metavar="LETTERS",
                default="",
                help="order of the axes of arrays, e.g. TVC, MTVC, CTVM (docs/formats.md)",
            ),
            "--missing": dict(
                type=float,
                metavar="VALUE",
                help="what the files write for each coordinate of a missing joint, besides NaN",
            ),
            "--gap": dict(
                type=int,
                default=LONGEST,
                metavar="FRAMES",
                help="longest gap of missing joints to fill, in frames (default: %(default)s)",
            ),
            "--from": _NTU["--from"],
            "--classes": dict(metavar="FILE", help="with --from: class names in label order"),
        },
    ),
    "videos": (
        _videos,
        "your own RGB videos: --source is a folder of them, in a folder for each label",
        _SOURCE
        | {
            "--name": dict(required=True, help="what to call the dataset"),
            "--labels": dict(
                type=Path,
                metavar="CSV",
                help="a table with the columns file and label, optionally split, subject, …",
            ),
            "--skeletons": dict(
                type=Path, metavar="DIR", help="keep skeletons here (default: SOURCE_skeletons)"
            ),
            "--graph": dict(
                default="", metavar="NAME", help="layout, e.g. ntu25 (default: the estimator's)"
            ),
        }
        | OPTIONS,
    ),
}
