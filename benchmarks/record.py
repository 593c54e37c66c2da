"""Common to all benchmarks: metadata and files of results, and tables in documents."""

import functools
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path

import jax

from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import write_json, write_text
from hocslm_jax.train.environment import describe_machine, describe_versions


def one_line_errors(main: Callable[..., int | None]) -> Callable[..., int]:
    """Runs `main`; returns its exit status. A UserError is printed as one line, with status 2."""

    @functools.wraps(main)
    def run(*arguments) -> int:
        try:
            return main(*arguments) or 0
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2

    return run


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
    """Writes the JSON file, if requested."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, result)


def read_result(path: Path) -> dict:
    """Reads a result of `write_result`.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): measure it first") from None


def timed(call: Callable, repetitions: int) -> list[float]:
    """Seconds of each repetition after a first one, until its result is ready."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repetitions):
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - start)
    return seconds


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is text, and whose others are numbers."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (columns, rule, *lines))


def write_tables(document: Path, tables: dict[str, str], check: bool = False) -> None:
    """Writes every table between its markers, `<!-- NAME -->` and `<!-- end -->`.

    Raises:
        UserError: the document lacks the markers, or with `check` has another table.
    """
    old = document.read_text(encoding="utf-8")
    new = old
    for name, made in tables.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marked.search(new):
            raise UserError(f"{document} has no place for the table {name!r}: <!-- {name} -->")
        new = marked.sub(lambda m, made=made: f"{m[1]}\n{made}\n\n{m[2]}", new)
    if check and new != old:
        raise UserError(f"{document} is stale: run this command without --check")
    if not check:
        write_text(document, new)
