"""The verb `plan`: will a config's train step fit TPUs or GPUs, and how fast can it be there?

In: a config file and a topology that need not be here; neither dataset nor weights are read. Out:
a page of numbers, and the same as JSON.
"""

import argparse
import ast
import functools
import operator
import re
import runpy
from pathlib import Path

from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import write_json
from hocslm_jax.plan.chips import open_devices
from hocslm_jax.plan.estimate import estimate
from hocslm_jax.plan.summary import lines
from hocslm_jax.train.stages import read_stages, stage_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `python -m hocslm_jax plan`."""
    parser.add_argument("--config", required=True, help="config file, with :k=v,k=v after it")
    parser.add_argument("--topology", default="local", help="v5e:16x16, h100:8, b200:8, …, local")
    parser.add_argument("--mesh", default="", metavar="data=N,model=N", help="default: all data")
    parser.add_argument(
        "--set", default="", metavar="k=v,k=v", help="more settings; a tuple as model.stages=(1,1)"
    )
    parser.add_argument("--stage", type=int, help="of the strategy, from 1; default: the last")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=True, help="or only trace"
    )


def run(args: argparse.Namespace) -> None:
    """Prints the plan of one config on one topology; a step that does not fit is no error.

    Raises:
        UserError: a config, mesh, stage or topology that cannot be.
    """
    row = plan(args.config, args.topology, args.mesh, args.set, args.stage, args.compile)
    print(*lines(row), sep="\n")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.json, row)


def plan(
    config: str,
    topology: str,
    mesh: str = "",
    settings: str = "",
    stage: int | None = None,
    compiling: bool = True,
) -> dict:
    """`estimate` of what the command line says, and what that was."""
    devices, chip = open_devices(topology)
    read = read_config(config, ",".join(filter(None, [settings, mesh_settings(mesh)])))
    stages = read_stages(read)
    number = len(stages) if stage is None else stage
    if not 1 <= number <= len(stages):
        raise UserError(f"--stage {number}: strategy {read.strategy} has stages 1 to {len(stages)}")
    asked = {"config": config, "settings": settings, "topology": topology}
    of = stages[number - 1]
    asked |= {
        "stage": number,
        "stages": len(stages),
        "trains": list(of.train),
        "by": list(of.losses),
    }
    return asked | estimate(stage_config(read, number - 1), devices, chip, compiling)


def read_config(spec: str, settings: str = ""):
    """The config of `file.py:k=v,k=v` with more settings, which may be tuples in brackets.

    Raises:
        UserError: no such file, or a setting that it does not have.
    """
    file, _, argument = spec.partition(":")
    pairs = [pair for pair in re.split(r",(?![^(]*\))", settings) if pair]
    tuples = [pair.partition("=") for pair in pairs if "=(" in pair]
    plain = ",".join(filter(None, [argument, *(pair for pair in pairs if "=(" not in pair)]))
    if not Path(file).is_file():
        raise UserError(f"there is no config file {file}: see configs/")
    config = runpy.run_path(file)["get_config"](plain)
    try:
        for key, _, value in tuples:
            *sections, name = key.strip().split(".")
            section = functools.reduce(operator.getitem, sections, config)
            section[name] = type(section[name])(ast.literal_eval(value))
    except (KeyError, TypeError, ValueError, SyntaxError) as error:
        raise UserError(f"--set {settings}: {error}; write model.stages=(4,3,3)") from None
    return config


def mesh_settings(mesh: str) -> str:
    """`mesh.data=64,mesh.model=4` of `data=64,model=4`."""
    axes = [pair.partition("=") for pair in mesh.split(",") if pair]
    for axis, _, size in axes:
        if axis not in ("data", "model") or not size.lstrip("-").isdigit():
            raise UserError(f"--mesh {mesh}: write data=N,model=N")
    return ",".join(f"mesh.{axis}={size}" for axis, _, size in axes)
