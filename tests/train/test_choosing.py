"""Selection of the best epoch, and settings with invalid numbers."""

import json

import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.train import loop
from hocslm_jax.train.check_settings import check_values
from hocslm_jax.train.metrics import Totals


def test_val_split_selects_the_best_epoch():
    totals = Totals()
    totals.note_best(1, 7, {"joint": 7}, (3, {"joint": 3}))
    totals.note_best(2, 9, {"joint": 9}, (3, {"joint": 2}))
    totals.note_best(3, 5, {"joint": 5}, (4, {"joint": 9}))
    assert (totals.best_epoch, totals.best_correct, totals.best_val) == (3, 5, 4)
    assert totals.streams == {"joint": [5, 3, 9]}
    joint = totals.of_stream("joint", ["joint"])
    assert (joint.best_epoch, joint.best_correct, joint.best_val) == (3, 5, 9)


def test_without_a_val_split_the_test_split_selects():
    totals = Totals(
        best_correct=6, best_epoch=1, streams={"bone": [6, 1]}
    )  # as saved by older versions
    totals.note_best(2, 6, {"bone": 8})
    assert (totals.best_epoch, totals.best_correct, totals.best_val) == (1, 6, -1)
    assert totals.streams == {"bone": [8, 2]}


def test_a_run_with_a_val_split(tmp_path, capsys):
    changes = {"train.epochs": 2, "data.origin": "body"}
    assert loop.train(tiny_run.make_run(tmp_path, changes, val=True)).finished
    out = capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    val = [line["val/correct"] for line in lines if "val/correct" in line]
    assert len(val) == 2 and result["best_val_correct"] == max(val)
    assert result["best_epoch"] == 1 + val.index(max(val))
    assert result["best_split"] == "val" and "chosen on the val split" in result["best_note"]
    assert "the best epoch is chosen on the 8 clips of val" in out
    assert "clips are centred at the first person's 'hip centre'" in out
    assert "chosen on the val split" in out and " val " in out


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("optim.lr", -0.1),
        ("optim.lr", float("nan")),
        ("finetune.lr", float("inf")),
        ("optim.weight_decay", -1e-4),
        ("optim.milestones", (-3, 5)),
        ("lm.pretrain.lr", -1.0),
        ("loss.gen", -0.1),
        ("data.jitter", float("nan")),
        ("stages", ({"train": ("encoder",), "lr": -1.0},)),
    ],
)
def test_invalid_numbers_are_refused(setting, value):
    config = tiny_run.make_config({setting: value})
    with pytest.raises(UserError, match=setting):
        check_values(config)


def test_values_set_by_the_dataset_are_in_the_config_of_the_run(tmp_path):
    config = tiny_run.make_run(tmp_path).config.data
    assert (config.num_persons, config.origin) == (1, "")  # clips of the feeder's own protocol
