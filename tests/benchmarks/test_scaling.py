"""The scaling benchmark fills its rows once and resumes; nothing is compiled."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from benchmarks import scaling
from hocslm_jax.errors import UserError


def planned(row: scaling.Row, settings: str = "") -> dict:
    return {
        "config": row.config(settings),
        "topology": row.topology,
        "devices": 4,
        "batch_size": row.batch,
        "bytes": {"peak": 13 * 2**30, "generated_code": 2**30, "hbm": 16 * 2**30},
        "flops": {"ideal": 2e13, "matrix": 2.2e13},
        "hbm_traffic": 5e9,
        "collectives": {"all-reduce": {"sent": 3e7}},
        "seconds": {"step": 0.13, "compiler": 0.32},
        "examples_per_s": {"at_best": row.batch / 0.13, "compiler": row.batch / 0.32},
        "bound": "arithmetic",
        "fits": True,
    }


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Arguments of the command, with a plan that takes no time."""
    calls = []

    def measure(row, more, limit):
        calls.append(row.name)
        return planned(row, more)

    monkeypatch.setattr(scaling, "measure", measure)
    monkeypatch.setattr(metadata, "version", lambda name: "0")
    return ["--json", str(tmp_path / "new" / "scaling.json")], calls


def test_weak_scaling_keeps_the_clips_of_a_chip():
    rows = {row.name: row for row in scaling.rows()}
    weak, strong = rows["ctrgcn T3 weak v5e:16x16"], rows["ctrgcn T3 strong v5e:16x16"]
    assert (weak.batch, strong.batch) == (16 * 256, 256)
    assert "batch_size=4096,eval_batch_size=4096,model.encoder=ctrgcn" in weak.config("")
    assert {row.table for row in scaling.rows("* weak *")} == {"weak"}


def test_it_resumes_and_compiles_each_step_once(made):
    argv, calls = made
    for pattern in ("ctrgcn T3 weak v5e*", "ctrgcn T3 weak *"):
        assert scaling.main([*argv, "--rows", pattern]) == 0
    assert len(calls) == 4 and len(set(calls)) == 4
    # 16 clips on each of 16 chips are 256 clips: the same step as in strong scaling.
    assert scaling.main([*argv, "--rows", "ctrgcn T3 *v5e:4x4"]) == 0
    assert len(calls) == 4
    assert scaling.main([*argv, "--rows", "ctrgcn T3 weak v5e:4x4", "--set", "width=16"]) == 0
    assert calls[4:] == ["ctrgcn T3 weak v5e:4x4"]
    result = json.loads(Path(argv[1]).read_text())
    assert len(result["rows"]) == 5 and {"machine", "versions", "command"} <= set(result)


def test_a_row_of_the_table():
    row = scaling.rows("ctrgcn T3 weak v5e:16x16")[0]
    line = " | ".join(scaling.cells(row, planned(row)))
    assert "| 4,096 | 14.0 | 22.00 | 5.0 | 0.03 | 130.0 | arithmetic | 320 |" in line
    assert "12,800 to 31,508" in line
    unknown = {k: v for k, v in planned(row).items() if k not in ("bound", "hbm_traffic")}
    line = scaling.cells(row, unknown)
    assert line[3:] == ["14.0", "22.00", "–", "–", "–", "–", "320", "–"]
    too_large = {"devices": 4, "batch_size": 256, "bytes": {}, "does_not_fit": "40G of 15.75G hbm"}
    line = scaling.cells(row, too_large)
    assert len(line) == len(scaling.COLUMNS) and "40G" in line[3]


def test_a_row_that_fails_is_named(monkeypatch, tmp_path, capsys):
    def fails(row, more, limit):
        raise UserError(f"{row.name}: not compiled in {limit} s; raise --limit")

    monkeypatch.setattr(scaling, "measure", fails)
    assert scaling.main(["--json", str(tmp_path / "a.json"), "--limit", "1"]) == 2
    assert "--limit" in capsys.readouterr().err
