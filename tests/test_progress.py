"""Progress reports of a long loop, on a terminal and elsewhere."""

import re
import sys

import jax
import jax.numpy as jnp
import pytest

from hocslm_jax import progress
from hocslm_jax.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_comes_at_least_every_so_many_seconds(clock, capsys):
    with Progress(1000, start=400, every_s=30) as reporter:
        for step in range(401, 501):
            clock[0] += 1
            reporter.update(step, loss=jnp.float32(0.5), clips_per_s=16)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # in 100 seconds
    # One step a second, so as many seconds are left as steps.
    assert [line.split("  ") for line in lines][2] == [
        "step 490/1,000",
        "loss 0.5",
        "16.0 clips/s",
        "08:30 left",
    ]


def test_rate_defaults_to_that_of_the_loop(clock, capsys):
    reporter = Progress(100, unit="clip", every_s=10)
    clock[0] += 200  # the first step compiles
    reporter.update(1)
    for step in range(2, 50):
        clock[0] += 0.5
        reporter.update(step)
    first, *others = capsys.readouterr().out.splitlines()
    assert "left" not in first  # nothing is known yet
    assert others and all("2.0 clips/s" in line for line in others)


def test_a_terminal_gets_a_bar(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(10) as reporter:
        for step in range(1, 11):
            clock[0] += 1
            reporter.update(step, loss=0.25)
    seen = capsys.readouterr()
    assert not seen.out
    assert "10/10" in seen.err and re.search(r"loss 0\.25", seen.err)


def test_other_processes_are_silent(clock, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Progress(10, every_s=1) as reporter:
        clock[0] += 5
        reporter.update(5, loss=1.0)
    assert capsys.readouterr() == ("", "")
