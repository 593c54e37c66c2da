"""The suite of NW-UCLA: what it runs, what it skips, and that it resumes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import nw_ucla_suite
from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError

T0 = "hglnet_T0_seed0"


def leave(path):
    """A file with what any later step may look for in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"mistakes": {"clips": [{"clip": "a01_s01_e00_v03"}]}}))


def act(words):
    """Leaves what a command would."""
    if "launch.py" in words:
        workdir = Path(words[3].removeprefix("--workdir="))
        name = "scores_train.npz" if "--mode=eval" in words else "result.json"
        for stream in (".", *(PAPER_STREAMS if "streams=all" in words[2] else ())):
            leave(workdir / stream / name)
        return
    target = Path(words[words.index("--json" if "--json" in words else "--out") + 1])
    leave(target / PAPER_STREAMS[-1] / "README.md" if "release" in words else target)


@pytest.fixture
def launched(monkeypatch):
    """Commands instead of runs: each leaves what its step asks for, unless it fails."""
    done, failing = [], []

    class Process:
        def __init__(self, command):
            done.append(" ".join(command[1:]))
            self.status = int(any(name in done[-1] for name in failing))
            if not self.status:
                act(list(command))

        def wait(self, timeout=None):
            return self.status

    monkeypatch.setattr(subprocess, "Popen", Process)

    def report(command):
        done.append(command[3])
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", report)
    return done, failing


def suite(tmp_path, *options):
    args = ["--out", str(tmp_path / "suite"), "--seeds", "0", "1", *options]
    return nw_ucla_suite.run(nw_ucla_suite.parse(args))


def test_the_whole_plan_is_run_once(launched, tmp_path):
    done, _ = launched
    results = tmp_path / "results/nw_ucla/suite"
    options = ("--set", "epochs=2", "--results", str(results))
    assert suite(tmp_path, *options) == 0
    training = [command for command in done if "launch.py" in command]
    assert len(training) == 2 * (2 + 1 + 2 * 6) + 4 and all("epochs=2" in c for c in training)
    for folder in ("held_out/", ""):
        teacher = f"{tmp_path}/suite/{folder}{T0}"
        scored = next(c for c in done if f"{teacher} --mode=eval" in c)
        student = next(c for c in done if f"distill.teacher={teacher} " in c)
        assert "streams=all" in scored and "stream=joint" in student
        assert done.index(scored) < done.index(student)
        assert ("protocol=xview_val" in student) == bool(folder)
    t3 = next(command for command in training if "strategy=T3" in command)
    assert f"t0={tmp_path}/suite/{T0}/joint " in t3 and "lm_seed0" in t3
    assert any("render" in command and "a01_s01_e00_v03" in command for command in done)
    assert done[-1] == "report" and len(set(done)) == len(done)
    assert (results / T0 / "bone" / "result.json").is_file()
    count = len(done)
    assert suite(tmp_path, *options) == 0 and done[count:] == ["report"]  # nothing is done again


def test_steps_after_a_failed_one_are_skipped(launched, tmp_path, capsys):
    done, failing = launched
    failing.append("ctrgcn,streams=all")
    assert suite(tmp_path) == 1
    assert not any("encoder=ctrgcn,stream=joint" in command for command in done)
    assert any("encoder=hglnet,stream=joint" in command for command in done)
    assert "failed: python launch.py" in capsys.readouterr().err


def test_a_dry_run_says_what_is_left(launched, tmp_path, capsys):
    done, _ = launched
    leave(tmp_path / "suite" / T0 / "result.json")
    assert suite(tmp_path, "--dry-run") == 0 and not done
    lines = capsys.readouterr().out.splitlines()
    assert [T0 in line for line in lines if line.startswith("done")] == [True]


def test_the_time_ends_a_run_that_saves_itself(tmp_path):
    code = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); time.sleep(60)"
    step = nw_ucla_suite.Step(tmp_path / "run/result.json", (sys.executable, "-c", code))
    with pytest.raises(UserError, match=r"time is over in .*run"):
        nw_ucla_suite.do(step, nw_ucla_suite.time.monotonic() + 1)
    with pytest.raises(UserError, match="time is over"):
        nw_ucla_suite.do(step, 0)
