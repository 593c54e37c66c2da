"""The tables in the documents match the results."""

import json
import shutil
from pathlib import Path

from benchmarks import tables

ROOT = Path(__file__).resolve().parents[2]


def test_the_documents_hold_the_results(monkeypatch):
    monkeypatch.chdir(ROOT)  # README shows the paths of releases
    assert tables.main(["--check"]) == 0


def test_a_new_result_changes_the_document(tmp_path, capsys):
    (tmp_path / "results/benchmarks").mkdir(parents=True)
    for document in tables.TABLES:
        shutil.copy(ROOT / "docs" / document, tmp_path)
    result = json.loads((ROOT / "results/benchmarks/encoder.json").read_text())
    result["shapes"]["ntu"]["contestants"]["hglnet"]["train_clips_per_s"]["median"] = 12345.6
    (tmp_path / "results/benchmarks/encoder.json").write_text(json.dumps(result))
    argv = ["--results", str(tmp_path / "results"), "--docs", str(tmp_path)]
    assert tables.main([*argv, "--check"]) == 2 and "stale" in capsys.readouterr().err
    assert tables.main(argv) == 0 and tables.main([*argv, "--check"]) == 0
    text = (tmp_path / "performance.md").read_text()
    assert "12345.6" in text and "Not measured yet" in text


def test_a_damaged_result_and_a_missing_marker_are_one_line(tmp_path, capsys):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/encoder.json").write_text("{")
    assert tables.main(["--results", str(tmp_path), "--docs", str(ROOT / "docs")]) == 2
    assert "encoder.json" in capsys.readouterr().err
    (tmp_path / "performance.md").write_text("no marker")
    assert tables.main(["--results", str(ROOT / "results"), "--docs", str(tmp_path)]) == 2
    assert "<!-- encoder -->" in capsys.readouterr().err


def test_faults_and_failures_are_in_the_tables():
    result = {"kills": {"step, SIGKILL": 3}, "total": 3, "faults": ["run1: lost"], "command": "c"}
    made = tables.kills_table(result | {"machine": {"cpu": "x"}})
    assert "| step | 3 | 0 |" in made and "1 lost or wrong: run1: lost" in made
    result = json.loads((ROOT / "results/benchmarks/joint_speed.json").read_text())
    result["contestants"]["torch+compile"] = {"error": "out of memory"}
    assert "| `torch+compile` | out of memory |" in tables.joint_table(result)
