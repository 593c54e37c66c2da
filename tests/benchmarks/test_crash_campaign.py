"""A short crash campaign, and its detection of errors."""

import json
import subprocess
import sys
from pathlib import Path

from benchmarks import crash_compare

ROOT = Path(__file__).resolve().parents[2]


def test_a_few_kills_change_nothing(tmp_path):
    command = [sys.executable, "-m", "benchmarks.crash_campaign", "--kills", "3"]
    command += ["--parts", "training", "prepare", "caption", "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["total"] >= 2 and found["faults"] == [] and found["runs"] >= 1


def outcome(workdir, state="a", loss=1.0):
    """What a finished run leaves for the comparison."""
    for folder in (workdir / "stages/1", workdir):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 4, "loss": loss}) + "\n")
        counts = {"correct": 1, "total": 2, "best_correct": 1, "steps": 4}
        (folder / "result.json").write_text(json.dumps(counts))
    note = {"folder": "checkpoints", "step": 4, "hash": state}
    (workdir / "states.jsonl").write_text(json.dumps(note) + "\n")
    return workdir


def test_campaign_detects_lost_or_wrong_results(tmp_path):
    wanted = crash_compare.outcome(outcome(tmp_path / "whole"))
    assert not list(crash_compare.differences(outcome(tmp_path / "same"), wanted))
    (said,) = crash_compare.differences(outcome(tmp_path / "b", state="b"), wanted)
    assert said == "wrong: another state in checkpoints at step 4"
    (said,) = crash_compare.differences(outcome(tmp_path / "c", loss=2.0), wanted)
    assert said == "wrong: other metrics or results"
    lost = outcome(tmp_path / "d")
    (lost / "result.json").unlink()
    (said,) = crash_compare.differences(lost, wanted)
    assert said.startswith("lost:")
