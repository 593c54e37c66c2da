"""The campaign of kills, in short; its tables are those of its results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import crash_compare, reliability
from hocslm_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def test_a_few_kills_change_nothing(tmp_path):
    command = [sys.executable, "-m", "benchmarks.crash_campaign", "--kills", "5"]
    command += ["--parts", "training", "prepare", "--out", str(tmp_path / "out.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["total"] >= 3 and found["faults"] == [] and found["runs"] >= 1


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


def test_the_campaign_sees_what_is_lost_or_wrong(tmp_path):
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


def test_the_document_shows_the_results():
    docs, result = ROOT / "docs/reliability.md", ROOT / "results/reliability.json"
    assert reliability.main(["--docs", str(docs), "--result", str(result), "--check"]) == 0


def test_tables_name_what_went_wrong():
    result = {"kills": {"step, SIGKILL": 3}, "total": 3, "faults": ["run1: lost"], "command": "c"}
    said = reliability.kills_table(result | {"machine": {"cpu": "x"}})
    assert "| step | 3 | 0 |" in said and "1 lost or wrong: run1: lost" in said


def test_an_unreadable_result_is_one_line(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError):
        reliability.tables(tmp_path / "x.json")
