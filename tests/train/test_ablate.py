"""The verb `ablate`: which runs a table makes, where it stops, and the reports it keeps."""

import argparse
import json
import subprocess
from pathlib import Path

import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.train import ablate

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "configs/ablations/strategies.py"


@pytest.fixture
def launched(monkeypatch):
    """Commands instead of runs: each leaves the result of its workdir, or fails."""
    commands, failing = [], []

    def run(command):
        workdir = Path(next(arg for arg in command if "--workdir" in arg).partition("=")[2])
        commands.append(command[2:])
        if workdir.name not in failing:
            workdir.mkdir(parents=True, exist_ok=True)
            (workdir / "result.json").write_text(json.dumps({"run": workdir.name}))
        return subprocess.CompletedProcess(command, 1 if workdir.name in failing else 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(ROOT)
    return commands, failing


def arguments(tmp_path, *more):
    parser = argparse.ArgumentParser()
    ablate.add_arguments(parser)
    return parser.parse_args([str(TABLE), "--workdir", str(tmp_path / "runs"), *more])


def test_every_row_and_seed_is_run_and_t0_only_once(launched, tmp_path):
    commands, _ = launched
    out = tmp_path / "results"
    ablate.run(arguments(tmp_path, "--seeds", "0", "4", "--set", "width=8", "--out", str(out)))
    _, rows = ablate.read_table(TABLE)
    assert len(commands) == 2 * len(rows) and len({tuple(c) for c in commands}) == len(commands)
    for config, workdir, language in commands:
        name, _, seed = Path(workdir).name.partition("_seed")
        assert f"strategy={name},seed={seed},width=8" in config
        assert language.endswith(f"runs/lm_seed{seed}")
        shares = name in ("T0+", "T1", "T3", "shuffled")  # T2 and T4 do not start from T0
        assert config.endswith(f",t0={tmp_path}/runs/T0_seed{seed}") == shares
    kept = {path.parent.name for path in out.glob("*/result.json")}
    assert kept == {f"{name}_seed{seed}" for name in rows for seed in (0, 4)}


def test_rows_can_be_chosen_and_a_failure_stops(launched, tmp_path):
    commands, failing = launched
    failing.append("T2_seed0")
    with pytest.raises(UserError, match=r"T2_seed0 ended with status 1"):
        ablate.run(arguments(tmp_path, "--rows", "T0", "T2", "T3"))
    assert len(commands) == 2
    with pytest.raises(UserError, match="no row 'T9'"):
        ablate.run(arguments(tmp_path, "--rows", "T9"))


def test_a_file_that_is_no_table_is_named(tmp_path):
    (tmp_path / "table.py").write_text("ROWS = {}")
    for name in ("table.py", "nothing.py"):
        with pytest.raises(UserError, match=f"{name} is no table"):
            ablate.read_table(tmp_path / name)
