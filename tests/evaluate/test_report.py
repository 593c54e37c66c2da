"""The results table: only what the runs themselves say, and never stale unnoticed."""

import argparse
import json
from pathlib import Path

import pytest

from hocslm_jax.__main__ import main
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate import report

RESULT = {
    "dataset": "nw_ucla",
    "protocol": "xview",
    "encoder": "hglnet",
    "stream": "joint",
    "strategy": "T0",
    "seed": 0,
    "epochs": 65,
    "steps": 20670,
    "top1": 0.5,  # wrong on purpose: the table must count for itself
    "correct": 440,
    "total": 464,
    "best_correct": 448,
    "samples_per_s": 812.4,
    "wall_clock_s": 5400.0,
    "peak_memory_bytes": 1,
    "machine": {"platform": "gpu", "device": "NVIDIA H100", "devices": 1},
    "versions": {},
    "command": "python launch.py --config=configs/nw_ucla.py",
}


def add_run(folder, name, **changes):
    path = folder / name / "result.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(RESULT | changes))
    return path


def run(tmp_path, *options):
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    out = tmp_path / "docs/results.md"
    folders = ["--results", str(tmp_path / "results"), "--out", str(out)]
    report.run(parser.parse_args([*folders, *options]))
    return out.read_text(encoding="utf-8")


def table(text):
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("| ").split(" | ")] for row in rows]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_one_run_is_one_row(tmp_path):
    add_run(tmp_path / "results", "nw_ucla/hglnet_joint_seed0")
    (row,) = table(run(tmp_path))
    assert row == {
        "run": "nw_ucla/hglnet_joint",
        "dataset": "nw_ucla",
        "protocol": "xview",
        "encoder": "hglnet",
        "stream": "joint",
        "strategy": "T0",
        "seeds": "0",
        "correct / total": "440 / 464",
        "top-1, last epoch": "**94.83**",
        "top-1, best epoch ¹": "96.55",
        "epochs": "65",
        "clips/s ²": "812",
        "wall clock": "1 h 30 min",
        "machine": "NVIDIA H100",
    }


def test_seeds_share_a_row_with_mean_and_spread(tmp_path):
    for seed, correct in ((10, 444), (0, 440), (1, 442)):
        add_run(tmp_path / "results", f"a_seed{seed}", seed=seed, correct=correct)
    (row,) = table(run(tmp_path))
    assert row["seeds"] == "0, 1, 10"
    assert row["correct / total"] == "440, 442, 444 / 464"
    assert row["top-1, last epoch"] == "**95.26 ± 0.43**"  # 2 clips of 464 are 0.431 per cent


def test_other_runs_have_their_own_rows(tmp_path):
    results = tmp_path / "results"
    add_run(results, "a_seed0")
    add_run(results, "narrow_seed0")
    add_run(results, "b/seed0", dataset="ntu60")
    rows = [(row["dataset"], row["run"]) for row in table(run(tmp_path))]
    assert rows == [("ntu60", "b"), ("nw_ucla", "a"), ("nw_ucla", "narrow")]


def test_unknown_numbers_are_dashes_not_means_of_the_rest(tmp_path):
    add_run(tmp_path / "results", "a_seed0", samples_per_s=None, best_correct=None)
    add_run(tmp_path / "results", "a_seed1", seed=1, wall_clock_s=1800)
    (row,) = table(run(tmp_path))
    assert row["clips/s ²"] == row["top-1, best epoch ¹"] == "–"
    assert row["wall clock"] == "1 h 00 min"


@pytest.mark.parametrize(
    ("machine", "text"),
    [
        ({"platform": "cpu", "cpu": "Xeon", "cpu_cores": 2, "devices": 8}, "Xeon, 2 cores"),
        ({"platform": "tpu", "device": "TPU v5e", "devices": 16}, "16 × TPU v5e"),
        ("a laptop", "a laptop"),
        (None, "–"),
    ],
)
def test_machines_in_a_phrase(tmp_path, machine, text):
    add_run(tmp_path / "results", "a", machine=machine)
    assert table(run(tmp_path))[0]["machine"] == text


def test_descriptions_have_a_table_of_their_own(tmp_path):
    scores = {"mention_correct": 90, "mention_total": 200, "bleu": 31.26, "chrf": 50.0}
    scores |= {"likelihood_correct": 150, "likelihood_total": 200, "rouge_l": 0.5}
    for seed, correct in enumerate((90, 110)):
        told = scores | {"mention_correct": correct}
        add_run(tmp_path / "results", f"T3_seed{seed}", seed=seed, captions=told)
    add_run(tmp_path / "results", "T0_seed0")
    before, _, after = run(tmp_path).partition("## Descriptions")
    assert len(table(before)) == 2 and "BLEU" not in before
    (row,) = table(after)
    assert row["run"] == "T3" and row["name their class, %"] == "90, 110 / 200 = 50.00 ± 7.07"
    assert row["class by likelihood, %"] == "150, 150 / 200 = 75.00 ± 0.00"
    assert (row["BLEU"], row["chrF"], row["ROUGE-L"]) == ("31.3", "50", "0.5")
    add_run(tmp_path / "results", "T3_seed2", seed=2, captions=scores | {"mention_total": 100})
    with pytest.raises(UserError, match="describe as many"):
        run(tmp_path)


def test_check_notices_a_changed_run(tmp_path):
    results = tmp_path / "results"
    add_run(results, "a_seed0")
    with pytest.raises(UserError, match=r"results\.md does not show"):
        run(tmp_path, "--check")
    run(tmp_path)
    before = run(tmp_path, "--check")
    add_run(results, "a_seed0", correct=441)
    with pytest.raises(UserError, match="does not show"):
        run(tmp_path, "--check")
    assert (tmp_path / "docs/results.md").read_text(encoding="utf-8") == before


def test_this_repositorys_documents_are_up_to_date(monkeypatch):
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert main(["report", "--check"]) == 0


def test_links_lead_from_the_document_to_the_runs(tmp_path):
    path = add_run(tmp_path / "results", "nw_ucla/a_seed0")
    text = run(tmp_path)
    link = text.rpartition("](")[2].partition(")")[0]
    assert (tmp_path / "docs" / link).resolve() == path.resolve()
    assert RESULT["command"] in text


def test_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match=r"holds no result\.json; train first"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
        ("[1]", "expected a JSON object"),
        ("{}", "dataset, protocol, .* missing or of the wrong type"),
        (json.dumps(RESULT | {"correct": "440"}), "correct missing or of the wrong type"),
        (json.dumps(RESULT | {"wall_clock_s": "1 h"}), "wall_clock_s missing or of the wrong"),
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
        run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"seed": 1, "epochs": 30}, r"differ in epochs \(30, 65\)"), ({}, "one seed is there twice")],
)
def test_runs_that_are_not_seeds_of_one_are_not_averaged(tmp_path, changes, message):
    add_run(tmp_path / "results", "a_seed0")
    add_run(tmp_path / "results", "a_seed1", **changes)
    with pytest.raises(UserError, match=message):
        run(tmp_path)
