"""The verb `plan`: does a config's train step fit TPUs or GPUs, and how fast can it be?

In: a config file and a topology, which this machine need not have; neither dataset nor weights are
read. Out: a page of numbers, also as JSON.
"""

import argparse
import ast
import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator

from ml_collections import ConfigDict

from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import write_json
from hocslm_jax.plan.chips import open_devices
from hocslm_jax.plan.estimate import estimate
from hocslm_jax.plan.summary import lines
from hocslm_jax.train import experiment
from hocslm_jax.train.stages import read_stages, stage_config

EVERY_S = 30.0  # between two lines about the elapsed time

Setting = tuple[str, str]  # dotted name, value as text


def run(args: argparse.Namespace) -> None:
    """Prints the plan of one config on one topology; a step that does not fit is not an error.

    Raises:
        UserError: an impossible config, mesh, stage or topology.
    """
    row = plan(args.config, args.topology, args.settings, args.stage, args.compile)
    print(*lines(row), sep="\n")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.json, row)


def plan(
    spec: str,
    topology: str,
    settings: Iterable[Setting] = (),
    stage: int | None = None,
    compiling: bool = True,
) -> dict:
    """`estimate` of the train step of one stage (by default the last), with the arguments."""
    devices, chip = open_devices(topology)
    config = read_config(spec, settings)
    stages = read_stages(config)
    number = len(stages) if stage is None else stage
    if not 1 <= number <= len(stages):
        raise UserError(
            f"--stage {number}: strategy {config.strategy} has stages 1 to {len(stages)}"
        )
    asked = {"config": spec, "settings": dict(settings), "topology": topology}
    asked |= {"stage": number, "stages": len(stages)}
    asked |= {"trains": list(stages[number - 1].train), "by": list(stages[number - 1].losses)}
    doing = "compiling" if compiling else "tracing"
    where = "the devices of this machine" if topology == "local" else topology
    with announced(f"{doing} the train step of {spec} for {where}"):
        return asked | estimate(stage_config(config, number - 1), devices, chip, compiling)


def read_config(spec: str, settings: Iterable[Setting] = ()) -> ConfigDict:
    """The config of `FILE:k=v,k=v` with more settings.

    Raises:
        UserError: there is no such file or setting, or a setting cannot have the value.
    """
    file, _, argument = spec.partition(":")
    config = experiment.load(file, argument)
    for name, text in settings:
        name = experiment.full_name(config, name)
        default = experiment.flatten(config)[name]
        config.update_from_flattened_dict({name: _value(name, text, default)})
    return config


def _value(name: str, text: str, default):
    if not isinstance(default, tuple):
        return experiment.parse(name, text, default)
    with contextlib.suppress(ValueError, SyntaxError):
        if isinstance(value := ast.literal_eval(text), tuple):
            return value
    raise UserError(f"--config.{name}={text} is not a tuple: write it as '{default}'")


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Prints to stderr what is being done, and every half minute the elapsed time."""
    done, start = threading.Event(), time.monotonic()

    def remind() -> None:
        while not done.wait(EVERY_S):
            print(f"still {what}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)

    print(f"{what}; this can take minutes", file=sys.stderr, flush=True)
    threading.Thread(target=remind, daemon=True).start()
    try:
        yield
    finally:
        done.set()
