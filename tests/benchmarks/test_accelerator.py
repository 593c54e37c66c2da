"""The accelerator suite: each part writes its file, and is not run again."""

import json

from benchmarks import accelerator, joint_speed
from benchmarks.joint_contestants import CONTESTANTS


def test_finished_part_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "REPETITIONS", 2)
    command = ["--out", str(tmp_path), "--lm", "tiny", "--parts", "attention"]
    accelerator.main(command)
    saved = json.loads((tmp_path / "attention.json").read_text())
    for error in (part["gradient_error"] for part in saved["result"].values()):
        assert 0 < error < 0.05  # bfloat16 against float32
    assert saved["machine"] and saved["arguments"]["lm"] == "tiny"
    monkeypatch.setitem(accelerator.PARTS, "attention", None)
    accelerator.main(command)


def test_joint_step_is_measured_with_every_implementation(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        accelerator, "command", lambda module, args, *options: asked.update({module: options})
    )
    monkeypatch.setattr(accelerator, "write_result", lambda *_: None)
    accelerator.main(["--out", str(tmp_path), "--parts", "joint", "--lm", "8B", "--tokens", "32"])
    args = joint_speed.parse(list(asked["benchmarks.joint_speed"]))
    assert (args.lm, args.batch, args.tokens, args.dtype) == ("8B", 64, 32, "bfloat16")
    assert args.alone and tuple(args.contestants) == CONTESTANTS
