"""The joint step against PyTorch and transformers: the same losses, and a result in JSON."""

import copy
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import joint_contestants, joint_speed
from benchmarks.joint_contestants import CLASSES, PROMPT, Case
from hocslm_jax.graph import NTU25
from hocslm_jax.models.lm import save_params
from hocslm_jax.models.torch_weights import from_ctrgcn
from hocslm_jax.train.stages import stage_config

SIZES = {"batch": 4, "tokens": 6, "frames": 8, "width": 8, "stages": (1, 1)}
CASE = Case("ctrgcn", joint_speed.SIZES_BY_NAME["tiny"], **SIZES)
SMALL = ["--lm=tiny", "--batch=4", "--tokens=6", "--frames=8", "--width=8", "--stages", "1", "1"]
LENGTHS = np.array([6, 2, 4, 3], np.int32)


@pytest.fixture(scope="module")
def torch_joint():
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from benchmarks import torch_joint

    return torch_joint


@pytest.fixture(scope="module")
def both(torch_joint, tmp_path_factory):
    """(PyTorch's model, its language model, batch, our metrics), all of the same weights."""
    made, compiled = joint_contestants.compile_step(CASE)
    state, language = joint_contestants.random_weights(made)
    keys = iter(jax.random.split(jax.random.key(2), 99))
    language = jax.tree.map(lambda p: p + 0.2 * jax.random.normal(next(keys), p.shape), language)
    folder = tmp_path_factory.mktemp("qwen3")
    save_params(language, CASE.lm, folder)
    theirs = torch_joint.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    model = perturbed(torch_joint)
    variables = ours_of(model)
    shapes = jax.tree.map(jnp.shape, (state.params, state.batch_stats))
    assert jax.tree.map(jnp.shape, (variables["params"], variables["batch_stats"])) == shapes
    batch = joint_contestants.random_batch(CASE) | {"lengths": LENGTHS}
    _, metrics, finite = compiled(state.replace(**variables), {"lm": language}, batch)
    assert finite
    found = {name: float(total / count) for name, (total, count) in metrics.items()}
    return model, theirs, torch_joint.to_torch(batch, "cpu"), found


def perturbed(torch_joint):
    """A model none of whose parameters is at a first value that hides it, such as 0."""
    torch = torch_joint.torch
    net = torch_joint.CTRGCN(NTU25, CLASSES, 2, stages=torch_joint.stages(8, (1, 1)))
    width = CASE.config.lm.projector_width
    model = torch_joint.Joint(net, width, CASE.lm.hidden_size, PROMPT)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn(value.shape, generator=noise))
    return model


def ours_of(model) -> dict:
    """Variables of `HocSLM` from a `Joint`."""
    arrays = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    from benchmarks.torch_ctrgcn import public_state  # which needs PyTorch

    parts = ("encoder.", "classifier.")
    own = {n.removeprefix("encoder."): a for n, a in arrays.items() if n.startswith(parts)}
    variables = from_ctrgcn(public_state(own))
    projector = {
        ours: {"kernel": arrays[f"projector.{n}.weight"].T, "bias": arrays[f"projector.{n}.bias"]}
        for ours, n in (("up", 0), ("out", 2))
    }
    norm = {"scale": arrays["projector.3.weight"], "bias": arrays["projector.3.bias"]}
    others = {"projector": projector | {"norm": norm}, "prompt": arrays["prompt"]}
    return jax.tree.map(jnp.asarray, variables | {"params": variables["params"] | others})


@pytest.mark.parametrize("remat", [False, True])
def test_both_have_the_same_losses_and_gradient(torch_joint, both, remat):
    model, theirs, batch, ours = copy.deepcopy(both)
    language = torch_joint.freeze(theirs, remat)
    assert language.model.gradient_checkpointing == remat
    step = torch_joint.make_step(model, language, batch, stage_config(CASE.config, 1))
    frozen = copy.deepcopy(language.state_dict())
    classification, caption, norm = map(float, step())
    assert classification == pytest.approx(ours["loss"], rel=1e-4)
    assert caption == pytest.approx(ours["caption_loss"], rel=1e-4)
    assert abs(caption - np.log(CASE.lm.vocab_size)) > 0.3  # more than a guess
    assert norm == pytest.approx(ours["grad_norm"], rel=1e-2)
    assert all(value.equal(frozen[name]) for name, value in language.state_dict().items())


def in_this_process(cases, rounds, steps, clips, build):
    """`encoder.measure` without processes."""
    found = {}
    for case in cases:
        train, _, about = build(case)
        start = time.perf_counter()
        train()
        found[case.contestant] = {"about": about, "train": [time.perf_counter() - start]}
    return found


def test_the_result_is_written(torch_joint, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(joint_speed.encoder, "measure", in_this_process)
    monkeypatch.setattr(joint_contestants.environment, "keep_memory", lambda: None)
    out = tmp_path / "new" / "joint.json"
    joint_speed.main([*SMALL, "--contestants", "ctrgcn", "torch", "--alone", "--json", str(out)])
    result = json.loads(out.read_text())
    rows = result["contestants"]
    assert set(rows) == {"ctrgcn", "torch"} and {"machine", "command", "settings"} <= set(result)
    assert {"torch", "transformers"} <= set(result["versions"])
    assert rows["torch"]["ratio_to"] == {"torch": 1.0} and rows["ctrgcn"]["ratio_to"]["torch"] > 0
    assert rows["torch"]["flops_needed"] == rows["ctrgcn"]["flops_needed"] > 0
    assert min(row["peak_bytes"] for row in rows.values()) > 0
    assert "clips/s" in capsys.readouterr().out


def test_without_pytorch_ours_remain(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    cases = [CASE, Case("torch", CASE.lm, **SIZES)]
    about = joint_contestants.build(cases[1])[2]
    assert "pip install torch transformers" in about["error"]
    ours = {"device": "NVIDIA H100 80GB HBM3", "peak_bytes": 1, "seconds": [2.0, 1.0]}
    found = {"ctrgcn": ours, "torch": about}
    rows = joint_speed.summary(found, cases, {"ctrgcn": 989e12})
    assert rows["ctrgcn"]["ratio_to"] == {} and rows["ctrgcn"]["clips_per_s"]["max"] == 4.0
    assert rows["ctrgcn"]["mfu"] == pytest.approx(3 / 4)  # the median of 2 and 4 clips/s, 4 a step
    said = joint_speed.report(rows).splitlines()
    assert len(said) == 3 and about["error"] in said[2]
