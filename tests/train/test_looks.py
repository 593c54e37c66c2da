"""Looks at validation clips: a row counts what `config.test` would; test clips are refused."""

import json
import types

import pytest
import tiny_run

from benchmarks import looks
from hocslm_jax.errors import UserError
from hocslm_jax.train import augmented_test, checkpoint, loop
from hocslm_jax.train.state import eval_variables


def test_every_row_is_what_a_run_would_count(tmp_path, monkeypatch):
    changes = {"train.epochs": 1, "data.streams": ("joint", "bone")}
    run = tiny_run.make_run(tmp_path, changes)
    assert loop.train(run).finished
    variables = checkpoint.restore_variables(tmp_path, eval_variables(run.abstract_state))
    rows = {"plain": (1, 0.0, 1, False), "turned": (3, 30.0, 1, True)}
    scored, score = [], looks.score
    monkeypatch.setattr(looks, "score", lambda *args: scored.append(args[2]) or score(*args))
    found = looks.counts(run, variables, rows)
    assert len(scored) == len(set(scored)) == 6  # the plain look is one of the turned ones
    result = json.loads((tmp_path / "result.json").read_text())
    assert found["plain"] == {"seed": 0, "correct": result["correct"], "total": 16}
    wanted = changes | {"test.views": 3, "test.mirror": True}
    told = augmented_test.score(tiny_run.make_run(tmp_path, wanted), variables)["tta"]
    assert (told["looks"], told["correct"]) == (6, found["turned"]["correct"])
    with pytest.raises(UserError, match="protocol xview, whose test clips must not choose"):
        looks.open_run(tmp_path)


def test_gains_are_run_by_run(tmp_path, monkeypatch, capsys):
    run = types.SimpleNamespace(abstract_state=None, config=types.SimpleNamespace(seed=0))
    monkeypatch.setattr(looks, "open_run", lambda workdir: run)
    monkeypatch.setattr(looks, "eval_variables", lambda state: None)
    monkeypatch.setattr(looks.checkpoint, "restore_variables", lambda workdir, wanted: workdir.name)
    hits = {"a": (50, 53), "b": (40, 45)}

    def counts(run, name, rows):
        plain, more = hits[name]
        return {
            row: {"seed": 0, "correct": more if row == "mirror" else plain, "total": 100}
            for row in rows
        }

    monkeypatch.setattr(looks, "counts", counts)
    looks.run(looks.parse(["a", "b", "--out", str(tmp_path)]))
    text = (tmp_path / "table_looks.md").read_text()
    assert "| mirror | 0, 0 | 53, 45 / 100 |" in text and "+4.00 [" in text
    assert text.strip() in capsys.readouterr().out
    assert json.loads((tmp_path / "table_looks.json").read_text())["runs"] == ["a", "b"]
