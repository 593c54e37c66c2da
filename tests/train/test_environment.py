"""The environment of a run, as its result records it."""

import sys

import pytest

from hocslm_jax.train import environment


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        ("/clone/launch.py", "python launch.py"),
        ("/env/lib/hocslm_jax/__main__.py", "python -m hocslm_jax"),
        ("/env/bin/hocslm-jax", "hocslm-jax"),
    ],
)
def test_the_recorded_command_can_be_run_again(monkeypatch, program, wanted):
    monkeypatch.setattr(sys, "argv", [program, "train", "--config=nw_ucla:stream=bone"])
    assert environment.command() == f"{wanted} train --config=nw_ucla:stream=bone"
