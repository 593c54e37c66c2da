"""The verb `ablate`: the runs of a table, stopping at a failure, and copies of reports."""

import argparse
import importlib
import itertools
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble import ENSEMBLES
from hocslm_jax.evaluate.scores import Scores, save_scores
from hocslm_jax.models import encoder_config
from hocslm_jax.train import ablate

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "configs/ablations/strategies.py"


def write_result(folder, seed, correct):
    texts = dict.fromkeys(("dataset", "protocol", "encoder", "stream", "strategy"), "a")
    result = texts | {"seed": seed, "epochs": 1, "correct": correct, "total": 40}
    (folder / "result.json").write_text(json.dumps(result))


@pytest.fixture
def launched(monkeypatch):
    """Replaces runs: each command writes the result of its workdir, or fails."""
    commands, failing = [], []

    def run(command):
        workdir = Path(next(arg for arg in command if "--workdir" in arg).partition("=")[2])
        commands.append(command[4:])
        if workdir.name not in failing:
            workdir.mkdir(parents=True, exist_ok=True)
            name, _, seed = workdir.name.partition("_seed")
            write_result(workdir, int(seed), len(name) + int(seed))
        return subprocess.CompletedProcess(command, 1 if workdir.name in failing else 0)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.chdir(ROOT)
    return commands, failing


def arguments(tmp_path, *more, table=TABLE):
    parser = argparse.ArgumentParser()
    ablate.add_arguments(parser)
    return parser.parse_args([str(table), "--workdir", str(tmp_path / "runs"), *more])


def test_every_row_and_seed_is_run_and_t0_only_once(launched, tmp_path):
    commands, _ = launched
    out = tmp_path / "results"
    ablate.run(arguments(tmp_path, "--seeds", "0", "4", "--set", "width=8", "--out", str(out)))
    rows = ablate.read_table(TABLE).rows
    assert len(commands) == 2 * len(rows) and len({tuple(c) for c in commands}) == len(commands)
    for config, workdir, language in commands:
        name, _, seed = Path(workdir).name.partition("_seed")
        assert f"strategy={name},seed={seed},width=8" in config
        assert language.endswith(f"runs/lm_seed{seed}")
        shares = name in ("T0+", "T1", "T3", "shuffled")  # T2 and T4 do not start from T0
        assert config.endswith(f",t0={tmp_path}/runs/T0_seed{seed}") == shares
    kept = {path.parent.name for path in out.glob("*/result.json")}
    assert kept == {f"{name}_seed{seed}" for name in rows for seed in (0, 4)}


def test_a_row_may_name_the_run_of_another(launched, tmp_path):
    commands, _ = launched
    table = tmp_path / "pairs.py"
    rows = {"first": "lr=0.1", "second": "distill.teacher={workdir}/first_seed{seed}"}
    table.write_text(f"CONFIG = 'configs/nw_ucla.py'\nROWS = {rows}\n")
    ablate.run(arguments(tmp_path, "--seeds", "3", table=table))
    assert f"distill.teacher={tmp_path}/runs/first_seed3,seed=3" in commands[1][0]
    assert (tmp_path / "runs/first_seed3").is_dir()


def test_single_row_starts_from_a_finished_t0(launched, tmp_path):
    commands, _ = launched
    for rows in ("T1", "T0", "T3"):
        ablate.run(arguments(tmp_path, "--seeds", "0", "--rows", rows))
    assert [",t0=" in config for config, *_ in commands] == [False, False, True]


def test_rows_can_be_chosen_and_a_failure_stops(launched, tmp_path):
    commands, failing = launched
    failing.append("T2_seed0")
    with pytest.raises(UserError, match=r"T2_seed0 ended with status 1"):
        ablate.run(arguments(tmp_path, "--rows", "T0", "T2", "T3"))
    assert len(commands) == 2
    with pytest.raises(UserError, match="no row 'T9'"):
        ablate.run(arguments(tmp_path, "--rows", "T9"))


def read_rows(path):
    return {row["row"]: row for row in json.loads(path.read_text())["rows"]}


def test_the_table_includes_the_papers_numbers(launched, tmp_path, capsys):
    table = TABLE.with_name("components.py")
    out = tmp_path / "results"
    options = ("--rows", "ctrgcn", "hglnet", "--out", str(out), "--seeds", "0", "1")
    ablate.run(arguments(tmp_path, *options, table=table))
    printed = capsys.readouterr().out
    text = (out / "table_components.md").read_text()
    assert text.strip() in printed and "Table 4" in text
    rows = read_rows(out / "table_components.json")
    assert rows["ctrgcn"]["correct"] == [6, 7] and rows["hocslm"]["correct"] == []
    assert "| ctrgcn | 6, 7 / 40 = **16.25 ± 1.77** | – | – | 89.96 |" in text
    assert "| hocslm | – | – |" in text
    ablate.run(arguments(tmp_path, "--summarise", table=table))
    assert (tmp_path / "runs/table_components.md").read_text() == text


def test_another_config_replaces_the_one_of_the_table(launched, tmp_path):
    commands, _ = launched
    table = TABLE.with_name("global_local.py")
    options = ("--config", "configs/ntu60_xsub.py", "--rows", "local", "--seeds", "3")
    ablate.run(arguments(tmp_path, *options, table=table))
    ((config, *_),) = commands
    assert config == "--config=configs/ntu60_xsub.py:strategy=T0,gsm=false,gta=false,seed=3"


@pytest.mark.parametrize("path", sorted(TABLE.parent.glob("*.py")), ids=lambda path: path.stem)
@pytest.mark.parametrize("config", ["own", "ntu60_xsub"])
def test_every_row_of_every_table_is_a_valid_run(path, config):
    table = ablate.read_table(path)
    name = Path(table.config).stem if config == "own" else config
    load = importlib.import_module(f"configs.{name}").get_config
    for name, arg in table.rows.items():
        assert encoder_config(load(arg).model), name
    assert set(table.published) <= {*table.rows, *ENSEMBLES} and table.title
    assert len({str(load(arg)) for arg in table.rows.values()}) == len(table.rows)


def test_table_of_streams_includes_ensembles(tmp_path):
    for seed, stream in itertools.product((0, 1), PAPER_STREAMS[:2]):
        folder = tmp_path / f"{stream}_seed{seed}"
        folder.mkdir()
        rng = np.random.default_rng(seed)
        labels = np.arange(40, dtype=np.int32) % 4
        logits = rng.normal(size=(40, 4)).astype(np.float32) + np.eye(4, dtype=np.float32)[labels]
        scores = Scores(tuple(f"clip{row}" for row in range(40)), labels, logits)
        save_scores(folder / "scores.npz", scores)
        write_result(folder, seed, scores.correct)
        (folder / "config.json").write_text(json.dumps({"data": {"stream": stream}, "seed": seed}))
    table = ablate.read_table(TABLE.with_name("streams.py"))
    ablate.write_table(table, tmp_path, tmp_path)
    rows = read_rows(tmp_path / "table_streams.json")
    assert rows["joint"]["published"] == 90.84
    assert rows["2 streams"]["seeds"] == [0, 1] and rows["2 streams"]["published"] == 92.64
    assert (
        rows["2 streams"]["correct"] == rows["joint"]["correct"]
    )  # both streams have equal scores here
    assert rows["6 streams"]["correct"] == []


def test_a_file_that_is_not_a_table_is_named(tmp_path):
    (tmp_path / "table.py").write_text("ROWS = {}")
    for name in ("table.py", "nothing.py"):
        with pytest.raises(UserError, match=name):
            ablate.read_table(tmp_path / name)
