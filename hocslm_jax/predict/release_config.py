"""What a release's config may say: sizes and names of choices, never a place, an address or code.

In: the config of a release, written by anyone. Out: the part of it that prediction needs, with
every value of its own type. What names a folder, a cache, a model to fetch or a run is left out;
there the user's own settings hold.
"""

import dataclasses
import math
import re
from typing import Any

from hocslm_jax.data.feeder import Feed
from hocslm_jax.errors import UserError

# Of language: what a text is and how it enters; not `name` and `folder`, which are places.
LANGUAGE = {
    "init": "load",
    "dtype": "",
    "remat": False,
    "fsdp": False,
    "chunk": 16,
    "pack": False,
    "max_tokens": 48,
    "captions": "auto",
    "prompt_mode": "soft",
    "projector_width": 1024,
    "ln_gain": "embed_rms",
}
STAGE = ("train", "losses", "classify_on", "captions")
MOST = 64  # entries of a list, and stages
_CHOICE = re.compile(r"[A-Za-z0-9_+-]{0,60}")


def safe_config(config: dict, where: object) -> dict:
    """The config that a release is loaded with.

    Raises:
        UserError: a value of another type than its setting has (names the setting).
    """
    data, lm, model = (_section(config, name, where) for name in ("data", "lm", "model"))
    feed = {
        field.name: field.default
        for field in dataclasses.fields(Feed)
        if field.name != "graph"  # of model.json
    }
    known = {"dataset": "", "protocol": "", **feed}
    train, mesh = (_section(config, name, where) for name in ("train", "mesh"))
    return {
        "seed": _value(config.get("seed", 0), 0, "seed", where),
        "strategy": _value(config.get("strategy", ""), "", "strategy", where),
        "stage": _value(config.get("stage", 0), 0, "stage", where),
        "stages": _stages(config.get("stages") or [], where),
        "data": {
            key: _value(data[key], known[key], f"data.{key}", where) for key in known if key in data
        },
        "model": {
            key: _value(value, None, f"model.{key}", where)
            for key, value in model.items()
            if _CHOICE.fullmatch(key)
        },
        "lm": {
            key: _value(lm.get(key, default), default, f"lm.{key}", where)
            for key, default in LANGUAGE.items()
        }
        | {"prompt": _text(lm.get("prompt", ""), where), "name": "", "folder": ""},
        "train": {
            "eval_batch_size": _value(train.get("eval_batch_size", 64), 64, "train", where),
        },
        "mesh": {"model": _value(mesh.get("model", 1), 1, "mesh.model", where)},
    }


def _section(config: dict, name: str, where: object) -> dict:
    section = config.get(name, {})
    if not isinstance(section, dict):
        raise _wrong(name, section, where)
    return section


def _stages(stages: Any, where: object) -> list[dict]:
    if not isinstance(stages, list) or len(stages) > MOST:
        raise _wrong("stages", stages, where)
    found = []
    for stage in stages:
        if not isinstance(stage, dict):
            raise _wrong("stages", stage, where)
        found.append({k: _value(stage[k], None, f"stages.{k}", where) for k in STAGE if k in stage})
    return found


def _value(value: Any, default: Any, name: str, where: object) -> Any:
    """A number, a yes or no, the name of a choice, or a short list of these, as the default is."""
    if isinstance(value, list) and (default is None or isinstance(default, tuple)):
        if len(value) <= MOST and all(_is_plain(one) for one in value):
            return value
    elif _is_plain(value):
        kinds = {bool: bool, int: int, float: (int, float), str: str}
        wanted = object if default is None else kinds.get(type(default), ())
        if isinstance(value, wanted) and (default is None or _same_kind(value, default)):
            return value
    raise _wrong(name, value, where)


def _same_kind(value: Any, default: Any) -> bool:
    return isinstance(value, bool) == isinstance(default, bool)


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_CHOICE.fullmatch(value))
    return isinstance(value, bool | int | float) and math.isfinite(value)


def _text(value: Any, where: object) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise _wrong("lm.prompt", value, where)
    return value


def _wrong(name: str, value: Any, where: object) -> UserError:
    return UserError(
        f"{where}: {name} cannot be {repr(value)[:60]} in a release: fetch the release again"
    )
