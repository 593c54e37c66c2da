"""CTR-GCN equals the public PyTorch model: logits, loss, gradients, statistics, parameter
counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, UCLA20
from hocslm_jax.models import CTRGCN, Recogniser
from hocslm_jax.models.torch_weights import from_ctrgcn

GOLDEN = {"nw_ucla": (UCLA20, 10), "ntu": (NTU25, 60)}


@pytest.fixture(scope="module", params=sorted(GOLDEN))
def case(request, shared):
    """Golden arrays, the model with the golden weights, and one train-mode pass."""
    graph, classes = GOLDEN[request.param]
    with np.load(shared / f"golden/ctrgcn_{request.param}.npz", allow_pickle=False) as file:
        golden = dict(file)
    model = Recogniser(graph, classes, CTRGCN)
    variables = from_ctrgcn(_prefixed(golden, "state/"))
    x = golden["x"].transpose(0, 4, 2, 3, 1)  # [N, C, T, V, M] -> [B, M, T, V, C]

    def loss_fn(params, x):
        logits, updated = model.apply(
            variables | {"params": params}, x, True, mutable=["batch_stats"]
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, golden["y"]).mean()
        return loss, (logits, updated["batch_stats"])

    step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    rng = np.random.default_rng(0)
    rounded = [(x * (1 + 1e-7 * rng.standard_normal(x.shape))).astype(np.float32) for _ in range(4)]
    (loss, (logits, stats)), grads = step(variables["params"], x)
    return {
        "golden": golden,
        "eval_logits": jax.jit(lambda v, x: model.apply(v, x, False))(variables, x),
        "loss": loss,
        "train_logits": logits,
        "stats": stats,
        "grads": grads,
        "grads_after_rounding": [step(variables["params"], other)[1] for other in rounded],
    }


def test_eval_logits(case):
    assert _relative(case["eval_logits"], case["golden"]["eval_logits"]) < 1e-4


def test_train_logits_and_loss(case):
    golden = case["golden"]
    assert _relative(case["train_logits"], golden["train_logits"]) < 1e-4
    assert float(case["loss"]) == pytest.approx(float(golden["train_loss"]), rel=1e-5)


def test_gradients_of_every_listed_parameter(case):
    """Within 1 % in norm, or within what float32 rounding of the input alone does to that gradient.

    Max-pooling and ReLU switch between near-equal values, so a relative change of 1e-7 in the
    input moves single gradients by up to a few per cent, in either framework.
    """
    state = _prefixed(case["golden"], "state/")
    listed = _prefixed(case["golden"], "grad/")
    trees = [_torch_entries(g, state) for g in (case["grads"], *case["grads_after_rounding"])]
    errors, bad = [], {}
    for name, expected in listed.items():
        ours, *moved = (tree[name] for tree in trees)
        if name.endswith("bias") and not ours.any():  # before a BatchNorm: rounding in PyTorch
            assert np.abs(expected).max() < 1e-4, name
            continue
        error, rounding = _distance(ours, expected), max(_distance(ours, m) for m in moved)
        errors.append(error)
        if error > max(1e-2, 4 * rounding):
            bad[name] = (error, rounding)
    assert len(errors) > 70
    assert not bad
    assert np.median(errors) < 5e-3


def test_batch_statistics_after_a_step(case):
    """Means agree; variances agree up to n / (n - 1): PyTorch tracks the unbiased batch
    variance."""
    golden = case["golden"]
    state = _prefixed(golden, "state/")
    buffers = {k: v for k, v in _prefixed(golden, "after/").items() if "running" in k}
    assert len(buffers) > 20
    entries = _torch_entries(case["stats"], state, "batch_stats")
    for name, expected in buffers.items():
        ours = entries[name]
        if name.endswith("running_var"):
            rows = _rows_of(name, golden["x"].shape)
            ours = 0.9 * state[name] + (ours - 0.9 * state[name]) * rows / (rows - 1)
        assert _relative(ours, expected) < 1e-4, name


@pytest.mark.parametrize(
    ("graph", "persons", "classes", "expected"),
    [(NTU25, 2, 60, 1_446_672), (NTU25, 2, 120, 1_462_092), (UCLA20, 1, 10, 1_426_892)],
)
def test_parameter_counts(graph, persons, classes, expected):
    model = Recogniser(graph, classes, CTRGCN)
    x = jnp.zeros((1, persons, 8, graph.num_joints, 3))
    shapes = jax.eval_shape(lambda key: model.init(key, x, False), jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == expected


def test_initial_parameters_have_the_published_spread():
    model = Recogniser(UCLA20, 10, dataclasses.replace(CTRGCN, stages=(1, 1, 1)))
    x = jnp.zeros((1, 1, 4, 20, 3))
    params = jax.jit(lambda key: model.init(key, x, False)["params"])(jax.random.key(0))
    block = params["encoder"]["block3"]  # 128 -> 256 channels
    spread = {
        (2 / 10) ** 0.5: params["classifier"]["kernel"],
        (2 / 256) ** 0.5: block["spatial"]["value"]["kernel"],
        (2 / 16) ** 0.5: block["ctrgc"]["relations"]["ab"]["kernel"],
        (2 / 64) ** 0.5: block["ltc"]["reduce"]["kernel"],
        (2 / 320) ** 0.5: block["ltc"]["conv1"]["kernel"],
    }
    for expected, kernel in spread.items():
        assert np.std(kernel) == pytest.approx(expected, rel=0.06)
    assert np.all(block["spatial"]["bn"]["scale"] == np.float32(1e-6))
    assert np.std(block["ltc"]["bn"]["scale"]) == pytest.approx(0.02, rel=0.3)
    assert np.abs(params["classifier"]["bias"]).max() <= 1 / 16


def test_a_foreign_state_dict_is_refused_by_name(shared):
    with np.load(shared / "golden/ctrgcn_nw_ucla.npz", allow_pickle=False) as file:
        state = _prefixed(dict(file), "state/")
    state["l3.extra.weight"] = state.pop("l3.gcn1.bn.weight")
    with pytest.raises(UserError, match=r"missing .*l3\.gcn1\.bn\.weight.*unexpected .*l3\.extra"):
        from_ctrgcn(state)


def _prefixed(arrays, prefix):
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def _relative(ours, expected):
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    return np.abs(ours - expected).max() / (np.abs(expected).max() + 1e-12)


def _distance(ours, expected):
    return np.linalg.norm(ours - expected) / np.linalg.norm(expected)


def _torch_entries(tree, state, collection="params"):
    """The entries of our parameters or statistics by torch name.

    Found by loading a state dict that numbers all its values.
    """
    names, sizes = list(state), [np.size(value) for value in state.values()]
    starts = np.cumsum([0, *sizes])
    assert starts[-1] < 2**24  # float32 counts so far exactly
    marked = {
        name: np.arange(start, start + size, dtype=np.float32).reshape(np.shape(state[name]))
        for name, start, size in zip(names, starts, sizes, strict=False)
    }
    places = from_ctrgcn(marked)[collection]
    values = np.full(starts[-1], np.nan)
    for where, leaf in zip(jax.tree.leaves(places), jax.tree.leaves(tree), strict=True):
        values[np.asarray(where).astype(int)] = np.asarray(leaf)
    return {
        name: values[start : start + size].reshape(np.shape(state[name]))
        for name, start, size in zip(names, starts, sizes, strict=False)
    }


def _rows_of(name, shape):
    """How many values a BatchNorm channel averages over, from the golden input's shape."""
    batch, _, frames, joints, persons = shape
    if name.startswith("data_bn"):
        return batch * frames
    if name.startswith("l10"):
        frames = (frames + 3) // 4  # two strided blocks
    return batch * persons * frames * joints
