"""The joint step's benchmark on a language model of a few layers; no weight is ever made."""

import importlib.util
import json

import pytest

from benchmarks import joint_program, joint_step
from hocslm_jax.models.qwen3 import num_params

SMALL = ["--lm=tiny", "--batch=4", "--tokens=32", "--chunk=8"]
SMALL += ["--width=8", "--frames=8", "--stages=1"]


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    args = joint_step.parse(SMALL)
    case = joint_step.build(args, "cpu")
    case.config.model.encoder = "ctrgcn"  # the one that compiles sooner
    return {name: joint_program.measure(case, name) for name in ("plain", "remat+chunk")}


def test_chunks_and_remat_save_memory_and_cost_flops(rows):
    plain, both = rows["plain"], rows["remat+chunk"]
    assert both["bytes"]["temporaries"] < plain["bytes"]["temporaries"]
    assert both["flops"]["products"] > plain["flops"]["products"]
    assert both["bytes"]["arguments"] == plain["bytes"]["arguments"]


def test_the_promises_hold_and_can_be_broken(rows):
    for row in rows.values():
        assert all(row["promises"].values()), row["promises"]
    assert rows["plain"]["whole_logits_in_program"]
    assert not rows["remat+chunk"]["whole_logits_in_program"]


def test_the_products_are_those_of_the_formula(rows):
    for row in rows.values():  # the formula leaves out the projector, 1.4 % of so small a network
        assert row["flops"]["products"] == pytest.approx(row["flops"]["formula"], rel=0.02)
        assert 1.9 < row["flops"]["lm_passes_but_remat"] < 2.5


def test_frozen_bytes_are_those_of_the_weights(rows):
    sizes = rows["plain"]["bytes"]
    assert sizes["frozen"] == 2 * num_params(joint_step.LMS["tiny"])
    # All arguments but, at most, those that the step does not read.
    given = sizes["state"] + sizes["frozen"] + sizes["batch"]
    assert sizes["arguments"] == pytest.approx(given, rel=0.01)


def test_logits_are_found_in_any_layout():
    found = joint_program.has_logits
    assert found("x = f32[4,32,1009]{2,1,0} dot(", 1009, 128)
    assert found("x = f32[128,1009]{0,1} dot(", 1009, 128)
    assert not found("x = f32[4,8,1009] dot(, bf16[4,32,1009]", 1009, 128)


def test_the_command_writes_its_result(rows, tmp_path, monkeypatch, capsys):
    ready = {"plain": rows["plain"], "remat+chunk": rows["remat+chunk"]}
    monkeypatch.setattr(
        joint_step, "elsewhere", lambda args, target, name: {"target": target} | ready[name]
    )
    out = tmp_path / "new" / "joint.json"
    argv = [*SMALL, "--variants", "plain", "remat+chunk", "--json", str(out)]
    assert joint_step.main(argv) == 0
    result = json.loads(out.read_text())
    assert [row["variant"] for row in result["rows"]] == ["plain", "remat+chunk"]
    assert {"machine", "versions", "command", "settings"} <= set(result)
    assert "held by all" in capsys.readouterr().out


def test_a_target_that_does_not_fit_is_said():
    row = {"target": "v5e:1x1", "variant": "plain", "does_not_fit": "Used 33.1G of 15.75G hbm"}
    row |= {"bytes": {"state": 1, "frozen": 2}, "flops": {"products": 1e12, "formula": 1e12}}
    assert "Used 33.1G of 15.75G hbm" in joint_step.line(row)


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is not None, reason="needs a machine without libtpu"
)
def test_a_tpu_without_its_compiler_is_refused(capsys):
    assert joint_step.main([*SMALL, "--target", "v5e:1x1"]) == 2
    assert "pip install libtpu" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_it_compiles_for_a_tpu_that_is_not_here():
    args = joint_step.parse([*SMALL, "--effort=-1"])
    row = joint_step.elsewhere(args, "v5e:1x1", "remat+chunk")
    assert all(row["promises"].values()) and row["bytes"]["frozen"] > 0
