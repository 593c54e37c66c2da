"""The files of a released model: `model.safetensors` and a `config.json` with all it needs.

In and out: variables {"params", "batch_stats"}, and a dict with the run's config, `model.json` and
result. Matrices may be stored in half precision; vectors, scalars and BatchNorm's statistics, which
are small, stay float32. Reading converts all to float32.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import read_json, replaced, write_json
from hocslm_jax.files.checksums import SUMS, check_seal, seal
from hocslm_jax.sharding import path_name

WEIGHTS, CARD = "model.safetensors", "config.json"
FORMAT = "hocslm_jax release 1"
DTYPES = ("float32", "float16", "bfloat16")
ADVICE = "fetch the release again"


def is_release(folder: Path) -> bool:
    """Whether a folder holds a released model, rather than a run or a language model."""
    return (folder / WEIGHTS).is_file() and not (folder / "tokenizer.json").exists()


def save(folder: Path, variables: dict, about: dict, dtype: str) -> int:
    """Writes both files; returns the size of the weights in bytes.

    Args:
        variables: {"params", "batch_stats"}.
        about: the result of `load_model.about_run`.

    Raises:
        UserError: an unknown dtype, or a weight is too large for float16.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r}: use one of {', '.join(DTYPES)}")
    tensors = {}
    for path, leaf in jax.tree.leaves_with_path(variables):
        name, value = path_name(path), np.asarray(leaf, np.float32)
        if value.ndim > 1 and name.startswith("params/"):
            with np.errstate(over="ignore"):
                value = value.astype(jnp.dtype(dtype))
        if not np.isfinite(value.astype(np.float32)).all():
            raise UserError(f"{name} does not fit into {dtype}: use --dtype bfloat16 or float32")
        tensors[name] = np.ascontiguousarray(value)
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / WEIGHTS) as partial:
        save_file(tensors, partial)
        partial.chmod(0o644)  # safetensors makes files that only their owner can read
    write_card(folder, {"format": FORMAT, "dtype": dtype, **about})
    return (folder / WEIGHTS).stat().st_size


def write_card(folder: Path, card: dict) -> None:
    """Writes `config.json`, and the checksums of both files."""
    write_json(folder / CARD, card)
    seal(folder, (WEIGHTS, CARD))


def read_card(folder: Path) -> dict:
    """The `about` given to `save`, with "format" and "dtype".

    Raises:
        UserError: it is absent or damaged, or has another format.
    """
    if not check_seal(folder, (WEIGHTS, CARD), ADVICE):
        print(
            f"{folder} has no {SUMS}: not verified; `python -m hocslm_jax release --seal {folder}` "
            "adds it to a release that you know to be intact",
            file=sys.stderr,
        )
    card = read_json(folder / CARD, ADVICE, ("format", "config", "model"))
    if card["format"] != FORMAT or not all(isinstance(card[k], dict) for k in ("config", "model")):
        raise UserError(f"{folder / CARD} is not of {FORMAT!r}: {ADVICE}")
    return card


def read_variables(folder: Path, wanted: dict) -> dict:
    """The variables in the shapes, types and shardings of `wanted`.

    Args:
        wanted: {"params", "batch_stats"} of `jax.ShapeDtypeStruct` with shardings.

    Raises:
        UserError: the file is damaged, or belongs to another model (names the tensors).
    """
    found = read_tensors(folder)
    expected = {path_name(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(wanted)}
    shapes = {name: value.shape for name, value in found.items()}
    if wrong := sorted(set(shapes.items()) ^ set(expected.items())):
        raise UserError(
            f"{folder / WEIGHTS} does not fit the model of its {CARD}: {len(wrong)} tensors are "
            f"missing, unexpected or of another shape, the first {wrong[0][0][:80]}; {ADVICE}"
        )
    return jax.tree.map_with_path(
        lambda path, leaf: jax.device_put(found[path_name(path)].astype(leaf.dtype), leaf.sharding),
        wanted,
    )


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """All arrays of a release by name, in their stored types.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with safe_open(folder / WEIGHTS, "numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{folder / WEIGHTS} is damaged ({str(error)[:80]}): {ADVICE}") from None
    for name, value in found.items():
        if value.dtype.name not in DTYPES or not np.isfinite(value).all():
            raise UserError(
                f"{folder / WEIGHTS}: {name[:80]} is of {value.dtype} or not finite: {ADVICE}"
            )
    return found
