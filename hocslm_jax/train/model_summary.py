"""Summary of a run: parameters by block, FLOPs, and the processing of its clips.

In: a `Run`. Out: lines for the terminal, and `model.json`, which also has the class names and the
skeleton, so that a checkpoint can be used without the dataset.
"""

import functools
import math
from collections.abc import Iterator

import jax
import numpy as np

from hocslm_jax import hosts, sharding
from hocslm_jax.data.prepare.notices import persons_left_out
from hocslm_jax.files.atomic import write_json
from hocslm_jax.hosts import say
from hocslm_jax.train import state
from hocslm_jax.train.jitted import class_logits, flops_of
from hocslm_jax.train.setup import Run


def describe_model(run: Run, step_flops: float | None) -> dict:
    """Parameters by block and FLOPs of one stream; printed, and written to `model.json`."""
    blocks: dict[str, int] = {}
    variables = state.eval_variables(run.one_state)
    leaves = jax.tree.leaves_with_path(variables["params"])
    for path, leaf in leaves:
        block = "/".join(sharding.path_name(path).split("/")[:-1][:2] or ["prompt"])
        blocks[block] = blocks.get(block, 0) + math.prod(leaf.shape)
    clip = jax.ShapeDtypeStruct((1, *run.clip_shape), np.float32)
    forward = jax.jit(functools.partial(class_logits, run.model)).lower(variables, clip)
    model = {
        "classes": list(run.store.classes),
        "graph": run.feed.graph_of(run.store).as_mapping(),
        "clips": run.store.about,
        "lm_gain": run.gain,  # identifies the language model
        "parameters": sum(blocks.values()),
        "blocks": blocks,
        "shapes": {sharding.path_name(path): list(leaf.shape) for path, leaf in leaves},
        "clip": list(run.clip_shape),
        "forward_flops_per_clip": flops_of(forward),
        "train_step_flops": step_flops and step_flops / max(len(run.streams), 1),
    }
    hosts.on_first(lambda: write_json(run.workdir / "model.json", model))
    width = max(len(name) for name in blocks)
    for name, count in blocks.items():
        say(f"  {name:<{width}} {count:>12,}")
    flops = model["forward_flops_per_clip"]
    cost = f", {flops / 1e9:.3f} GFLOP a clip" if flops else ""
    say(f"  {'parameters':<{width}} {model['parameters']:>12,}{cost}")
    return model


def describe_input(run: Run) -> Iterator[str]:
    """How clips are processed for the network, and which split selects the best epoch."""
    store, feed, protocol = run.store, run.feed, run.config.data.protocol
    if feed.origin == "body":
        joint = feed.graph_of(store).joints
        centre = joint[feed.graph_of(store).centre]
        yield f"clips are centred at the first person's {centre!r} (data.origin={feed.origin})"
    splits = [s for s in ("train", "val", "test") if store.has_split(protocol, s)]
    for split in splits:
        left = persons_left_out(store, store.rows(protocol, split), feed.num_persons)
        if left:
            yield f"{split}: {left}"
    if run.has_val:
        yield f"the best epoch is chosen on the {len(store.rows(protocol, 'val')):,} clips of val"
