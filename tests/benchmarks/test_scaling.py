"""The scaling tables and the growth figure, from results that are made up; nothing is compiled."""

import json
from importlib import metadata
from pathlib import Path

import pytest

from benchmarks import compile_gpu, cost_growth, scaling
from hocslm_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
RESULT, DOCUMENT = ROOT / "results/benchmarks/scaling.json", ROOT / "docs/scaling.md"


def planned(row: scaling.Row, settings: str = "") -> dict:
    devices = scaling.CHIPS[row.place]
    return {
        "settings": row.settings(settings),
        "devices": devices,
        "batch_size": row.batch,
        "bytes": {"peak": 13 * 2**30, "generated_code": 2**30, "hbm": 16 * 2**30},
        "flops": {"ideal": 2e13, "matrix": 2.2e13},
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
        return planned(row, more) | {"wall_s": 1.0}

    monkeypatch.setattr(scaling, "measure", measure)
    monkeypatch.setattr(metadata, "version", lambda name: "0")
    return ["--json", str(tmp_path / "new" / "scaling.json")], calls


def test_the_grid_holds_what_it_should():
    rows = {row.name: row for row in scaling.rows()}
    weak, strong = rows["ctrgcn T3 weak v5e:16x16"], rows["ctrgcn T3 strong v5e:16x16"]
    assert (weak.batch, strong.batch) == (16 * 256, 256)
    assert rows["ctrgcn T0 weak v5p:4x8x8"].batch == weak.batch
    assert "batch_size=4096,eval_batch_size=4096,model.encoder=ctrgcn" in weak.settings("")
    assert {row.strategy for row in scaling.rows("* T0 *")} == {"T0"}
    assert {row.place for row in scaling.rows("hglnet *")} == {1, 3}


def test_it_goes_on_where_it_stopped(made):
    argv, calls = made
    assert scaling.main([*argv, "--rows", "ctrgcn T3 weak v5e*"]) == 0
    assert len(calls) == 4
    assert scaling.main([*argv, "--rows", "ctrgcn T3 weak *"]) == 0
    assert len(calls) == 8 and len(set(calls)) == 8
    assert scaling.main([*argv, "--rows", "ctrgcn T3 weak v5e:4x4", "--set", "width=16"]) == 0
    assert calls[8:] == ["ctrgcn T3 weak v5e:4x4"]
    result = json.loads(Path(argv[1]).read_text())
    assert len(result["rows"]) == 8 and {"machine", "versions", "command"} <= set(result)


def test_one_step_on_one_slice_is_compiled_once(made):
    argv, calls = made
    assert scaling.main([*argv, "--rows", "ctrgcn T3 *v5e:4x4"]) == 0
    assert calls == ["ctrgcn T3 weak v5e:4x4"]  # 16 clips on each of 16 chips are 256 clips
    rows = json.loads(Path(argv[1]).read_text())["rows"]
    assert rows["ctrgcn T3 strong v5e:4x4"] == rows["ctrgcn T3 weak v5e:4x4"]


def test_tables_take_the_place_of_their_markers(made, tmp_path, capsys):
    argv, _ = made
    scaling.main([*argv, "--rows", "* T3 weak v5e*", "--set", "width=16"])
    document = tmp_path / "scaling.md"
    kinds = dict.fromkeys(row.name.rpartition(" ")[0] for row in scaling.rows())
    names = ("settings", *kinds)
    document.write_text("".join(f"{name}:\n<!-- {name} -->\nold\n<!-- end -->\n" for name in names))
    docs = [*argv, "--docs", str(document)]
    assert scaling.main([*docs, "--check"]) == 2 and "stale" in capsys.readouterr().err
    assert scaling.main(docs) == 0 and scaling.main([*docs, "--check"]) == 0
    text = document.read_text()
    assert "old" not in text and "6 of 27 rows are compiled, by `python" in text
    lines = [line for line in text.splitlines() if line.startswith("| `v5e")]
    chips = [line.split(" | ")[1] for line in lines]
    assert chips == ["16", "256", "4", "16", "64", "256"]  # of HGLNet, then of CTR-GCN
    assert "| 256 | 4,096 | 14.0 | 22.00 | 1.10 | 0.03 | 130.0 | arithmetic | 320 |" in lines[-1]
    assert "12,800 to 31,508" in lines[-1]
    assert "v5e: from 16 to 256 chips the products of one chip change by +0.00%." in text
    assert "v5p: from" not in text
    document.write_text("no place")
    assert scaling.main(docs) == 2 and "<!-- hglnet T3 weak -->" in capsys.readouterr().err


def test_a_step_that_does_not_fit_is_a_row_too():
    row = scaling.rows("ctrgcn T3 strong v5e:2x2")[0]
    found = {"devices": 4, "batch_size": 256, "bytes": {}, "does_not_fit": "Used 40G of 15.75G hbm"}
    line = scaling.cells(row, found)
    assert len(line) == len(scaling.COLUMNS) and "Used 40G" in line[3]


def test_a_row_that_fails_is_named(monkeypatch, tmp_path, capsys):
    def fails(row, more, limit):
        raise UserError(f"{row.name}: not compiled in {limit} s; raise --limit")

    monkeypatch.setattr(scaling, "measure", fails)
    assert scaling.main(["--json", str(tmp_path / "a.json"), "--limit", "1"]) == 2
    assert "not compiled in 1 s" in capsys.readouterr().err


@pytest.mark.skipif(not RESULT.is_file(), reason="no scaling table has been compiled yet")
def test_the_document_shows_the_result():
    assert scaling.main(["--json", str(RESULT), "--docs", str(DOCUMENT), "--check"]) == 0


def test_growth_varies_one_size_at_a_time():
    points = cost_growth.points()
    base = cost_growth.BASE
    assert base in points and len({cost_growth.key(point) for point in points}) == len(points)
    assert all(sum(point[name] != base[name] for name in base) <= 1 for point in points)


def test_the_figure_shows_measurements_and_plans(tmp_path):
    result = {"points": {}}
    for point in cost_growth.points():
        result["points"][cost_growth.key(point)] = {"clips_per_s": 100 / point["frames"]}
    planned_file = tmp_path / "scaling.json"
    rows = scaling.rows("ctrgcn T3 weak *")
    planned_file.write_text(json.dumps({"rows": {row.name: planned(row) for row in rows}}))
    found = cost_growth.estimates(planned_file)
    assert list(found) == ["ctrgcn T3 weak v5e", "ctrgcn T3 weak v5p"]
    assert list(found["ctrgcn T3 weak v5e"]) == [4, 16, 64, 256]
    assert cost_growth.lines(result)["frames"][64] == 100 / 64
    cost_growth.draw(result, found, tmp_path / "new" / "growth.png")
    assert (tmp_path / "new" / "growth.png").stat().st_size > 10_000
    assert cost_growth.estimates(tmp_path / "absent.json") == {}


def test_the_table_of_gpus_shows_its_file():
    result = RESULT.with_name("compile_gpu.json")
    assert compile_gpu.main(["--json", str(result), "--docs", str(DOCUMENT), "--check"]) == 0
    names = [case.name for case in compile_gpu.cases()]
    assert len(set(names)) == len(names) and set(json.loads(result.read_text())["rows"]) <= {*names}
