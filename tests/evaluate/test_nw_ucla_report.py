"""The document of NW-UCLA: whatever part of the plan is there, and verdicts that follow."""

import argparse
import json

import numpy as np
import pytest

from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate import report
from hocslm_jax.evaluate.classification import Scores, save_scores

TOTAL = 464
JOINT = "HGLNet, joint stream, T0, mean of the seeds"
RESULT = {
    "dataset": "nw_ucla",
    "protocol": "xview",
    "encoder": "hglnet",
    "stream": "joint",
    "strategy": "T0",
    "seed": 0,
    "epochs": 65,
    "correct": 0,
    "total": TOTAL,
    "best_correct": TOTAL,
    "command": "python launch.py --config=configs/nw_ucla.py",
}


def add_run(folder, correct=None, wrong=(), scores=True, prefix="clip", **changes):
    """A run that gets `wrong` rows wrong, or just a count."""
    labels = np.arange(TOTAL, dtype=np.int32) % 10
    logits = np.eye(10, dtype=np.float32)[labels]
    logits[list(wrong)] = np.eye(10, dtype=np.float32)[(labels[list(wrong)] + 1) % 10] * 2
    names = tuple(f"class{label}" for label in range(10))
    found = Scores(tuple(f"{prefix}{row:03}" for row in range(TOTAL)), labels, logits, names)
    result = RESULT | {"correct": found.correct if correct is None else correct} | changes
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    config = {"data": {"stream": result["stream"]}, "seed": result["seed"]}
    (folder / "config.json").write_text(json.dumps(config))
    if scores:
        save_scores(folder / "scores.npz", found)


def write(tmp_path, *options):
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    args = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "docs/results.md")]
    report.run(parser.parse_args([*args, *options]))
    return (tmp_path / "results/nw_ucla.md").read_text(encoding="utf-8")


def row(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def test_single_runs_without_scores_are_enough(tmp_path):
    folder = tmp_path / "results/nw_ucla"
    add_run(folder / "hglnet_joint_seed0", correct=440, scores=False)
    text = write(tmp_path)
    assert row(text, JOINT)[3] == "missed by 0.172 points"
    assert "not run yet" in row(text, "six streams, T0, equal weights, mean of the seeds")[3]
    assert "missed by 16 clips" in text and "1 of them are here" in text
    assert "## Wrong clips" not in text and "## Streams" not in text
    path = folder / "hglnet_joint_seed0/config.json"
    path.write_text(json.dumps({"model": {"width": 16}}))
    assert "0 of them are here" in write(tmp_path)
    assert row(text, "hglnet_joint")[5:8] == ["0", "440 / 464", "**94.83**"]


def test_six_streams_of_two_seeds(tmp_path):
    folder = tmp_path / "results/nw_ucla/six"
    for seed in (0, 1):
        for place, stream in enumerate(PAPER_STREAMS):
            wrong = [10 * place, 10 * place + 1, 200 + seed]
            add_run(folder / f"{stream}_seed{seed}", wrong=wrong, stream=stream, seed=seed)
    text = write(tmp_path)
    six = row(text, "6 streams")
    assert six[1:5] == ["0, 1", "463, 463 / 464", "**99.78 ± 0.00**", "–"]
    assert six[5:] == ["463, 463", "463, 463", "–"]
    assert row(text, "joint")[2] == "461, 461 / 464"
    assert row(text, "6 streams × 2 seeds")[1:3] == ["all", "462 / 464"]
    assert row(text, "six streams, T0, equal weights, mean of the seeds")[3] == "hit"
    assert (
        "463 clips, hglnet, T0, 65 epochs (`six/*`), 4 streams, equal weights, no. 1 | hit" in text
    )
    assert (
        "## Other runs" not in text
        and "of all 12 members" in text
        and "12 of them are here" in text
    )
    assert "Against the joint stream alone (461/464): 2 clips right that it has wrong, 1" in text


def test_part_of_the_streams_and_the_wrong_clips_of_the_best(tmp_path):
    folder = tmp_path / "results/nw_ucla/six"
    add_run(folder / "joint_seed0", wrong=[3, 4])
    add_run(folder / "bone_seed0", wrong=[5], stream="bone")
    text = write(tmp_path)
    assert row(text, "2 streams")[2].endswith("/ 464") and "| 4 streams |" not in text
    assert "of the run `bone_seed0`" in text and "clip005" in text and "class6" in text
    for clip in ("clip005", "clip006"):  # the latter is right
        (folder.parent / "wrong").mkdir(exist_ok=True)
        (folder.parent / f"wrong/{clip}.png").write_bytes(b"")
    assert write(tmp_path).count("![clip") == 1


def test_weights_are_fitted_on_held_out_runs_of_the_same_kind(tmp_path):
    folder = tmp_path / "results/nw_ucla"
    held = {"protocol": "xview_val", "prefix": "train"}
    for lr in (1, 2):  # a search of one stream is no family
        add_run(folder / f"search/lr{lr}_seed0", **held)
    for stream, wrong in (("joint", range(40)), ("bone", range(40, 45))):
        add_run(folder / f"six/{stream}_seed0", wrong=wrong, stream=stream)
        add_run(folder / f"val/{stream}_seed0", wrong=wrong, stream=stream, **held)
    text = write(tmp_path)
    assert row(text, "2 streams")[7] == "459"  # bone is trusted, as the held-out clips say
    assert "val/joint_seed0" in text and "`val/*`" not in text  # no result on the test view


def test_encoders_with_the_same_settings_are_compared(tmp_path):
    folder = tmp_path / "results/nw_ucla"
    wrong = {"ctrgcn": (range(10), range(5)), "hglnet": (range(4, 10), range(5, 8))}
    for encoder, (joint, bone) in wrong.items():
        add_run(folder / f"{encoder}/joint_seed0", wrong=joint, encoder=encoder)
        add_run(folder / f"{encoder}/bone_seed0", wrong=bone, encoder=encoder, stream="bone")
    text = write(tmp_path)
    assert "## Encoders: ctrgcn, T0, 65 epochs (`ctrgcn/*`) and hglnet, T0, 65" in text
    compared = text.partition("## Encoders")[2]
    assert row(compared, "joint")[1:6] == ["0", "454 / 464", "458 / 464", "0", "4"]
    assert row(compared, "joint")[6:] == ["0.12", "454 / 464"]
    assert row(compared, "2 streams")[2:4] == ["454 / 464", "458 / 464"]
    assert "the best of the 13 systems here" in text  # 4 runs, 2 x 3 ensembles, 3 of both encoders
    path = folder / "hglnet/bone_seed0/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"epochs": 3}))
    assert "## Encoders" not in write(tmp_path)


def test_a_student_is_shown_but_is_no_single_streams_result(tmp_path):
    folder = tmp_path / "results/nw_ucla"
    add_run(folder / "hglnet_joint_seed0", correct=430, scores=False)
    add_run(folder / "taught_seed0", correct=441, scores=False, distill={"share": 0.5})
    text = write(tmp_path)
    assert row(text, "taught")[6] == "441 / 464" and "1 of them are here" in text
    assert "92.67 %, 1 seed, hglnet_joint" in row(text, JOINT)[2]
    assert "missed by 15 clips" in text  # but it is a system


def test_counts_with_several_looks_stand_beside_the_plain_ones(tmp_path):
    asked = {"looks": 6, "views": 3, "angle": 20.0, "crops": 1, "mirror": True, "total": TOTAL}
    for seed, (plain, looked) in enumerate([(430, 434), (428, 429)]):
        together = {"streams": {}, "tta": asked | {"correct": looked}}
        folder = tmp_path / f"results/nw_ucla/six_seed{seed}"
        add_run(folder, correct=plain, scores=False, seed=seed, **together)
    add_run(tmp_path / "results/nw_ucla/joint_seed0", correct=420, scores=False)
    text = write(tmp_path)
    cells = ["six", "xview", "3, ±20°", "1", "yes", "6", "0, 1", "430, 428", "434, 429 / 464"]
    assert row(text, "six")[:9] == cells and text.count("| six |") == 1


def test_tables_of_ablations_are_taken_over_and_staleness_is_noticed(tmp_path):
    folder = tmp_path / "results/nw_ucla"
    add_run(folder / "components/hglnet_seed0", correct=450)
    (folder / "components/table_components.md").write_text("# Table 4: components\n\n| row |\n")
    text = write(tmp_path)
    assert "\n## Table 4: components\n\n| row |" in text and write(tmp_path, "--check") == text
    (folder / "components/table_components.md").write_text("# Table 4: other\n")
    with pytest.raises(UserError, match=r"nw_ucla\.md does not show"):
        write(tmp_path, "--check")
