"""The benchmark of packing, with a language model of two layers."""

import json

import pytest

from benchmarks import packing

SMALL = ["--lm=tiny", "--batch=16", "--tokens=24", "--mean=8", "--spread=2", "--repetitions=2"]


def test_both_ways_have_one_loss_and_the_result_is_written(tmp_path, capsys):
    out = tmp_path / "new" / "packing.json"
    assert packing.main([*SMALL, "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["loss"]["packed"] == pytest.approx(result["loss"]["unpacked"], rel=1e-5)
    assert result["ratio"] > 0 and {"machine", "versions", "command"} <= set(result)
    sizes = result["positions"]
    assert sizes["real"] <= sizes["packed"] < sizes["unpacked"] == 16 * 32
    assert "times as fast" in capsys.readouterr().out


def test_even_captions_are_measured_unpacked_alone(capsys):
    assert packing.main([*SMALL, "--mean=24", "--spread=0"]) == 0
    said = capsys.readouterr().out
    assert "unpacked" in said and "times as fast" not in said
