"""`python -m hocslm_jax convert`: converts a PyTorch CTR-GCN into a release.

In: a file with a state dict, the skeleton and the class names of its training. Out: a release with
the same logits, which can predict, be evaluated and start runs. Sizes follow from the tensors;
other settings, such as the stream, default to those of the public code.
"""

import argparse
import math
from pathlib import Path

import jax

from hocslm_jax.data.channels import CHANNELS
from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import check_folder, write_text
from hocslm_jax.files.text import read_json, read_lines
from hocslm_jax.graph import NTU25, UCLA20, Graph, resolve_graph
from hocslm_jax.predict.load_model import NTU, load_run
from hocslm_jax.sharding import path_name
from hocslm_jax.train import checkpoint, experiment, release_files
from hocslm_jax.train.state_dicts import Converted, convert_file

# (joints, classes) -> the dataset and protocol that such weights usually come from.
USUAL = {
    (NTU25.joints, 60): ("ntu60", "xsub"),
    (NTU25.joints, 120): ("ntu120", "xsub"),
    (UCLA20.joints, 10): ("nw_ucla", "xview"),
}
CARD = """\
---
library_name: hocslm_jax
tags: [skeleton-action-recognition, jax]
---

# {name}

CTR-GCN, stream `{stream}`: {parameters:,} parameters, converted from the PyTorch file `{source}`.
Its licence, and the data it was trained on, are those of that file.

- **Input**: {joints} joints of the skeleton `{graph}`, channels {channels}, {persons} person(s),
  {frames} frames.
- **Output**: one of {classes}.

```bash
python -m hocslm_jax predict --checkpoint {name} clip.skeleton
```
"""


def run(args: argparse.Namespace) -> None:
    """Writes the release.

    Raises:
        UserError: as `convert_file`, or the skeleton or class names have other sizes.
    """
    check_folder("--out", args.out)
    if args.out.is_dir() and any(args.out.iterdir()):
        raise UserError(f"--out {args.out} holds other files: use a new folder")
    graph, names = read_graph(args.graph), read_names(args.classes)
    found = convert_file(args.weights)
    check_sizes(found, graph, names, args)
    data = data_settings(args, graph, found)
    leaves = jax.tree.leaves_with_path(found.variables["params"])
    shapes = {path_name(path): list(leaf.shape) for path, leaf in leaves}
    config = experiment.defaults()
    config.model.update(found.model)
    config.data.update(data)
    about = {
        "config": checkpoint.plain(config),
        "model": {
            "classes": names,
            "graph": graph.as_mapping(),
            "clips": {"channels": data["channels"]},
            "lm_gain": None,
            "parameters": sum(map(math.prod, shapes.values())),
            "shapes": shapes,
        },
        "metrics": {},
        "converted_from": args.weights.name,
    }
    size = release_files.save(args.out, found.variables, about, args.dtype)
    load_run(args.out)
    text = CARD.format(
        name=args.out.name,
        source=args.weights.name,
        parameters=about["model"]["parameters"],
        joints=graph.num_joints,
        graph=graph.name,
        persons=found.persons,
        classes=", ".join(names),
        **{key: data[key] for key in ("stream", "frames", "channels")},
    )
    write_text(args.out / "README.md", text)
    print(f"{args.out}: {size / 1e6:.1f} MB in {args.dtype}, CTR-GCN of {len(names)} classes")
    known = ", ".join(f"{key} {data[key]}" for key in ("dataset", "stream", "frames"))
    print(f"clips are prepared as for {known}")


def read_graph(name: str) -> Graph:
    """A skeleton by its name, or from a `graph.json`."""
    if name.endswith(".json"):
        return resolve_graph(read_json(Path(name)))
    return resolve_graph(name)


def read_names(path: Path) -> list[str]:
    """The class names in a file, one a line.

    Raises:
        UserError: no such file, no names in it, or a repeated name.
    """
    names = [text for _, text in read_lines(path)]
    if not names:
        raise UserError(f"{path} holds no class names: write one a line, in the network's order")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{path} has the class {twice[0][:60]!r} twice: names must differ")
    return names


def check_sizes(found: Converted, graph: Graph, names: list[str], args) -> None:
    """Raises UserError unless skeleton, class names and coordinates fit the weights."""
    pairs = (
        (found.joints, graph.num_joints, f"joints, --graph {args.graph}"),
        (found.classes, len(names), f"classes, {args.classes}"),
    )
    for there, here, what in pairs:
        if there != here:
            raise UserError(f"{args.weights} has {there} {what} has {here}: give the right one")
    if len(args.channels or channels_of(found)) != found.channels:
        known = ", ".join(name for name in CHANNELS if len(name) == found.channels)
        raise UserError(
            f"{args.weights} takes {found.channels} channels a joint: give --channels, one of "
            f"{known or 'none that is known'}"
        )


def channels_of(found: Converted) -> str:
    """The usual channels for the number of input channels."""
    return {2: "xy", 3: "xyz", 4: "xyzc"}.get(found.channels, "")


def data_settings(args, graph: Graph, found: Converted) -> dict:
    """The part of `config.data` that prepares clips as the public code does."""
    dataset, protocol = USUAL.get((graph.joints, found.classes), ("unknown", "split"))
    dataset, protocol = args.dataset or dataset, args.protocol or protocol
    ucla, read_centred = graph.joints == UCLA20.joints, dataset in (*NTU, "nw_ucla")
    return {
        "dataset": dataset,
        "protocol": protocol,
        "stream": args.stream,
        "feeder": "nw_ucla" if ucla else "ntu",
        "frames": args.frames or (52 if ucla else 64),
        "num_persons": found.persons,
        "channels": args.channels or channels_of(found),
        "second_person": "copy" if dataset == "ntu120" else "zeros",
        # Clips of NTU are centred when they are read, other clips when they are fed.
        "origin": "kept" if read_centred else "body",
    }
