"""`lm.pack` in a whole run: same losses in fewer positions; off if it would save nothing."""

import json

import pytest
import tiny_run

COMMON = {
    "train.log_every": 1,
    "train.batch_size": 32,
    "finetune.epochs": 3,
    "lm.describe": 0,
    "lm.chunk": 4,
}


def reports(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write_captions(folder):
    """One long caption; the others are short."""
    line = {"model": "", "prompt": "", "time": ""}
    words = {clip: "it sits" for clip in tiny_run.TinyStore.ids}
    words[tiny_run.TinyStore.ids[0]] = "it sits" * 6
    lines = [json.dumps({"id": clip, "caption": text, **line}) for clip, text in words.items()]
    (folder / "captions.jsonl").write_text("\n".join(lines))


def test_a_packed_run_has_the_losses_of_an_unpacked_one(tmp_path, monkeypatch, capsys):
    write_captions(tmp_path)
    monkeypatch.setattr(tiny_run.TinyStore, "path", tmp_path / "1.0.0")
    plain, packed = tmp_path / "one", tmp_path / "two"
    assert tiny_run.train_strategy(plain, "T4", COMMON) == 0
    assert "captions are" not in capsys.readouterr().out
    changes = {"lm.folder": str(plain / "lm"), "lm.pack": True}
    assert tiny_run.train_strategy(packed, "T4", COMMON | changes) == 0
    assert "captions are packed into" in capsys.readouterr().out
    for line, wanted in zip(reports(packed), reports(plain), strict=True):
        for name in line.keys() & {"train/caption_loss", "train/grad_norm", "eval/correct"}:
            assert line[name] == pytest.approx(
                wanted[name], rel=1e-3
            )  # rounding accumulates over steps
    assert [line["train/packed"] for line in reports(packed) if "train/packed" in line] == [1] * 3


def test_captions_of_one_length_stay_unpacked(tmp_path, capsys):
    changes = {**COMMON, "lm.pack": True, "finetune.epochs": 1}
    assert tiny_run.train_strategy(tmp_path, "T4", changes) == 0
    assert "captions are not packed" in capsys.readouterr().out
    assert "train/packed" not in reports(tmp_path)[0]
