"""Finds a model in a folder of this machine, or in a repository of the Hugging Face hub."""

import difflib
import os
import re
from pathlib import Path

from hocslm_jax.errors import UserError

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:/([\w.-]+))?")


def find_folder(name: str | Path) -> Path:
    """The folder of a path or a hub id.

    Args:
        name: a folder, or an id of the hub: `owner/name`, or `owner/name/model` if the repository
            has several models. huggingface_hub caches downloads.

    Raises:
        UserError: there is no such folder, repository or model.
    """
    if path := local_folder(name):
        return path
    from hocslm_jax.models.lm import resolve  # imports JAX

    match = _HUB_ID.fullmatch(str(name))
    folder = resolve(match[1]) / (match[2] or "")
    if not folder.is_dir():
        raise UserError(f"{match[1]} has no model {match[2]!r}")
    return folder


def local_folder(name: str | Path) -> Path | None:
    """The folder of a path; None if it can only be an id of the hub.

    Raises:
        UserError: it is a file, or is neither a folder nor like an id.
    """
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):
        return path
    if os.path.isfile(path):
        raise UserError(f"{name} is a file: give its folder, {path.parent}")
    if not _HUB_ID.fullmatch(str(name)) or os.path.isdir(path.parts[0]):
        raise UserError(f"there is no folder {name}{_advice(path)}")
    return None


def _advice(path: Path) -> str:
    """Suggests a similar folder in the deepest folder that exists."""
    parent = next((folder for folder in path.parents if os.path.isdir(folder)), Path("."))
    inside = [p.name for p in parent.iterdir() if p.is_dir()]
    near = difflib.get_close_matches(path.relative_to(parent).parts[0], inside, 1)
    return f"; did you mean {parent / near[0]}?" if near else f"; {parent} has no such folder"
