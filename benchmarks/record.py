"""What every benchmark's result says of itself, and where it is written."""

import json
import os
import shlex
import sys
from importlib import metadata
from pathlib import Path

from hocslm_jax.train.environment import describe_machine, describe_versions


def measured_here(name: str, *packages: str, arguments: list[str] | None = None) -> dict:
    """The machine and its load, versions (of `packages` too), command line of `benchmarks.NAME`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    return {
        "load_average": os.getloadavg(),
        "machine": describe_machine(),
        "versions": describe_versions() | {p: metadata.version(p) for p in packages},
        "command": shlex.join(["python", "-m", f"benchmarks.{name}", *arguments]),
    }


def write_result(path: Path | None, result: dict) -> None:
    """Writes the JSON file, if one is asked for."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
