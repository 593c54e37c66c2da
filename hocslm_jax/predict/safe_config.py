"""Filters an untrusted config: keeps sizes and names of choices, never paths, addresses or code.

In: the config of a release, which may come from anyone. Out: the part that prediction needs, with
checked types and sizes. Settings that name a folder, a cache, a model to download or a run are left
out; the user's own settings replace them.
"""

import dataclasses
import math
import re
from typing import Any

from hocslm_jax.data.feeder import Feed
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph

# Settings that are kept, each with a value of its type. `data.graph` comes from model.json.
TOP = {"seed": 0, "strategy": "", "stage": 0}
DATA = {"dataset": "", "protocol": "", "unseen": ""} | {
    field.name: field.default for field in dataclasses.fields(Feed) if field.name != "graph"
}
LANGUAGE = {  # how text enters the model; not `name` and `folder`, which are paths
    "init": "load",
    "dtype": "",
    "weights": "",
    "remat": False,
    "fsdp": False,
    "chunk": 16,
    "pack": False,
    "max_tokens": 48,
    "captions": "auto",
    "prompt_mode": "soft",
    "bos": False,
    "projector_reads": "feature",
    "projector_width": 1024,
    "ln_gain": "embed_rms",
}
MESH = {"model": 1}
STAGE = dict.fromkeys(("train", "losses", "classify_on", "captions"))  # None: of any plain type

# The largest sizes: at least ten times those of published skeleton models. The size of the file
# bounds the number of parameters.
SIZES = {
    "data.frames": 20_000,
    "data.num_persons": 100,
    "model.width": 4096,
    "model.gsm_width": 4096,
    "lm.projector_width": 65_536,
}
MAX_BLOCKS, MAX_STAGES = 200, 10
MAX_POINTS = 1_000_000  # of a clip: frames x persons x joints; NTU's longest have 15,000
MAX_CLASSES = 100_000
MAX_ITEMS = 64  # of a list in the config
_CHOICE = re.compile(r"[A-Za-z0-9_+-]{0,400}")  # data.unseen may list many classes


def safe_config(config: dict, where: object) -> dict:
    """The config that a release is loaded with.

    Raises:
        UserError: a value has the wrong type; names the setting and `where`.
    """

    def section(name: str) -> dict:
        found = config.get(name, {})
        if not isinstance(found, dict):
            raise _wrong(name, found, where)
        return found

    stages, prompt = config.get("stages") or [], section("lm").get("prompt", "")
    listed = isinstance(stages, list) and len(stages) <= MAX_ITEMS
    if not listed or not all(isinstance(stage, dict) for stage in stages):
        raise _wrong("stages", stages, where)
    if not isinstance(prompt, str) or len(prompt) > 1000:
        raise _wrong("lm.prompt", prompt, where)
    model = {key: None for key in section("model") if _CHOICE.fullmatch(key)}
    return {
        **(TOP | _kept(config, TOP, "", where)),
        "stages": [_kept(stage, STAGE, "stages.", where) for stage in stages],
        "data": _kept(section("data"), DATA, "data.", where),
        "model": _kept(section("model"), model, "model.", where),
        "lm": LANGUAGE
        | _kept(section("lm"), LANGUAGE, "lm.", where)
        | {"prompt": prompt, "name": "", "folder": ""},
        "mesh": MESH | _kept(section("mesh"), MESH, "mesh.", where),
    }


def _kept(section: dict, known: dict, prefix: str, where: object) -> dict:
    """The known settings of a section, whose values must be plain and of the right type.

    Plain values are numbers, booleans, names of choices, and short lists of these.
    """
    kept = {key: section[key] for key in known if key in section}
    for key, value in kept.items():
        items = value if isinstance(value, list) else [value]
        if len(items) > MAX_ITEMS or not all(map(_is_plain, items)) or not _fits(value, known[key]):
            raise _wrong(prefix + key, value, where)
    return kept


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_CHOICE.fullmatch(value))
    return isinstance(value, bool | int | float) and math.isfinite(value)


def _fits(value: Any, known: Any) -> bool:
    if known is None:
        return True
    kind = {float: (int, float), tuple: list}.get(type(known), type(known))
    return isinstance(value, kind) and isinstance(value, bool) == isinstance(known, bool)


def _wrong(name: str, value: Any, where: object) -> UserError:
    return UserError(
        f"{where}: {name} cannot be {repr(value)[:60]} in a release: fetch the release again"
    )


def check_sizes(config, graph: Graph, classes: tuple, where: object) -> None:
    """Refuses sizes that are too large or invalid, since a small config must not fill the memory.

    Args:
        config: with sections data, model and lm.

    Raises:
        UserError: names the setting and `where`.
    """

    def check(good: bool, name: str, value: object, expected: str) -> None:
        if not good:
            found = f"{name} is {str(value)[:60]}, expected {expected}"
            raise UserError(f"{where}: {found}; fetch it again")

    for name, most in SIZES.items():
        section, key = name.split(".")
        value = (config.get(section) or {}).get(key, 1)
        check(type(value) is int and 0 < value <= most, name, value, f"1 to {most}")
    stages = config["model"].get("stages") or (1,)
    lists = isinstance(stages, list | tuple) and len(stages) <= MAX_STAGES
    counts = lists and all(type(n) is int and n > 0 for n in stages) and sum(stages) <= MAX_BLOCKS
    check(counts, "model.stages", stages, f"at most {MAX_BLOCKS} blocks")
    frames = config["data"].get("frames", 1) * config["data"].get("num_persons", 1)
    size = f"{frames} x {graph.num_joints} joints"
    check(frames * graph.num_joints <= MAX_POINTS, "a clip", size, f"at most {MAX_POINTS} points")
    named = 0 < len(classes) <= MAX_CLASSES and all(isinstance(name, str) for name in classes)
    check(named, "the list of classes", f"{len(classes)} entries", "names")
