"""`python -m hocslm_jax export`: writes a trained model as one file that needs no other code.

In: a run or a release. Out: the network from prepared clips x, float32 [B, M, T, V, C] of any batch
size B, to logits [B, classes]: as ONNX, or as StableHLO for JAX on CPUs, GPUs and TPUs. The
preprocessing of clips is described in JSON: in the metadata of an ONNX file, or in a file beside a
StableHLO file.
"""

import argparse
import dataclasses
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from hocslm_jax.errors import UserError, few
from hocslm_jax.files.atomic import check_folder, replaced, write_json
from hocslm_jax.models import build_model
from hocslm_jax.predict.load_model import find_models, load_run
from hocslm_jax.predict.trained_model import TrainedModel
from hocslm_jax.train.hub import find_folder

PLATFORMS = ("cpu", "cuda", "tpu")  # of StableHLO
INPUT, OUTPUT = "x", "logits"
KEY = "hocslm_jax"  # of the description in an ONNX file
# Settings of a `Feed` that only affect training; the others describe how test clips are prepared.
DRAWN = (
    *("streams", "repeat", "p_interval", "rotation", "crop", "mirror", "scale", "jitter"),
    *("drop_axis", "drop_joints", "graph"),
)


def run(args: argparse.Namespace) -> None:
    """Exports one model.

    Raises:
        UserError: no such model or several, an unsupported operation, or --out cannot be written.
    """
    logging.set_verbosity(logging.ERROR)
    check_folder("--out", args.out)
    if args.out.is_dir() or not args.out.suffix:
        raise UserError(f"--out {args.out}: give the name of a file, e.g. model.{args.format}")
    package = {"onnx": "onnx", "stablehlo": "flatbuffers"}[args.format]
    if not importlib.util.find_spec(package):
        raise UserError(f"writing this format needs the package {package}: pip install {package}")
    folders = find_models(find_folder(args.model))
    if len(folders) > 1:
        names = few(path.name for path in folders)
        raise UserError(f"{args.model} holds several models, {names}: export one of them at a time")
    build = in_float32 if args.format == "onnx" else build_model
    model = load_run(folders[0], build=build)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    {"onnx": write_onnx, "stablehlo": write_stablehlo}[args.format](model, args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, {len(model.classes)} classes")


def in_float32(settings, **options):
    """The network in float32, which all ONNX runtimes support."""
    return build_model({**settings, "dtype": "float32", "remat": False}, **options)


def write_onnx(model: TrainedModel, path: Path) -> None:
    """One ONNX file, with the description in its metadata.

    Raises:
        UserError: the network has an operation that `export.onnx_operators` lacks.
    """
    from onnx import helper

    from hocslm_jax.export.onnx_graph import to_onnx

    made = to_onnx(class_logits(model), model.feed.clip_shape(model.graph), (INPUT, OUTPUT))
    helper.set_model_props(made, {KEY: json.dumps(description(model))})
    with replaced(path) as partial:
        partial.write_bytes(made.SerializeToString())


def write_stablehlo(model: TrainedModel, path: Path) -> None:
    """A file for `jax.export.deserialize`, and the description as `path` with `.json` added."""
    (batch,) = jax.export.symbolic_shape("batch")
    shape = (batch, *model.feed.clip_shape(model.graph))
    x = jax.ShapeDtypeStruct(shape, np.float32)
    exported = jax.export.export(jax.jit(class_logits(model)), platforms=PLATFORMS)(x)
    with replaced(path) as partial:
        partial.write_bytes(exported.serialize())
    write_json(path.with_name(f"{path.name}.json"), description(model))


def class_logits(model: TrainedModel) -> Callable[[jax.Array], jax.Array]:
    """A function x [B, M, T, V, C] -> logits [B, classes], with the weights as constants."""
    variables = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), model.variables)

    def logits(x):
        output = model.model.apply(variables, x, train=False)
        return output[0] if model.fusion else output

    return logits


def description(model: TrainedModel) -> dict:
    """Classes, skeleton and preprocessing of clips, as JSON types."""
    graph, feed = model.graph, dataclasses.asdict(dataclasses.replace(model.feed, graph=""))
    return {
        "input": {
            "name": INPUT,
            "axes": ["batch", "person", "frame", "joint", "channel"],
            "shape": [None, *model.feed.clip_shape(graph)],
        },
        "output": {"name": OUTPUT, "axes": ["batch", "class"]},
        "classes": list(model.classes),
        "graph": {**graph.as_mapping(), "parents": list(graph.parents), "centre": graph.centre},
        "clip": {key: value for key, value in feed.items() if key not in DRAWN},
        "ntu": dataclasses.asdict(model.compat) if model.compat else None,
    }
