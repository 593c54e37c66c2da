"""The notebook of examples/ runs from raw files to an exported model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_the_notebook_runs(tmp_path):
    pytest.importorskip("flatbuffers")  # of the extra `export`
    notebook = json.loads((ROOT / "examples/own_data.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] for cell in cells)
    text = "\n\n".join("".join(cell["source"]) for cell in cells)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "mine: 60 clips, 3 classes" in done.stdout and "true class:" in done.stdout
    assert (tmp_path / "mine.bin").stat().st_size > 1000
    result = json.loads((tmp_path / "runs/mine/result.json").read_text())
    assert result["correct"] > result["total"] / 3
