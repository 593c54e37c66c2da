"""Exported models give the logits of the model on other runtimes, without this package."""

import json
import math
import runpy
import subprocess
import sys
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax import __main__
from hocslm_jax.data import pipeline
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, Graph, adjacency
from hocslm_jax.models import FusionConfig, aggregation, build_model, layers, relations, spatial
from hocslm_jax.models.formulations import ONNX, traced_for
from hocslm_jax.predict.clip_files import Clips, read_joints
from hocslm_jax.predict.load_model import load_run
from hocslm_jax.sharding import path_name
from hocslm_jax.train import checkpoint, experiment, release_files

ROOT = Path(__file__).resolve().parents[2]
STAR = Graph("star", tuple("abcdef"), tuple((v, 0) for v in range(1, 6)), 0)
HGLNET = {"encoder": "hglnet", "width": 8, "stages": (1, 1), "gsm_width": 4}
VARIANTS = {
    "hglnet": HGLNET,
    "ctrgcn": {"encoder": "ctrgcn", "width": 8, "stages": (2, 1)},
    "relative": HGLNET | {"stages": (1,), "gta_position": "relative", "gsm": False},
    "bfloat16": HGLNET | {"stages": (1,), "dtype": "bfloat16", "pair_mode": "product"},
}


def drawn(network, shape):
    """Random variables of a network."""
    x = jnp.zeros((1, *shape))
    shapes = jax.eval_shape(lambda key: network.init(key, x, train=False), jax.random.key(0))
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        value = rng.normal(0, 0.3, leaf.shape).astype(np.float32)
        return np.abs(value) + 0.5 if path_name(path).endswith("/var") else value

    return jax.tree.map_with_path(draw, {k: shapes[k] for k in ("params", "batch_stats")})


def make_release(folder, settings, graph=STAR, classes="abcd", **data):
    """A release with random weights."""
    config = experiment.defaults()
    config.data.update({"feeder": "ntu", "frames": 8, "num_persons": 2, "dataset": "toy"} | data)
    config.model.update(settings)
    network = build_model(config.model, graph=graph, num_classes=len(classes))
    variables = drawn(network, (config.data.num_persons, config.data.frames, graph.num_joints, 3))
    params = jax.tree.leaves(variables["params"])
    model = {"classes": list(classes), "graph": graph.as_mapping(), "lm_gain": None}
    model |= {"shapes": {}, "parameters": sum(math.prod(leaf.shape) for leaf in params)}
    about = {"config": checkpoint.plain(config), "model": model, "metrics": {}}
    release_files.save(folder, variables, about, "float32")
    return folder


def export(model, kind, out):
    return __main__.main(["export", str(model), "--format", kind, "--out", str(out)])


def logits_of(folder, x):
    model = load_run(folder)
    return np.asarray(jax.jit(lambda x: model.model.apply(model.variables, x, train=False))(x))


def inputs(batch, shape=(2, 8, 6, 3)):
    return np.random.default_rng(batch).normal(size=(batch, *shape)).astype(np.float32)


def test_stablehlo_gives_the_logits_for_every_batch_and_three_platforms(tmp_path, capsys):
    folder = make_release(tmp_path / "model", VARIANTS["ctrgcn"])
    assert export(folder, "stablehlo", tmp_path / "out/model.bin") == 0
    assert "4 classes" in capsys.readouterr().out
    exported = jax.export.deserialize(bytearray((tmp_path / "out/model.bin").read_bytes()))
    assert set(exported.platforms) == {"cpu", "cuda", "tpu"}
    for batch in (1, 3):
        x = inputs(batch)
        np.testing.assert_allclose(exported.call(x), logits_of(folder, x), atol=1e-6)
    about = json.loads((tmp_path / "out/model.bin.json").read_text())
    assert about["classes"] == list("abcd") and about["input"]["shape"] == [None, 2, 8, 6, 3]
    assert about["graph"]["parents"] == list(STAR.parents) and about["graph"]["centre"] == 0
    assert about["clip"]["stream"] == "joint" and about["clip"]["frames"] == 8
    assert not {"rotation", "repeat"} & set(about["clip"])


@pytest.fixture(scope="module")
def onnx():
    return pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="module")
def ort(onnx):
    return pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def session(ort, source):
    return ort.InferenceSession(source, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_onnx_gives_the_logits_for_every_batch(ort, tmp_path, variant):
    folder = make_release(tmp_path / "model", VARIANTS[variant])
    assert export(folder, "onnx", tmp_path / "model.onnx") == 0
    run = session(ort, tmp_path / "model.onnx")
    close = 0.1 if variant == "bfloat16" else 1e-4  # the file computes in float32
    for batch in (1, 3):
        found = run.run(["logits"], {"x": inputs(batch)})[0]
        expected = logits_of(folder, inputs(batch))
        assert found.dtype == np.float32 and found.shape == (batch, 4)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, atol=close * scale)
    about = json.loads(run.get_modelmeta().custom_metadata_map["hocslm_jax"])
    assert about["classes"] == list("abcd") and about["clip"]["num_persons"] == 2


def test_onnx_of_a_network_that_classifies_the_visual_token(ort):
    from hocslm_jax.export.onnx_graph import to_onnx

    fusion = FusionConfig(16, 2, 16, classify_on="visual")
    settings = {"encoder": "ctrgcn", "width": 8, "stages": (1,)}
    network = build_model(settings, graph=STAR, num_classes=3, fusion=fusion)
    variables = drawn(network, (1, 8, 6, 3))

    def logits(x):
        return network.apply(variables, x, train=False)[0]

    made = to_onnx(logits, (1, 8, 6, 3), ("x", "logits"))
    x = inputs(2, (1, 8, 6, 3))
    found = session(ort, made.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, jax.jit(logits)(x), atol=1e-4)


def test_an_unsupported_operation_is_named(onnx):
    from hocslm_jax.export.onnx_graph import to_onnx

    with pytest.raises(UserError, match=r"no operator for JAX's 'cumsum'; use --format stablehlo"):
        to_onnx(lambda x: jnp.cumsum(x, axis=1), (3,), ("x", "y"))


def test_models_that_cannot_be_exported_give_one_line(tmp_path, capsys, monkeypatch):
    for name in ("joint", "bone"):
        make_release(tmp_path / "two" / name, VARIANTS["ctrgcn"], stream=name)
    cases = {
        (tmp_path / "two", "stablehlo", tmp_path / "a.bin"): "several models, joint, bone",
        (tmp_path / "none", "stablehlo", tmp_path / "a.bin"): "there is no folder",
        (tmp_path / "two/bone", "stablehlo", tmp_path): "give the name of a file",
        (tmp_path / "two/bone", "stablehlo", "gs://bucket/a.bin"): "gs",
    }
    for (model, kind, out), text in cases.items():
        assert export(model, kind, out) == 2
        assert text in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert export(tmp_path / "two/bone", "onnx", tmp_path / "a.onnx") == 2
    assert "pip install onnx" in capsys.readouterr().err and not (tmp_path / "a.onnx").exists()


def random(*shape):
    return jnp.asarray(np.random.default_rng(len(shape)).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    "function",
    [
        lambda: aggregation.aggregate([random(2, 5, 5, 4)] * 3, [random(2, 7, 5, 4)] * 3),
        lambda: spatial.subset_products(random(2, 7, 5, 6), random(3, 6, 4), random(3, 4)),
        lambda: spatial.with_bones(random(2, 6, 6, 4), random(2, 5, 4), adjacency(STAR)[1]),
        lambda: relations.Expand(4).apply(
            {"params": {"kernel": random(3, 8, 4), "bias": random(3, 4)}},
            *(random(3, 2, 5, 5, 8), random(3, 5, 5), random(3)),
        ),
        lambda: layers.max_pool_time(random(2, 8, 5, 4), 2),
        lambda: layers.product(random(2, 8, 5, 4), random(4, 3)),
    ],
)
def test_a_formulation_for_onnx_computes_the_same(function):
    expected = function()
    with traced_for(ONNX):
        found = function()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_example_prepares_and_classifies_like_the_package(ort, shared, tmp_path):
    """Real files of NTU give the same input and class as with the package."""
    folder = make_release(
        tmp_path / "model",
        {"encoder": "ctrgcn", "width": 8, "stages": (1,)},
        graph=NTU25,
        stream="bone_motion",
        dataset="ntu60",
        frames=16,
    )
    assert export(folder, "onnx", tmp_path / "model.onnx") == 0
    with tarfile.open(shared / "data/ntu_sample/skeletons.tar.xz") as archive:
        names = [name for name in archive.getnames() if name.endswith(".skeleton")][:40:8]
        archive.extractall(tmp_path, members=[archive.getmember(n) for n in names], filter="data")
    run = session(ort, tmp_path / "model.onnx")
    about = json.loads(run.get_modelmeta().custom_metadata_map["hocslm_jax"])
    assert "import hocslm_jax" not in (ROOT / "examples/onnx_classify.py").read_text()
    example = runpy.run_path(str(ROOT / "examples/onnx_classify.py"))
    model = load_run(folder)
    for name in names:
        clip = read_joints(tmp_path / name, model.graph, model.compat)
        batches = pipeline.eval_batches(Clips([clip], NTU25), "", "", model.feed, batch_size=1)
        expected = next(iter(batches))["x"]
        x = example["prepare"](example["read_bodies"](tmp_path / name), about)
        np.testing.assert_allclose(x, expected, atol=1e-5, err_msg=name)
    command = [
        sys.executable,
        str(ROOT / "examples/onnx_classify.py"),
        str(tmp_path / "model.onnx"),
    ]
    done = subprocess.run([*command, str(tmp_path / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    top = done.stdout.splitlines()[0].partition("%  ")[2]
    assert top == model.predict(clip).name
