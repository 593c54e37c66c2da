"""Converts a PyTorch CTR-GCN state dict (NumPy arrays) to `{"params", "batch_stats"}`.

The logits equal those of the public PyTorch code, whose names are used: `l1` to `l10`.
"""

import re
from collections.abc import Mapping

import numpy as np

from hocslm_jax.errors import UserError, few

Arrays = Mapping[str, np.ndarray]


def from_ctrgcn(state: Arrays) -> dict:
    """Variables of `Recogniser(graph, classes, CTRGCN)` from a CTR-GCN state dict.

    Raises:
      UserError: keys are missing or unexpected.
    """
    used: set[str] = set()
    missing: list[str] = []

    def get(name: str) -> np.ndarray:
        used.add(name)
        if name not in state:
            missing.append(name)
            return np.zeros((1, 1, 1, 1), np.float32)
        return np.asarray(state[name])

    layers = sorted({int(found[1]) for name in state if (found := re.match(r"l(\d+)\.", name))})
    pairs = {"data_bn": _norm(get, ["data_bn"])}
    pairs |= {f"block{n}": _block(get, f"l{n}", state) for n in layers}
    encoder = {name: _split(tree) for name, tree in pairs.items()}
    ignored = {name for name in state if name.endswith("num_batches_tracked")}
    classifier = {"kernel": get("fc.weight").squeeze().T, "bias": get("fc.bias")}
    unexpected = sorted(set(state) - used - ignored)
    if missing or unexpected:
        found = f"missing {few(missing, most=3) or 'nothing'}, "
        found += f"unexpected {few(unexpected, most=3) or 'nothing'}"
        raise UserError(f"not a CTR-GCN state dict: {found}")
    return {
        "params": {"encoder": {k: p for k, (p, _) in encoder.items()}, "classifier": classifier},
        "batch_stats": {"encoder": {k: s for k, (_, s) in encoder.items() if s}},
    }


def _block(get, name: str, state: Arrays) -> dict:
    gcn, tcn = f"{name}.gcn1", f"{name}.tcn1"
    subsets = range(get(f"{gcn}.PA").shape[0])
    relation = [_matrix(get, f"{gcn}.convs.{s}.conv{n}") for n in (1, 2) for s in subsets]
    tree = {
        "ctrgc": {
            "graph": get(f"{gcn}.PA"),
            "alpha": get(f"{gcn}.alpha").reshape(1),
            "relations": {"ab": _side_by_side(relation)},
            "expand": _stacked([_matrix(get, f"{gcn}.convs.{s}.conv4") for s in subsets]),
        },
        "spatial": {
            "value": _stacked([_matrix(get, f"{gcn}.convs.{s}.conv3") for s in subsets]),
            "bn": _norm(get, [f"{gcn}.bn"]),
        },
        "ltc": _temporal(get, f"{tcn}.branches"),
    }
    if f"{gcn}.down.0.weight" in state:
        tree["spatial"] |= {
            "down": _matrix(get, f"{gcn}.down.0"),
            "down_bn": _norm(get, [f"{gcn}.down.1"]),
        }
    if f"{name}.residual.conv.weight" in state:
        tree |= {
            "shortcut": _matrix(get, f"{name}.residual.conv"),
            "shortcut_bn": _norm(get, [f"{name}.residual.bn"]),
        }
    return tree


def _temporal(get, name: str) -> dict:
    return {
        "reduce": _side_by_side([_matrix(get, f"{name}.{n}.0") for n in (0, 1, 2)]),
        "reduce_bn": _norm(get, [f"{name}.{n}.1" for n in (0, 1, 2)]),
        "conv1": _taps(get, f"{name}.0.3.conv"),
        "conv2": _taps(get, f"{name}.1.3.conv"),
        "skip": _matrix(get, f"{name}.3.0"),
        "bn": _norm(get, [f"{name}.{n}" for n in ("0.3.bn", "1.3.bn", "2.4", "3.1")]),
    }


def _matrix(get, name: str) -> dict:
    """A 1x1 convolution [out, in, 1, 1] as a kernel [in, out]."""
    return {"kernel": get(f"{name}.weight")[:, :, 0, 0].T, "bias": get(f"{name}.bias")}


def _taps(get, name: str) -> dict:
    """A temporal convolution [out, in, taps, 1] as a kernel [taps, in, out]."""
    kernel = get(f"{name}.weight")[..., 0].transpose(2, 1, 0)
    return {"kernel": kernel, "bias": get(f"{name}.bias")}


def _norm(get, names: list[str]) -> dict:
    fields = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    return {
        ours: np.concatenate([get(f"{n}.{theirs}") for n in names])
        for ours, theirs in fields.items()
    }


def _side_by_side(matrices: list[dict]) -> dict:
    return {key: np.concatenate([m[key] for m in matrices], axis=-1) for key in ("kernel", "bias")}


def _stacked(matrices: list[dict]) -> dict:
    return {key: np.stack([m[key] for m in matrices]) for key in ("kernel", "bias")}


def _split(tree: dict) -> tuple[dict, dict]:
    """Separates the parameters from the running statistics in the result of `_norm`."""
    params, stats = {}, {}
    for key, value in tree.items():
        if isinstance(value, dict):
            params[key], inner = _split(value)
            if inner:
                stats[key] = inner
        else:
            (stats if key in ("mean", "var") else params)[key] = value
    return params, stats
