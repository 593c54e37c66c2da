"""Tables of zero-shot results: from their counts alone, and one line for a damaged file."""

import json

import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.zero_shot_table import read_zero_shot, run_table, zero_shot_section


def result(correct=30, classes=("drink", "throw"), **changes):
    counts = {"unseen_correct": 10, "unseen_total": 40, "seen_correct": 90, "seen_total": 120}
    row = {"correct": correct, "total": 40, "generalised": counts}
    return {
        "dataset": "quickstart",
        "protocol": "xsub",
        "unseen": "12_2_1",
        "classes": list(classes),
        "language_model": "pretrained here",
        "text_had_unseen": False,
        "training": {"command": "python launch.py"},
        "methods": {
            **{name: row for name in ("likelihood", "calibrated", "embedding")},
            "example": row | {"draws": [0.5, 0.75, 0.7]},
        },
        "controls": {"shuffled": {"correct": 21, "total": 40}},
        "machine": {"cpu": "CPU", "cpu_cores": 2},
        "command": "python -m hocslm_jax zero-shot runs/x",
        **changes,
    }


def write(folder, value):
    folder.mkdir(parents=True)
    (folder / "zero_shot.json").write_text(json.dumps(value))


def cells(line):
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


def test_one_run_on_the_terminal():
    lines = run_table(result())
    assert cells(lines[2]) == [
        "likelihood", "30 / 40 = **75.00** [59.8, 85.8]", "25.0", "75.0", "37.5",
    ]  # fmt: skip
    assert cells(lines[5])[1] == "30 / 40 = **75.00** [59.8, 85.8]; 3 draws 65.0 ± 13.2"
    assert [cells(line)[0] for line in lines[6:]] == ["shuffled sentences", "chance"]
    assert cells(lines[-1])[1] == "**50.00**"


def test_runs_of_disjoint_splits_are_counted_together(tmp_path):
    write(tmp_path / "qs/one", result())
    write(tmp_path / "qs/two", result(22, ("wave", "kick")))
    text = zero_shot_section(tmp_path, tmp_path / "docs")
    shown = [cells(line) for line in text if line.startswith(("| [", "| these"))]
    first, second, together = shown[:3]
    assert first[:3] == ["[qs/one](../qs/one)", "pretrained here", "drink, throw"]
    assert first[3] == "30 / 40 = **75.00** [59.8, 85.8]"
    assert second[3].startswith("22 / 40 = 55.00 [")  # no better than chance
    assert together[:4] == ["these 2 together", "", "", "52 / 80 = **65.00** [54.1, 74.5]"]
    assert together[7:] == ["–", "–", "42 / 80 = 52.50 [41.7, 63.1]", "50.0"]
    assert sum("25.0 / 75.0 / 37.5" in line for line in text) == 2


def test_splits_that_share_a_class_are_not_counted_together(tmp_path):
    write(tmp_path / "one", result())
    write(tmp_path / "two", result(22, ("throw", "kick")))
    assert not any("together" in line for line in zero_shot_section(tmp_path, tmp_path))


def test_language_models_that_read_about_the_classes_are_told_apart(tmp_path):
    write(tmp_path / "one", result())
    write(tmp_path / "two", result(22, ("wave", "kick"), text_had_unseen=True))
    text = zero_shot_section(tmp_path, tmp_path)
    assert not any("together" in line for line in text)
    assert any("pretrained here, read about them | wave, kick" in line for line in text)


def test_no_result_is_no_section(tmp_path):
    assert zero_shot_section(tmp_path, tmp_path) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"methods": {}},
        {"classes": [1]},
        {"controls": {"shuffled": {"correct": 50, "total": 40}}},
        {"controls": {"shuffled": {"correct": 1.5, "total": 40}}},
        {"controls": []},
        {"methods": {name: 5 for name in ("likelihood", "calibrated", "embedding", "example")}},
        {"dataset": None},
        {"training": None},
        {"text_had_unseen": "no"},
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, changes):
    write(tmp_path / "run", result(**changes))
    with pytest.raises(UserError, match="is damaged: write it again") as error:
        read_zero_shot(tmp_path / "run/zero_shot.json")
    assert len(str(error.value)) < 300
