"""`import hocslm_jax` is fast, and its names are found."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import hocslm_jax


def test_the_package_lists_its_names_and_imports_nothing():
    code = (
        "import sys, hocslm_jax; print(hocslm_jax.__version__, *dir(hocslm_jax));"
        "assert not {'jax', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    version, *names = done.stdout.split()
    assert version[0].isdigit() and {"load_pretrained", "load_clip", "__version__"} <= set(names)


def test_version_of_a_clone_matches_pyproject(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    root = Path(__file__).resolve().parents[2]
    assert f'version = "{hocslm_jax.__version__}"' in (root / "pyproject.toml").read_text()
