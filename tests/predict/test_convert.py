"""A PyTorch CTR-GCN becomes a release with the same logits, from any type of file."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import small_ctrgcn

from hocslm_jax import __main__
from hocslm_jax.data.streams import make_stream
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, resolve_graph
from hocslm_jax.models.torch_weights import from_ctrgcn
from hocslm_jax.predict.load_model import load_run
from hocslm_jax.train.state_dicts import convert_file, read_state_dict

CLASSES = ("sit down", "stand up", "clap")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def network(torch):
    return small_ctrgcn.make(torch, NTU25, len(CLASSES), persons=2)


@pytest.fixture(scope="module")
def arrays(network):
    state = small_ctrgcn.public_state(network)
    return {name: value.numpy() for name, value in state.items()}


@pytest.fixture
def names(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\n".join(CLASSES) + "\n")
    return path


def convert(weights, names, out, *options):
    argv = ["convert", str(weights), "--out", str(out), "--graph", "ntu25"]
    return __main__.main([*argv, "--classes", str(names), *options])


def test_a_release_has_the_logits_of_the_original(torch, network, names, tmp_path, capsys):
    """Of a checkpoint that a data-parallel training saved beside other things."""
    state = {f"module.{k}": v for k, v in small_ctrgcn.public_state(network).items()}
    torch.save({"epoch": 65, "state_dict": state}, tmp_path / "ctrgcn.pt")
    options = ["--stream", "bone", "--frames", "16"]
    assert convert(tmp_path / "ctrgcn.pt", names, tmp_path / "out", *options) == 0
    assert "3 classes" in capsys.readouterr().out
    model = load_run(tmp_path / "out")
    assert (model.feed.stream, model.feed.frames, model.feed.num_persons) == ("bone", 16, 2)
    joints = np.random.default_rng(0).normal(size=(2, 2, 16, 25, 3)).astype(np.float32)
    x = np.stack([make_stream(clip, "bone", NTU25) for clip in joints])
    with torch.no_grad():
        expected = network(torch.from_numpy(x.transpose(0, 4, 2, 3, 1))).numpy()
    found = jax.jit(lambda x: model.model.apply(model.variables, x, train=False))(x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_released_public_weights_are_unchanged(shared, tmp_path):
    """Those behind the golden logits, with which the network gives these (test_ctrgcn.py)."""
    with np.load(shared / "golden/ctrgcn_ntu.npz", allow_pickle=False) as file:
        state = {k.removeprefix("state/"): file[k] for k in file if k.startswith("state/")}
    np.savez(tmp_path / "weights.npz", **state)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"action {n}" for n in range(60)))
    assert convert(tmp_path / "weights.npz", names, tmp_path / "out") == 0
    model, expected = load_run(tmp_path / "out"), from_ctrgcn(state)
    jax.tree.map(np.testing.assert_array_equal, dict(model.variables), expected)
    data = model.config.data
    assert (data.dataset, data.protocol, data.frames) == ("ntu60", "xsub", 64)
    assert model.compat is not None and model.model.config.stages == (4, 3, 3)


def test_every_kind_of_file_gives_the_same(torch, arrays, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, tmp_path / "a.safetensors")
    half = {k: torch.from_numpy(np.array(v)) for k, v in arrays.items()}
    torch.save({"model": {f"module.{k}": v.double() for k, v in half.items()}}, tmp_path / "a.pth")
    for name in ("a.npz", "a.safetensors", "a.pth"):
        found = read_state_dict(tmp_path / name)
        assert set(found) == set(arrays)
        for key, value in arrays.items():
            np.testing.assert_array_equal(found[key], value.astype(np.float32), err_msg=key)
    found = convert_file(tmp_path / "a.npz")
    assert (found.width, found.stages) == (8, (2, 1, 1))
    assert (found.classes, found.joints, found.persons, found.channels) == (3, 25, 2, 3)


def test_weights_of_2d_clips_with_a_confidence(torch, names, tmp_path, capsys):
    coco = resolve_graph("coco17")
    for channels, options, expected in ((2, [], "xy"), (3, ["--channels", "xyc"], "xyc")):
        network = small_ctrgcn.make(torch, coco, len(CLASSES), 1, channels)
        torch.save(small_ctrgcn.public_state(network), tmp_path / "a.pt")
        out = tmp_path / expected
        assert convert(tmp_path / "a.pt", names, out, "--graph", "coco17", *options) == 0
        model = load_run(out)
        assert model.feed.channels == model.reading.channels == expected
        assert model.feed.clip_shape(model.graph) == (1, 64, 17, channels)
        assert (model.feed.origin, model.config.data.dataset) == ("body", "unknown")
    assert "dataset unknown" in capsys.readouterr().out


def test_what_is_no_ctrgcn_is_one_line(torch, arrays, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "run",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x08")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 nothing")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", **{"linear.weight": np.zeros((2, 2))})
    np.savez(tmp_path / "infinite.npz", **arrays | {"fc.bias": np.full(3, np.inf)})
    flat = {name: value for name, value in arrays.items() if not name.startswith("l2.")}
    np.savez(tmp_path / "layer.npz", **flat | {"l2.gcn1.PA": np.zeros((3, 25, 25))})
    np.savez(tmp_path / "shape.npz", **arrays | {"l1.gcn1.convs.0.conv3.weight": np.zeros(3)})
    expected = {
        "evil.pt": "cannot be read as weights alone",
        "list.pt": "holds no tensors",
        "damaged.pt": "cannot be read as weights alone",
        "damaged.safetensors": "is damaged",
        "damaged.npz": "cannot be read",
        "objects.npz": "not an array of numbers",
        "other.npz": "not a CTR-GCN state dict: missing",
        "infinite.npz": r"fc\.bias is not finite",
        "layer.npz": "not a CTR-GCN state dict: missing",
        "shape.npz": "not a CTR-GCN state dict",
        "absent.pt": "there is no file",
        "weights.bin": "read from .pt",
    }
    (tmp_path / "weights.bin").touch()
    for name, text in expected.items():
        with pytest.raises(UserError, match=text) as error:
            convert_file(tmp_path / name)
        assert "\n" not in str(error.value) and name in str(error.value)
        assert len(str(error.value)) < 300 + len(str(tmp_path)), name
    assert not (tmp_path / "run").exists()


def test_names_and_skeleton_must_be_those_of_the_weights(arrays, names, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **arrays)
    out, wrong = tmp_path / "out", tmp_path / "wrong.txt"

    def refused(*options, classes=names):
        assert convert(tmp_path / "a.npz", classes, out, *options) == 2
        return capsys.readouterr().err

    wrong.write_text("a\nb\n")
    assert "has 3 classes" in refused(classes=wrong)
    wrong.write_text("a\nb\na\n")
    assert "'a' twice" in refused(classes=wrong)
    assert "has 25 joints, --graph ucla20 has 20" in refused("--graph", "ucla20")
    assert "takes 3 channels a joint: give --channels, one of xyc, xyz" in refused(
        "--channels", "xy"
    )
    assert not out.exists()
    out.mkdir()
    (out / "mine.txt").touch()
    assert "holds other files" in refused()
