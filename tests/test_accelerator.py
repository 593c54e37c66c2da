"""The accelerator suite: a part leaves its file, and is not run again."""

import json

from benchmarks import accelerator


def test_a_part_leaves_its_file_and_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "REPETITIONS", 2)
    command = ["--out", str(tmp_path), "--lm", "tiny", "--parts", "attention"]
    accelerator.main(command)
    saved = json.loads((tmp_path / "attention.json").read_text())
    for error in (part["gradient_error"] for part in saved["result"].values()):
        assert 0 < error < 0.05  # bfloat16 against float32
    assert saved["machine"] and saved["arguments"]["lm"] == "tiny"
    monkeypatch.setitem(accelerator.PARTS, "attention", None)
    accelerator.main(command)
