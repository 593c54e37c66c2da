"""Runs start from another run, a release or a PyTorch CTR-GCN; mismatches are listed."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph
from hocslm_jax.models import build_model
from hocslm_jax.predict import release
from hocslm_jax.train import beginning, checkpoint, experiment, setup, strategy
from hocslm_jax.train.stages import Stage

ENCODER = Stage(start="there", take=("encoder",))
PARTIAL = Stage(start="there", take=("encoder",), partial=True)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "run"
    assert tiny_run.train_strategy(folder, "T0", {"train.epochs": 1, "optim.ema": 0.9}) == 0
    return folder


@pytest.fixture(scope="module")
def released(workdir):
    out = workdir.parent / "release"
    release.release(workdir, out, "float32", workdir / "none", build=tiny_run.build)
    return out


def train(workdir, arg, **changes):
    config = tiny_run.make_config(
        {**tiny_run.LANGUAGE, "train.epochs": 1, "model.dropout": 0.0, **changes}
    )
    real, setup.open_store = setup.open_store, lambda *_: tiny_run.TinyStore()
    try:
        return strategy.train(experiment.apply(config, arg), workdir, tiny_run.build)
    finally:
        setup.open_store = real


def weights(folder):
    shapes = checkpoint.stored_shapes(folder)
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    wanted = {
        name: jax.ShapeDtypeStruct(shape, np.float32, sharding=place)
        for name, shape in shapes.items()
    }
    return beginning.flat(checkpoint.restore_variables(folder, beginning.nested(wanted)))


@pytest.mark.parametrize("kind", ["run", "release"])
def test_a_frozen_encoder_does_not_change(workdir, released, tmp_path, kind):
    """Weights and BatchNorm statistics are bit-identical; the classifier trains."""
    source = {"run": workdir, "release": released}[kind]
    assert train(tmp_path / "new", f"start={source},freeze=encoder") == 0
    before, after = weights(workdir), weights(tmp_path / "new")
    encoder = [name for name in before if name.split("/")[1] == "encoder"]
    assert any(name.startswith("batch_stats/") for name in encoder)
    for name in encoder:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert json.loads((tmp_path / "new/result.json").read_text())["origin"]
    # It is its own from then on, and is not compared with what is gone.
    again = f"start={source},freeze=encoder"
    assert train(tmp_path / "new", again, **{"train.eval_every": 1}) == 0


@pytest.mark.parametrize("kind", ["run", "release"])
def test_first_stage_is_taken_from_a_run_or_a_release(workdir, released, tmp_path, kind):
    source = {"run": workdir, "release": released}[kind]
    arg = f"strategy=T0+,t0={source},freeze=encoder"
    assert train(tmp_path / "new", arg, **{"finetune.epochs": 1}) == 0
    before, after = weights(workdir), weights(tmp_path / "new")
    encoder = [name for name in before if name.split("/")[1] == "encoder"]
    for name in encoder:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert not (tmp_path / "new/stages").exists()


def test_first_stage_of_other_classes_is_refused(released, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_run.TinyStore, "classes", ("a", "b", "d", "c"))
    with pytest.raises(UserError, match="other classes"):
        train(tmp_path / "new", f"strategy=T0+,t0={released}")


def test_a_first_stage_of_other_data_is_refused_before_the_language_model(
    workdir, released, tmp_path, monkeypatch
):
    monkeypatch.setattr(tiny_run.TinyStore, "classes", ("a", "b", "d", "c"))
    monkeypatch.setattr(strategy, "prepare_language", None)
    for source, text in (
        (released, "other classes"),
        (workdir, "other data: class 2 is 'c' there"),
    ):
        with pytest.raises(UserError, match=text):
            train(tmp_path / "new", f"strategy=T3,t0={source}")
    assert not (tmp_path / "new").exists()


def test_a_first_stage_may_be_in_the_home_folder(workdir, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(workdir.parent))
    monkeypatch.setattr(tiny_run.TinyStore, "labels", tiny_run.TinyStore.labels[::-1])
    with pytest.raises(UserError, match="other labels"):
        train(tmp_path / "new", f"strategy=T0+,t0=~/{workdir.name}")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "half/checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="not finished"):
        train(tmp_path / "new", "strategy=T0+,t0=~/half")


def test_release_start_setting_is_not_used_as_a_path(workdir, tmp_path):
    assert train(tmp_path / "new", f"start={workdir}") == 0
    release.release(tmp_path / "new", tmp_path / "out", "float32", tmp_path, build=tiny_run.build)
    card = json.loads((tmp_path / "out/config.json").read_text())
    assert card["config"]["stages"][0]["start"] == "run"
    assert str(tmp_path.parent) not in json.dumps(card["config"])


def test_layers_of_other_joints_start_at_random_if_partial(workdir, tmp_path, monkeypatch, capsys):
    five = Graph("five", ("a", "b", "c", "d", "e"), ((1, 0), (2, 0), (3, 0), (4, 0)), 0)
    monkeypatch.setattr(tiny_run.TinyStore, "graph", five)
    with pytest.raises(UserError, match=r"does not fit .*BatchNorm_0.* \(18,\) there, \(15,\) he"):
        train(tmp_path / "new", f"start={workdir}")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UserError, match="would stay random"):
        train(tmp_path / "new", f"start={workdir},partial=true,freeze=encoder")
    capsys.readouterr()
    assert train(tmp_path / "new", f"start={workdir},partial=true", **{"optim.lr": 1e-9}) == 0
    told = capsys.readouterr().out
    assert (
        "1 of 6 arrays" in told and "start at random: encoder/BatchNorm_0, encoder/Dense_0" in told
    )
    name = "params/encoder/Dense_0/bias"
    np.testing.assert_allclose(weights(tmp_path / "new")[name], weights(workdir)[name], atol=1e-6)


def test_equal_shapes_of_other_joints_are_refused(workdir, tmp_path, monkeypatch):
    joints = ("right foot", *tiny_run.GRAPH.joints[1:-1], "hip centre")
    renamed = Graph("renamed", joints, tiny_run.GRAPH.edges, 0)
    monkeypatch.setattr(tiny_run.TinyStore, "graph", renamed)
    with pytest.raises(UserError, match="joint 0 is 'hip centre' there, 'right foot' here"):
        train(tmp_path / "new", f"start={workdir}")
    assert train(tmp_path / "new", f"start={workdir},partial=true") == 0


def test_invalid_start_is_refused_before_anything_is_created(released, tmp_path):
    shutil.copytree(released, tmp_path / "damaged")
    (tmp_path / "damaged/model.safetensors").write_bytes(b"nothing")
    (tmp_path / "notes.pt").write_text("nothing")
    for name, text in {
        "nowhere": "there is no folder nowhere",
        str(tmp_path / "damaged"): "fetch the release again",
        str(tmp_path / "notes.pt"): "cannot be read|needs PyTorch",
        str(tmp_path / "none.npz"): "there is no file",
    }.items():
        with pytest.raises(UserError, match=text) as error:
            train(tmp_path / "new", f"start={name}")
        assert "\n" not in str(error.value) and not (tmp_path / "new").exists()


def variables_of(settings, joints=6, classes=3):
    """Shapes of a real network's variables."""
    names = tuple(f"joint {v}" for v in range(joints))
    graph = Graph("star", names, tuple((v, 0) for v in range(1, joints)), 0)
    network = build_model(settings, graph=graph, num_classes=classes)
    x = np.zeros((1, 1, 4, joints, 3), np.float32)
    found = jax.eval_shape(lambda key: network.init(key, x, train=False), jax.random.key(0))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return graph, jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), found
    )


SMALL = {"encoder": "ctrgcn", "width": 8, "stages": (1, 1)}


def source_of(settings, **sizes):
    graph, found = variables_of(settings, **sizes)
    arrays = {k: np.ones(leaf.shape, np.float32) for k, leaf in beginning.flat(found).items()}
    about = {"graph": graph.as_mapping()}
    return beginning._of_arrays("there", checkpoint.plain(settings), about, arrays)


def config_of(settings):
    return tiny_run.make_config({f"model.{key}": value for key, value in settings.items()})


def test_other_class_counts_and_joints_of_a_real_network(capsys):
    graph, wanted = variables_of(SMALL)
    config, everything = config_of(SMALL), Stage(take=("encoder", "classifier"), start="there")
    found = beginning.take(source_of(SMALL), wanted, config, graph, everything)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    with pytest.raises(UserError, match=r"in classifier \(params/classifier/bias is \(7,\) there"):
        beginning.take(source_of(SMALL, classes=7), wanted, config, graph, everything)
    capsys.readouterr()
    partial = Stage(take=("encoder", "classifier"), start="there", partial=True)
    found = beginning.take(source_of(SMALL, joints=9), wanted, config, graph, partial)
    lines = capsys.readouterr().out.splitlines()
    named = "encoder/block1/ctrgc, encoder/block2/ctrgc, encoder/data_bn"
    assert lines[-1] == f"layers that do not fit and start at random: {named}"
    assert "graph" not in found["params"]["encoder"]["block1"]["ctrgc"]
    assert found["params"]["encoder"]["block1"]["ltc"]["bn"]["scale"].sum() == 8


def test_weights_that_the_model_lacks_are_refused(capsys):
    """A deeper network is not truncated to its first blocks unless requested."""
    deep = SMALL | {"stages": (2, 1)}
    (graph, wanted), config = variables_of(SMALL), config_of(SMALL)
    encoder = {name: {"encoder": groups["encoder"]} for name, groups in wanted.items()}
    with pytest.raises(UserError, match=r"model\.stages \(.*2, 1.* there, .*1, 1"):
        beginning.take(source_of(deep), encoder, config, graph, ENCODER)
    nameless = source_of(deep)
    nameless.model.clear()
    with pytest.raises(UserError, match="does not fit this model in encoder/block2"):
        beginning.take(nameless, encoder, config, graph, ENCODER)
    beginning.take(nameless, encoder, config, graph, PARTIAL)
    assert "are left out: encoder/block3" in capsys.readouterr().out
    other = SMALL | {"pair_mode": "product"}  # has the same shapes
    with pytest.raises(UserError, match=r"model\.pair_mode"):
        beginning.take(source_of(other), encoder, config, graph, ENCODER)
    free = SMALL | {"dropout": 0.5, "dtype": "bfloat16"}
    beginning.take(source_of(free), encoder, config, graph, ENCODER)
