"""Reads weights of a PyTorch CTR-GCN from a `.pt`, `.safetensors` or `.npz` file.

In: a file with a state dict of the public CTR-GCN, alone or inside a checkpoint. Out: the variables
of a `Recogniser`, and sizes that follow from the tensors. Nothing in a file is executed.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from hocslm_jax.errors import UserError
from hocslm_jax.files.npy import read_npz
from hocslm_jax.models.torch_weights import from_ctrgcn

SUFFIXES = (".pt", ".pth", ".safetensors", ".npz")
INSIDE = ("state_dict", "model_state_dict", "model", "weights", "net")  # keys of a checkpoint


@dataclasses.dataclass(frozen=True)
class Converted:
    """A CTR-GCN from a file.

    Attributes:
      variables: {"params", "batch_stats"}, float32.
      width, stages: as in `EncoderConfig`.
      classes, joints, persons, channels: sizes of its output and of its input.
    """

    variables: dict
    width: int
    stages: tuple[int, ...]
    classes: int
    joints: int
    persons: int
    channels: int

    @property
    def model(self) -> dict:
        """Its part of `config.model`."""
        return {"encoder": "ctrgcn", "width": self.width, "stages": list(self.stages)}


def convert_file(path: Path) -> Converted:
    """The CTR-GCN in a file.

    Raises:
        UserError: the file is missing, damaged or of another type, or not a CTR-GCN's weights.
    """
    state = read_state_dict(path)
    try:
        return _converted(from_ctrgcn(state), state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, IndexError, KeyError, TypeError, ZeroDivisionError) as error:
        reason = str(error).partition("\n")[0][:80]
        raise UserError(
            f"{path} is not a CTR-GCN state dict: shapes do not fit ({reason})"
        ) from None


def _converted(variables: dict, state: Mapping[str, np.ndarray]) -> Converted:
    layers = len(variables["params"]["encoder"]) - 1  # and data_bn
    first, joints = state["l1.gcn1.convs.0.conv3.weight"], state["l1.gcn1.PA"].shape[1]
    widths = [state[f"l{n}.gcn1.convs.0.conv3.weight"].shape[0] for n in range(1, layers + 1)]
    stages = tuple(len(list(group)) for _, group in itertools.groupby(widths))
    expected = [widths[0] << stage for stage, n in enumerate(stages) for _ in range(n)]
    persons, rest = divmod(state["data_bn.weight"].size, joints * first.shape[1])
    if widths != expected or rest or state["l1.gcn1.PA"].shape[0] != 3:
        raise UserError(
            f"not the layers of CTR-GCN: {layers} of {'+'.join(map(str, widths))} channels, "
            f"{state['l1.gcn1.PA'].shape[0]} graphs of {joints} joints"
        )
    return Converted(
        variables=variables,
        width=widths[0],
        stages=stages,
        classes=state["fc.weight"].shape[0],
        joints=joints,
        persons=persons,
        channels=first.shape[1],
    )


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors in a file by name, float32; prefixes of wrappers are removed.

    A checkpoint may hold the state dict beside other things, as "state_dict" or "model".

    Raises:
        UserError: as `convert_file`.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: weights are read from {', '.join(SUFFIXES)}")
    state = _READERS.get(path.suffix, _from_torch)(path)
    inner = [state[key] for key in INSIDE if isinstance(state.get(key), Mapping)]
    state = inner[0] if inner else state
    arrays = {str(name): _array(value) for name, value in state.items() if hasattr(value, "shape")}
    if not arrays:
        raise UserError(f"{path} holds no tensors: save the network's state_dict()")
    for name, value in arrays.items():
        if not np.isfinite(value).all():
            raise UserError(f"{path}: {name[:80]} is not finite; save it again")
    for prefix in ("module.", "model."):
        if all(name.startswith(prefix) for name in arrays):
            arrays = {name.removeprefix(prefix): value for name, value in arrays.items()}
    return arrays


def _array(value) -> np.ndarray:
    """A tensor of either framework as float32."""
    value = value.detach().float().numpy() if hasattr(value, "detach") else value
    return np.asarray(value, np.float32)


def _from_torch(path: Path) -> Mapping:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"reading {path} needs PyTorch: pip install torch, or save the weights as .safetensors"
        ) from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and PyTorch raise many types
        reason = str(error).strip().partition("\n")[0][:80]
        raise UserError(
            f"{path} cannot be read as weights alone ({reason}): if you trust it, load it in "
            "PyTorch and save the network's state_dict()"
        ) from None
    return found if isinstance(found, Mapping) else {}


def _from_safetensors(path: Path) -> Mapping:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({str(error)[:80]}): save it again") from None


def _from_npz(path: Path) -> Mapping:
    try:
        return read_npz(path)
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({str(error)[:80]}): save it again") from None


_READERS = {".safetensors": _from_safetensors, ".npz": _from_npz}
