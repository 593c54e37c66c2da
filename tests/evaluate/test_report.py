"""The results document: numbers come from the runs, ensembles are found, never stale."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from hocslm_jax.__main__ import main
from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate import report
from hocslm_jax.evaluate.scores import Scores, save_scores

TOTAL = 464
RESULT = {
    "dataset": "nw_ucla",
    "protocol": "xview",
    "encoder": "hglnet",
    "stream": "joint",
    "strategy": "T0",
    "seed": 0,
    "epochs": 65,
    "top1": 0.5,  # wrong on purpose: the table must count for itself
    "correct": 440,
    "total": TOTAL,
    "best_correct": 448,
    "wall_clock_s": 5400.0,
    "machine": {"platform": "gpu", "device": "NVIDIA H100", "devices": 1},
    "command": "python launch.py --config=configs/nw_ucla.py",
}


def add_run(tmp_path, name, **changes):
    folder = tmp_path / "results" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(RESULT | changes))
    return folder


def add_scored(tmp_path, name, wrong, first_id="clip000", **changes):
    """A run with scores that are wrong on the rows `wrong`, and a config."""
    labels = np.arange(TOTAL, dtype=np.int32) % 10
    logits = np.eye(10, dtype=np.float32)[labels]
    logits[list(wrong)] = np.eye(10, dtype=np.float32)[(labels[list(wrong)] + 1) % 10] * 2
    names = tuple(f"class{label}" for label in range(10))
    ids = (first_id, *(f"clip{row:03}" for row in range(1, TOTAL)))
    scores = Scores(ids, labels, logits, names)
    folder = add_run(tmp_path, name, correct=scores.correct, **changes)
    result = RESULT | changes
    data = {"stream": result["stream"], "frames": 52}
    config = {"data": data, "model": {"width": 64}, "seed": result["seed"]}
    (folder / "config.json").write_text(json.dumps(config))
    save_scores(folder / "scores.npz", scores)


def write(tmp_path, *options):
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    out = tmp_path / "docs/results.md"
    folders = ["--results", str(tmp_path / "results"), "--out", str(out)]
    report.run(parser.parse_args([*folders, *options]))
    return out.read_text(encoding="utf-8")


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def row(text, name):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")][1:]


def test_one_run_is_one_row_with_a_link_to_it(tmp_path):
    folder = add_run(tmp_path, "nw_ucla/hglnet_joint_seed0")
    (found,) = rows(write(tmp_path))
    model = found.pop("model")
    assert (tmp_path / "docs" / model.rpartition("(")[2].strip(")")).resolve() == folder.resolve()
    assert found == {
        "dataset": "nw_ucla, xview",
        "setting": "65 epochs, strategy T0",
        "accuracy": "440 / 464 = **94.83** [92.4, 96.5]",
        "best epoch, % ¹": "96.55",
        "time": "1 h 30 min",
        "machine": "NVIDIA H100",
    }


def test_seeds_share_a_row_with_mean_and_spread(tmp_path):
    for seed, correct in ((10, 444), (0, 440), (1, 442)):
        unknown = {"best_correct": None, "wall_clock_s": None} if seed else {}
        add_run(tmp_path, f"a_seed{seed}", seed=seed, correct=correct, **unknown)
    (found,) = rows(write(tmp_path))
    # 2 clips of 464 are 0.431 per cent
    assert found["accuracy"] == "440, 442, 444 / 464 = **95.26 ± 0.43**"
    assert found["best epoch, % ¹"] == found["time"] == "–"  # no mean of those that are known


def test_copies_of_training_clips_are_counted_apart(tmp_path):
    for encoder, wrong in (("ctrgcn", [0, 1]), ("hglnet", [2])):
        for stream in ("joint", "bone"):
            name, changes = f"{encoder}/{stream}_seed0", {"encoder": encoder, "stream": stream}
            add_scored(tmp_path, name, wrong, first_id="a02_s01_e00_v03", **changes)
    _, _, apart = write(tmp_path).partition("Without them:")
    counts = [cell.partition(" = ")[0] for cell in row(apart.partition("##")[0], "joint")]
    assert counts == ["462 / 463", "462 / 463", "461 / 463"]


@pytest.mark.parametrize(
    ("machine", "text"),
    [
        ({"platform": "cpu", "cpu": "Xeon(R)", "cpu_cores": 2, "devices": 8}, "Xeon, 2 cores"),
        ({"platform": "tpu", "device": "TPU v5e", "devices": 16}, "16 × TPU v5e"),
        ("a laptop", "a laptop"),
        (None, "–"),
    ],
)
def test_machines_in_a_phrase(tmp_path, machine, text):
    add_run(tmp_path, "a", machine=machine)
    assert rows(write(tmp_path))[0]["machine"] == text


def test_six_streams_of_two_seeds_are_found_and_fused(tmp_path):
    for seed in (0, 1):
        for place, stream in enumerate(PAPER_STREAMS):
            wrong = [10 * place, 10 * place + 1, 200 + seed]
            name = f"nw_ucla/any_name/{stream}_seed{seed}"
            add_scored(tmp_path, name, wrong, stream=stream, seed=seed)
    add_run(tmp_path, "nw_ucla/any_name_seed0", stream="joint+bone", streams={})
    text = write(tmp_path)
    assert "### 65 epochs, strategy T0, width 64, 52 frames" in text and "other runs" not in text
    assert row(text, "joint") == ["461, 461 / 464 = **99.35 ± 0.00**", "96.55 ± 0.00"]
    assert row(text, "6 streams") == ["463, 463 / 464 = **99.78 ± 0.00**", "–"]
    assert "2 of 464 clips are wrong" in text  # of both seeds together: row 200 and row 201
    assert row(text, "class0") == ["class1", "1 of 47", "clip200"]


def test_encoders_with_the_same_setting_share_a_table(tmp_path):
    wrong = {"ctrgcn": (range(10), range(5)), "hglnet": (range(4, 10), range(5, 8))}
    for encoder, (joint, bone) in wrong.items():
        add_scored(tmp_path, f"{encoder}/joint_seed0", joint, encoder=encoder)
        add_scored(tmp_path, f"{encoder}/bone_seed0", bone, encoder=encoder, stream="bone")
        longer = {"epochs": 120, "encoder": encoder}
        add_run(tmp_path, f"{encoder}_120/joint_seed0", **longer)
        add_run(tmp_path, f"{encoder}_120/bone_seed0", stream="bone", **longer)
    long, _, short = write(tmp_path).partition("### 65 epochs")
    assert "### 120 epochs" in long and "ctrgcn + hglnet" not in long
    counts = [cell.partition(" / ")[0] for cell in row(short.partition("##")[0], "joint")]
    assert counts[:3] == ["454", "458", "454"]
    counts = [cell.partition(" / ")[0] for cell in row(short, "2 streams")]
    assert counts[:2] == ["454", "458"] and "| 4 streams |" not in short


def test_ablations_are_computed_again_from_their_runs(tmp_path):
    folder = add_run(tmp_path, "parts/a_seed0", correct=400).parent
    add_run(tmp_path, "parts/b_seed0", correct=410)
    old = [{"row": name, "published": 90.0, "correct": [1]} for name in "ab"]
    table = {"title": "Table 4", "preset": "", "paired": False, "rows": old}
    (folder / "table_parts.json").write_text(json.dumps(table))
    text = write(tmp_path)
    assert "### Table 4\n" in text and "other runs" not in text
    assert row(text, "b")[0].startswith("410 / 464 = **88.36**") and row(text, "b")[1] == "+2.16"
    (folder / "table_parts.json").write_text("{}")
    with pytest.raises(UserError, match=r"table_parts\.json lacks paired"):
        write(tmp_path)


def test_descriptions_have_a_table_of_their_own(tmp_path):
    scores = {"mention_correct": 90, "mention_total": 200, "bleu": 31.26, "chrf": 50.0}
    scores |= {"likelihood_correct": 150, "likelihood_total": 200, "rouge_l": 0.5}
    for seed, correct in enumerate((90, 110)):
        said = scores | {"mention_correct": correct}
        add_run(tmp_path, f"T3_seed{seed}", seed=seed, captions=said)
    add_run(tmp_path, "T0_seed0")
    (found,) = rows(write(tmp_path).partition("## How good")[2])
    assert found["run"] == "T3" and found["names the class"] == "90, 110 / 200 = **50.00 ± 7.07**"
    assert (found["BLEU"], found["chrF"], found["ROUGE-L"]) == ("31.3", "50", "0.5")
    add_run(tmp_path, "T3_seed2", seed=2, captions=scores | {"mention_total": 100})
    with pytest.raises(UserError, match="describe as many"):
        write(tmp_path)


def test_attributes_of_the_clip_have_a_table_with_every_seed(tmp_path):
    scores = {"mention_correct": 90, "mention_total": 200, "bleu": 31.26, "chrf": 50.0}
    scores |= {"likelihood_correct": 150, "likelihood_total": 200, "rouge_l": 0.5}
    for seed in range(2):
        side = {"correct": 60 + 20 * seed, "wrong": 30 - 20 * seed, "unnamed": 10, "total": 100}
        said = {"side": side | {"majority": 70, "probe": 88}} | ({"count": side} if seed else {})
        add_run(tmp_path, f"T3_seed{seed}", seed=seed, captions=scores | {"attributes": said})
    add_run(tmp_path, "bank_seed0", seed=0, captions=scores | {"attributes": {}})
    (found,) = rows(write(tmp_path).partition("most frequent value, and")[2])
    assert (found["run"], found["of the clip"]) == ("T3", "side")
    assert found["named right"] == "60, 80 / 100 = **70.00 ± 14.14**"
    assert found["linear probe"].startswith("88, 88 / 100")
    assert (found["wrong"], found["not named"]) == ("30, 10", "10, 10")


def test_check_notices_a_changed_run(tmp_path):
    with pytest.raises(UserError, match=r"no result\.json"):
        write(tmp_path)
    add_run(tmp_path, "a_seed0")
    with pytest.raises(UserError, match=r"results\.md does not show"):
        write(tmp_path, "--check")
    write(tmp_path)
    before = write(tmp_path, "--check")
    add_run(tmp_path, "a_seed0", correct=441)
    with pytest.raises(UserError, match="does not show"):
        write(tmp_path, "--check")
    assert (tmp_path / "docs/results.md").read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.rglob("*.md")] == ["results.md"]


def test_committed_document_is_up_to_date(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert main(["report", "--check"]) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "expected a JSON object"),
        ("{}", "dataset, protocol, .* missing or of the wrong type"),
        (json.dumps(RESULT | {"correct": "440"}), "correct missing or of the wrong type"),
        (json.dumps(RESULT | {"samples_per_s": float("nan")}), "is not valid JSON"),
        (json.dumps(RESULT | {"correct": 465}), "correct is not between 0 and total"),
        (json.dumps(RESULT | {"total": 0, "correct": 0, "best_correct": 0}), "between 0 and total"),
    ],
)
def test_broken_results_are_named(tmp_path, text, message):
    path = tmp_path / "results/sub/result.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(UserError, match=rf"sub/result\.json.*{message}"):
        write(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"seed": 1, "epochs": 30}, r"differ in epochs \(30, 65\)"), ({}, "one seed twice")],
)
def test_runs_that_are_not_seeds_of_one_are_not_averaged(tmp_path, changes, message):
    add_run(tmp_path, "a_seed0")
    add_run(tmp_path, "a_seed1", **changes)
    with pytest.raises(UserError, match=message):
        write(tmp_path)
