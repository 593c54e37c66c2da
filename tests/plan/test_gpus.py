"""Programs compiled for absent NVIDIA GPUs, each in its own process."""

import importlib.util
import json
import subprocess
import sys

import jax
import pytest

from hocslm_jax.__main__ import main
from hocslm_jax.plan import chips
from hocslm_jax.plan.gpus import GPUS

T0 = "configs/ntu60_xsub.py:strategy=T0"
TINY = "model.width=16,frames=8,batch_size=4,eval_batch_size=4"
TWO_BLOCKS = ("model.stages", "(1,1)")

needs_cuda = pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason='XLA\'s CUDA compiler is not installed: pip install "jax[cuda13]"',
)


def run(*argv: str) -> str:
    """Standard output of a command; fails with the end of what it said."""
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@needs_cuda
@pytest.mark.parametrize(
    ("encoder", "dtype", "topology"),
    [("ctrgcn", "float32", "h100:2"), ("hglnet", "bfloat16", "a100:1")],
)
def test_a_train_step_compiles_with_the_default_options(encoder, dtype, topology, tmp_path):
    config, out = f"{T0},encoder={encoder},model.dtype={dtype},{TINY}", tmp_path / "plan.json"
    argv = ("--config", config, "--config.model.stages=(1,1)", "--topology", topology)
    said = run("-m", "hocslm_jax", "plan", *argv, "--json", str(out))
    row, count = json.loads(out.read_text()), int(topology[-1])
    assert row["fits"] is True and row["devices"] == count
    assert row["kernels"] > 100 and f"{row['kernels']:,} kernels" in said
    assert row["flops"]["matrix"] == pytest.approx(row["flops"]["ideal"], rel=0.05)
    # Between devices only sums travel: clips stay where they are.
    assert set(row["collectives"]) == ({"all-reduce"} if count > 1 else set())


PREDICT = f"""
import jax, numpy as np
from hocslm_jax import sharding
from hocslm_jax.plan import chips, command, costs, planned_step
from hocslm_jax.train.jitted import jit_predict
from hocslm_jax.train.state import eval_variables
devices, _ = chips.open_devices("h100:1")
config = command.read_config("{T0},encoder=hglnet,{TINY}", [{TWO_BLOCKS}])
made = planned_step.build_step(config, devices)
x = jax.ShapeDtypeStruct((4, *made.batch["x"].shape[1:]), np.float32)
lowered = jit_predict(made.model, made.mesh, 0).lower(eval_variables(made.state), x)
print(costs.read_costs(lowered.compile().as_text(), 1).kernels)
"""


@needs_cuda
def test_prediction_compiles_with_the_default_options():
    assert int(run("-c", PREDICT).splitlines()[-1]) > 50  # kernels


@needs_cuda
@pytest.mark.parametrize("name", GPUS)
def test_every_gpu_is_known_to_the_compiler(name):
    devices, chip = chips.open_devices(f"{name}:16")
    assert len(devices) == 16 and {device.platform for device in devices} == {"gpu"}
    assert {device.process_index for device in devices} == {0, 1}  # hosts of eight
    assert chips.find_chip(devices[0].device_kind) is chip


@pytest.mark.parametrize("count", ["0", "12", "8x8", "", "-1"])
def test_numbers_of_gpus_that_cannot_be(count, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert main(["plan", f"--config={T0}", "--topology", f"h100:{count}"]) == 2
    error = capsys.readouterr().err
    assert "write h100:1 to h100:8" in error and error.count("\n") == 1


def test_missing_cuda_compiler_message_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["plan", f"--config={T0}", "--topology", "h100:1"]) == 2
    assert 'pip install "jax[cuda13]"' in capsys.readouterr().err


def test_a_gpu_at_hand_is_recognised():
    assert chips.find_chip("NVIDIA H200") is chips.CHIPS["h200"]
    assert chips.find_chip("NVIDIA A100-SXM4-80GB") is chips.CHIPS["a100"]
    assert chips.find_chip("NVIDIA GeForce RTX 4060") is chips.CHIPS["rtx4060"]
    for other in ("Ti", "Laptop GPU"):
        assert chips.find_chip(f"NVIDIA GeForce RTX 4060 {other}") is None
    assert chips.find_chip("TPU v5") is chips.CHIPS["v5p"]
    assert chips.find_chip("TPU v5 lite") is chips.CHIPS["v5e"]
    assert chips.find_chip(jax.devices()[0].device_kind) is None
