"""Initial weights of a run: from another run, a release, or a PyTorch CTR-GCN.

In: a workdir, a release's folder, a hub id or a file of weights, and the weights that a stage
needs. Out: these weights, placed as in the run. Layers that do not fit are an error that names
them, unless the user lets them start at random.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hocslm_jax import hosts
from hocslm_jax.errors import UserError, few
from hocslm_jax.files.atomic import read_json
from hocslm_jax.graph import Graph, resolve_graph
from hocslm_jax.hosts import say
from hocslm_jax.train import checkpoint, release_files, same_config
from hocslm_jax.train.hub import find_folder
from hocslm_jax.train.stages import Stage
from hocslm_jax.train.state_dicts import SUFFIXES, convert_file

# Settings of a model that do not change its weights.
FREE = ("dropout", "dtype", "remat")


@dataclasses.dataclass(frozen=True)
class Source:
    """Weights that a run can start from.

    Attributes:
      name: as given by the user.
      model: its `config.model`; for a file of weights, the settings that follow from them.
      joints, classes: names, if known.
      shapes: shapes of its variables, by names such as "params/encoder/data_bn/scale".
      read: reads variables, given a nested dict of `jax.ShapeDtypeStruct` with shardings.
    """

    name: str
    model: dict
    joints: tuple[str, ...]
    classes: tuple[str, ...]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[dict], dict]


def is_here(name: str | Path) -> bool:
    """Whether weights are on this machine; those of a hub id may have to be downloaded."""
    path = Path(os.path.expanduser(name))
    return path.is_file() or release_files.is_release(path) or (path / "checkpoints").is_dir()


def open_source(name: str | Path) -> Source:
    """Opens the weights of a workdir, a release's folder, a hub id or a file.

    Raises:
        UserError: it does not exist, or is damaged.
    """
    path = Path(os.path.expanduser(name))
    if path.suffix in SUFFIXES and not path.is_dir():
        found = convert_file(path)
        return _of_arrays(name, found.model, {}, flat(found.variables))
    # Downloaded once if hosts share a cache; a shared folder may show another host's files late.
    found = Path(hosts.on_first(lambda: str(find_folder(name))))
    folder = found if found == path else find_folder(name)
    if not hosts.on_first(lambda: release_files.is_release(folder)):
        return _of_run(folder, name)
    card = release_files.read_card(folder)
    model = card["config"].get("model")
    model = model if isinstance(model, dict) else {}
    return _of_arrays(name, model, card["model"], release_files.read_tensors(folder))


def _of_run(folder: Path, name: str | Path) -> Source:
    saved = checkpoint.read_run(folder)["config"]
    about = hosts.on_first(lambda: _about_run(folder))
    return Source(
        name=str(name),
        model=saved["model"],
        joints=_joints(about),
        classes=_classes(about),
        shapes=checkpoint.stored_shapes(folder),
        read=lambda wanted: checkpoint.restore_variables(folder, wanted),
    )


def _about_run(folder: Path) -> dict:
    about = folder / "model.json"
    return read_json(about, "rerun its training") if about.is_file() else {}


def _of_arrays(name, model: dict, about: dict, arrays: dict[str, np.ndarray]) -> Source:
    def read(wanted: dict) -> dict:
        placed = {
            key: jax.device_put(arrays[key].astype(leaf.dtype), leaf.sharding)
            for key, leaf in flat(wanted).items()
        }
        return nested(placed)

    shapes = {key: value.shape for key, value in arrays.items()}
    return Source(str(name), model, _joints(about), _classes(about), shapes, read)


def _classes(about: dict) -> tuple[str, ...]:
    classes = about.get("classes")
    return tuple(classes) if isinstance(classes, list) else ()


def _joints(model: dict) -> tuple[str, ...]:
    try:
        return resolve_graph(model["graph"]).joints
    except (UserError, KeyError):
        return ()


def take(source: Source, wanted: dict, config, graph: Graph, stage: Stage) -> dict:
    """Takes the `wanted` variables that the source has, as {"params", "batch_stats"}.

    Args:
        wanted: {"params", "batch_stats"} of `jax.ShapeDtypeStruct` with shardings.
        config: config of the run that starts.
        graph: skeleton of that run.
        stage: if it is `partial`, layers that do not fit are left out, and printed.

    Raises:
        UserError: layers, joints or model settings do not fit; if the stage is partial: no layer
            fits, or one would start at random and never train.
    """
    expected = flat(wanted)
    groups = {name.split("/")[1] for name in expected}
    stored = {n: s for n, s in source.shapes.items() if n.split("/")[1] in groups}
    fits = {name: leaf for name, leaf in expected.items() if stored.get(name) == leaf.shape}
    if not stage.partial:
        _check(source, stored, expected, config, graph)
    elif not fits:
        raise UserError(f"{source.name} has no layer that fits this model: leave out start=")
    else:
        _say_what_fits(source.name, set(stored), set(expected), set(fits), stage)
    found = source.read({"params": {}, "batch_stats": {}} | nested(fits))
    return {"params": {}, "batch_stats": {}} | found


def _say_what_fits(name: str, stored: set, expected: set, fits: set, stage: Stage) -> None:
    new, unused = sorted(layers(expected - fits)), sorted(layers(stored - expected))
    if fixed := [layer for layer in new if layer.partition("/")[0] not in stage.train]:
        raise UserError(
            f"{few(fixed, most=3)} of {name} do not fit and would stay random: leave "
            "out freeze=, or start from weights that fit"
        )
    say(f"{len(fits)} of {len(expected)} arrays of the model come from {name}")
    for what, names in (("start at random", new), ("are left out", unused)):
        if names:
            say(f"layers that do not fit and {what}: {', '.join(names)}")


def _check(source: Source, stored: dict, expected: dict, config, graph: Graph) -> None:
    """Raises UserError with the first reason why a source does not fit this model."""
    check_model(source.model, config, source.name)
    shapes = {name: leaf.shape for name, leaf in expected.items()}
    wrong = sorted(name for name, _ in stored.items() ^ shapes.items())
    how = "partial=true starts such layers at random"
    if wrong:
        first = wrong[0]
        pair = f"{stored.get(first, 'absent')} there, {shapes.get(first, 'absent')} here"
        raise UserError(
            f"{source.name} does not fit this model in {few(sorted(layers(wrong)), most=3)} "
            f"({first} is {pair}); {how}"
        )
    if source.joints and source.joints != graph.joints:
        pairs = zip(source.joints, graph.joints, strict=True)
        v, there, here = next((v, *pair) for v, pair in enumerate(pairs) if pair[0] != pair[1])
        raise UserError(
            f"{source.name} was trained on other joints: joint {v} is {there[:40]!r} there, "
            f"{here[:40]!r} here; partial=true uses its weights anyway"
        )


def check_model(saved: dict, config, where: str | Path) -> None:
    """Raises UserError if the model settings of weights, where known, differ from the config's.

    Args:
        saved: the model settings of the weights.
        where: path of the weights.
    """
    ours = checkpoint.plain(config.model)
    known = {name: value for name, value in saved.items() if name in ours and name not in FREE}
    ours = {name: ours[name] for name in known}
    advice = "its weights do not fit: start from another run, or use its model settings"
    same_config.check_config({"model": known}, {"model": ours}, where, advice=advice)


def layers(names) -> set[str]:
    """The layers of variables: "encoder/block1/ltc/bn" of "params/encoder/block1/ltc/bn/scale"."""
    return {name.partition("/")[2].rpartition("/")[0] for name in names}


def flat(tree: dict) -> dict:
    return flatten_dict(tree, sep="/")


def nested(leaves: dict) -> dict:
    return unflatten_dict(leaves, sep="/")
