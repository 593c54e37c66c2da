"""The layers: imports go in one direction, without PyTorch or TensorFlow."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "hocslm_jax"

# What each part may import besides itself and what its own imports may. A new part goes in here.
MAY_IMPORT = {
    "errors": set(),
    "terminal": {"errors"},
    "files": {"errors"},
    "layout_tables": set(),
    "graph": {"errors", "layout_tables"},
    "hosts": {"errors"},
    "progress": {"errors"},
    "pose": {"files", "graph"},
    "data": {"files", "progress", "pose"},
    "models": {"graph", "files"},
    "losses": set(),
    "sharding": {"models"},
    "draw": {"graph"},
    "language": {"data", "losses", "sharding", "hosts"},
    "evaluate": {"data", "draw"},
    "train": {"evaluate", "language", "terminal"},
    "predict": {"train", "draw"},
    "plan": {"train"},
    "launch": {"train"},
    "export": {"predict"},
    "options": {"train"},
    "__main__": {"launch", "export", "plan", "options"},
}


def allowed(part):
    """Everything at or below a part."""
    return {part}.union(*(allowed(below) for below in MAY_IMPORT[part]))


def sources():
    files = [*(ROOT / PACKAGE).rglob("*.py"), *ROOT.glob("launch.py")]
    return {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def part_of(path):
    """`data` of hocslm_jax/data/store.py; the package's own `__init__` is no part."""
    return path.stem if len(path.parts) < 3 else path.parts[1]


def imported(tree, package):
    """Absolute names of the modules, and of what is taken from them, in one file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def wrong_imports(path, tree):
    part = part_of(path)
    if part == "__init__":
        return
    for name in imported(tree, list(path.parts[:-1])):
        top, _, rest = name.partition(".")
        if top == PACKAGE and rest and rest.split(".")[0] in MAY_IMPORT:
            other = rest.split(".")[0]
            if other not in allowed(part):
                yield f"{path} ({part}) imports {name} ({other})"


def test_every_module_is_in_a_layer():
    parts = {part_of(path) for path in sources()} - {"__init__"}
    assert parts <= set(MAY_IMPORT), f"no layer for {sorted(parts - set(MAY_IMPORT))}"
    assert {"errors", "graph", "data", "models", "train", "evaluate", "predict"} <= parts


def test_imports_go_one_way():
    wrong = [line for path, tree in sources().items() for line in wrong_imports(path, tree)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("data/store.py", "from hocslm_jax.models import hglnet"),
        ("data/store.py", "from .. import train"),
        ("graph.py", "import hocslm_jax.data.store"),
        ("evaluate/report.py", "def late():\n    from hocslm_jax.train import loop"),
    ],
)
def test_a_wrong_import_would_be_found(path, line):
    assert list(wrong_imports(Path(PACKAGE) / path, ast.parse(line)))


IMPORT_ALL = f"""
import importlib, pkgutil, sys

class Never:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "torch"):
            raise ImportError(f"the package must not need {{name}}")

import {PACKAGE}
if sys.argv[1] == "absent":
    sys.meta_path.insert(0, Never())
for module in pkgutil.walk_packages({PACKAGE}.__path__, "{PACKAGE}."):
    importlib.import_module(module.name)
importlib.import_module("launch")
assert len([name for name in sys.modules if name.startswith("{PACKAGE}.")]) > 20
print(*sorted({{"tensorflow", "torch"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("frameworks", ["as installed", "absent"])
def test_every_module_imports_without_torch_and_tensorflow(frameworks):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, frameworks], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "", f"importing the package pulled in {done.stdout}"


ANSWER_ALL = """
import contextlib, io, sys
from hocslm_jax.__main__ import VERBS, main

for verb in VERBS:
    for word, status in (("--help", 0), ("--no-such-option", 2)):
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            try:
                found = main([verb, word])
            except SystemExit as ending:
                found = ending.code
        said = text.getvalue()
        assert found == status, (verb, word, found)
        assert said.strip() and "Traceback" not in said, (verb, word, said)
with contextlib.redirect_stderr(text):
    assert main(["predict", "--checkpoint", "results/none", "clip.json"]) == 2
    assert main(["plan", "--config", "no_such_config"]) == 2
    assert main(["plan", "--config", "nw_ucla", "--no-such-option"]) == 2
print(*sorted({"jax", "flax", "orbax", "optax"} & set(sys.modules)))
"""


def test_help_and_wrong_options_are_answered_without_jax():
    done = subprocess.run(
        [sys.executable, "-c", ANSWER_ALL], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "", f"help imported {done.stdout}"


def test_no_two_files_of_one_name():
    """But for the module of a verb: a name says what is in the file, wherever it is seen."""
    names = [path.name for path in (ROOT / PACKAGE).rglob("*.py")]
    twice = {name for name in names if names.count(name) > 1} - {"__init__.py", "command.py"}
    assert not twice


def test_files_are_short():
    files = [
        path for part in (PACKAGE, "tests", "benchmarks") for path in (ROOT / part).rglob("*.py")
    ]
    assert not [path for path in files if len(path.read_text().splitlines()) > 300]


def test_every_folder_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / PACKAGE).rglob("__init__.py")}
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    configs = {path.parent for path in (ROOT / "configs").rglob("*.py")}
    packages |= {".".join([PACKAGE, *folder.relative_to(ROOT).parts]) for folder in configs}
    assert packages == set(settings["packages"])
