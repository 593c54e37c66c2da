"""The verb `plan` on steps of seconds; no dataset is prepared and no weight is made."""

import dataclasses
import importlib.util
import json
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from hocslm_jax import sharding
from hocslm_jax.__main__ import main
from hocslm_jax.errors import UserError
from hocslm_jax.plan import chips, command, estimate, planned_step
from hocslm_jax.train.stages import stage_config

T0 = "configs/ntu60_xsub.py:strategy=T0,encoder=ctrgcn"
T3 = "configs/ntu60_xsub.py:encoder=ctrgcn"
TINY = "model.width=8,frames=4,batch_size=16,eval_batch_size=16"
ONE_BLOCK = ("model.stages", "(1,)")
SMALL_LM = "lm.init=pretrain,lm.max_tokens=8"  # the one of configs without an `llm`
CHIP = chips.Chip(hbm=2**30, flops=1e12, hbm_rate=1e11, link_rate=1e10, clock=1e9)
V5E = chips.CHIPS["v5e"]


def tiny(spec=T0, settings="", stage=-1):
    config = command.read_config(",".join(filter(None, [spec, TINY, settings])), [ONE_BLOCK])
    return stage_config(config, len(config.stages) - 1 if stage < 0 else stage)


@pytest.fixture(scope="module")
def made():
    return planned_step.build_step(tiny(), jax.devices())


@pytest.fixture(scope="module")
def row(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("plan") / "new" / "plan.json"
    argv = ["plan", f"--config={T0},{TINY},mesh.data=4", "--config.mesh.model=2"]
    assert main([*argv, "--config.model.stages=(1,)", "--json", str(out)]) == 0
    return json.loads(out.read_text())


def test_it_says_what_the_step_needs(row):
    assert row["mesh"] == {"data": 4, "model": 2}
    sizes = row["bytes"]
    given = sizes["state"] + sizes["batch"]
    assert sizes["arguments"] == pytest.approx(given, rel=0.01)
    assert sizes["batch"] == 4 * (2 * 4 * 25 * 3 + 2) * 4  # clips a replica, their floats, bytes
    assert sizes["temporaries"] > 0 and sizes["generated_code"] >= 0
    assert row["flops"]["matrix"] > 0 and row["hbm_traffic"] > sizes["arguments"]
    assert sizes["hbm"] is None and row["fits"] is None and "bound" not in row  # an unknown chip


def test_replicas_add_their_gradients_and_batch_statistics(row, made):
    gradients = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(made.state.params))
    assert gradients < row["collectives"]["all-reduce"]["bytes"] < 2 * gradients


def test_the_encoder_is_split_over_both_axes(row):
    assert row["flops"]["matrix"] == pytest.approx(row["flops"]["ideal"], rel=0.01)
    assert not row["warnings"]


def test_work_that_devices_repeat_is_said(row, made):
    twice = 2 * row["flops"]["ideal"]
    numbers = row | {"flops": row["flops"] | {"matrix": twice}}
    (warning,) = estimate.warnings(numbers, made, None)
    assert warning.endswith("2.00 times the products of an even split")
    (warning,) = estimate.warnings(numbers | {"batch_size": 12}, made, None)
    assert "split 8 ways if train.batch_size is a multiple" in warning


def test_the_page_has_the_numbers(row, made):
    numbers = row | {"bytes": row["bytes"] | {"hbm": CHIP.hbm}}
    numbers["flops"] = row["flops"] | {"matrix": 2 * row["flops"]["ideal"]}
    sent = sum(one["sent"] for one in row["collectives"].values())
    numbers |= estimate.roofline(numbers | {"compiler_cycles": 2e6}, 16, sent, CHIP)
    numbers["fits"] = estimate.fits(numbers)
    numbers["warnings"] = estimate.warnings(numbers, made, CHIP)
    text = "\n".join(command.lines(numbers))
    assert "8 devices, mesh data=4 model=2; 16 clips a step, 4 a replica" in text
    assert "of 1.00 GiB" in text and ": fits" in text
    assert "the compiler's estimates of its kernels: 2.00 ms, 8,000 clips/s" in text
    assert f"({numbers['bound']})" in text and "\nwarning: devices repeat" in text


def test_the_slowest_resource_bounds_the_step():
    numbers = {"flops": {"matrix": 5e9}, "hbm_traffic": 1e8, "compiler_cycles": 0, "seconds": {}}
    found = estimate.roofline(numbers, 64, 1e6, CHIP)
    assert found["bound"] == "arithmetic" and found["seconds"]["step"] == pytest.approx(5e-3)
    assert found["examples_per_s"] == {"at_best": pytest.approx(64 / 5e-3)}
    assert estimate.roofline(numbers, 64, 1e9, CHIP)["bound"] == "network"
    slow = dataclasses.replace(CHIP, hbm_rate=1e9)
    assert estimate.roofline(numbers, 64, 1e6, slow)["bound"] == "memory"


def test_what_does_not_fit_is_said(row, made):
    row = row | {"flops": {"ideal": 1.0}}
    for hbm, fits, said in ((1e3, False, "does not fit"), (None, None, None), (1e12, True, None)):
        numbers = row | {"bytes": row["bytes"] | {"hbm": hbm}}
        numbers["fits"] = estimate.fits(numbers)
        assert numbers["fits"] is fits
        found = estimate.warnings(numbers, made, CHIP)
        assert any(said in text for text in found) if said else not found
    full = estimate.bytes_needed(row) * 1.05
    numbers = row | {"bytes": row["bytes"] | {"hbm": full}, "fits": True}
    assert "over 90% of the memory" in estimate.warnings(numbers, made, CHIP)[0]


def test_gathered_weights_give_a_warning():
    lm = SimpleNamespace(max_tokens=64, fsdp=True)
    frozen = {"lm": jax.ShapeDtypeStruct((4, 100), np.float32)}
    made = SimpleNamespace(frozen=frozen, lm=object(), config=SimpleNamespace(lm=lm))
    numbers = {"flops": {"ideal": 1.0}, "fits": None, "bytes": {}, "batch_size": 4096}
    numbers |= {"mesh": {"data": 4, "model": 2}, "collectives": {"all-gather": {"in_loops": 99.0}}}
    assert not estimate.warnings(numbers, made, V5E)
    numbers["collectives"]["all-gather"]["in_loops"] = 1600.0
    assert "all-gathered in every layer" in estimate.warnings(numbers, made, V5E)[0]
    assert "the batch is small" in estimate.warnings(numbers | {"batch_size": 8}, made, V5E)[-1]
    kept = SimpleNamespace(max_tokens=64, fsdp=False)
    kept = SimpleNamespace(frozen=frozen, lm=object(), config=SimpleNamespace(lm=kept))
    assert not estimate.warnings(numbers, kept, V5E)
    again = numbers | {"flops": {"ideal": 1.0, "matrix": 2.0}}
    assert any("2.00 times" in text for text in estimate.warnings(again, made, V5E))


def test_language_and_stages_are_those_of_the_config():
    config = tiny(T3, SMALL_LM)
    made = planned_step.build_step(config, jax.devices()[:1])
    assert set(made.batch) == {"x", "label", "mask", "tokens", "lengths"}
    assert {"encoder", "projector", "prompt"} <= set(made.state.params)
    assert made.lm.num_layers == 2 and made.frozen["lm"]["embed"]
    alone = planned_step.build_step(tiny(T3, SMALL_LM, stage=0), jax.devices()[:1])
    assert not alone.frozen and alone.lm is None and set(alone.batch) == {"x", "label", "mask"}
    named = command.read_config(f"{T3},llm=Qwen/Qwen3-0.6B").lm
    assert planned_step.lm_sizes(named).hidden_size == 1024


def test_the_frozen_model_is_split_as_the_config_says():
    def frozen(settings):
        config = tiny(T3, f"{SMALL_LM},{settings}")
        return planned_step.nbytes(planned_step.build_step(config, jax.devices()[:4]).frozen)

    whole = frozen("mesh.model=1")
    assert frozen("mesh.model=2") == pytest.approx(whole / 2, rel=0.02)
    assert frozen("lm.fsdp=true") == pytest.approx(whole / 4, rel=0.02)


def test_weights_in_few_bits_count_as_they_are_stored():
    def gib(weights):
        settings = f"llm=Qwen/Qwen3-8B,lm.max_tokens=8,lm.weights={weights}"
        made = planned_step.build_step(tiny(T3, settings), jax.devices()[:1])
        return planned_step.nbytes(made.frozen) / 2**30

    # 6.95 billion numbers in the layers, 1.24 in 16 bits at the two ends.
    assert gib("int8") == pytest.approx((6.95 + 2 * 1.24) * 1e9 / 2**30, rel=0.002)  # 8.8
    assert gib("int4") == pytest.approx((6.95 * 5 / 8 + 2 * 1.24) * 1e9 / 2**30, rel=0.002)


def test_tracing_alone_counts_the_arithmetic():
    found = command.plan(f"{T0},{TINY}", "local", [ONE_BLOCK], compiling=False)
    assert found["flops"]["ideal"] == found["flops"]["step"] / 8
    assert "peak" not in found["bytes"] and found["fits"] is None
    assert len(command.lines(found)) > 4


@pytest.mark.parametrize(
    ("settings", "options", "said"),
    [
        ("batch_size=12", [], "train.batch_size=12 is not a multiple"),
        ("dataset=mine", [], "mine"),
        ("depth=1", [], "depth"),
        ("seed=0", ["--config.model.stages=(1"], "--config.model.stages"),
        ("mesh.data=3,mesh.model=2", [], "is not the 8 devices"),
        ("seed=0", ["--stage", "2"], "stages 1 to 1"),
        ("seed=0", ["--topology", "v5e:16by16"], "v5e:16by16"),
    ],
)
def test_impossible_plans_are_one_line(settings, options, said, capsys):
    assert main(["plan", f"--config={T0},{TINY},{settings}", *options]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_it_says_what_it_does_and_for_how_long(monkeypatch, capsys):
    monkeypatch.setattr(command, "EVERY_S", 0.02)
    with command.announced("compiling for v5e:2x2"):
        time.sleep(0.1)
    first, *rest = capsys.readouterr().err.splitlines()
    assert "compiling for v5e:2x2" in first and "minutes" in first
    assert rest and all(line.startswith("still compiling") for line in rest)


def test_unknown_sizes_are_refused():
    with pytest.raises(UserError, match="Qwen3-4B"):
        planned_step.lm_sizes(SimpleNamespace(init="load", name="some/model-7B"))


def test_missing_tpu_compiler_message_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["plan", f"--config={T0}", "--topology", "v5e:2x2"]) == 2
    assert "pip install libtpu" in capsys.readouterr().err


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"
)


@needs_libtpu
def test_several_slices_are_joined_along_data():
    chips.open_devices("v5e:2x2")  # sets what libtpu wants to know
    devices = topologies.get_topology_desc("v5e:2x2", "tpu", num_slices=2).devices
    mesh = sharding.make_mesh(-1, 2, devices)
    slices = [[device.slice_index for device in replica] for replica in mesh.devices]
    assert slices == [[0, 0], [0, 0], [1, 1], [1, 1]]
    with pytest.raises(UserError, match="2 TPU slices"):
        sharding.make_mesh(1, 8, devices)


@needs_libtpu
def test_compiles_for_an_absent_tpu_slice():
    found = command.plan(f"{T0},{TINY}", "v5e:2x2", [ONE_BLOCK])
    assert found["devices"] == 4 and found["fits"] is True
    assert found["bound"] in ("arithmetic", "memory", "network")
    assert found["seconds"]["compiler"] > 0 and found["unknown_loops"] == 0
