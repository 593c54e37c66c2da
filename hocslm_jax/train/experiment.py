"""The settings of an experiment: their defaults, and the `:name=value,name=value` of `--config`.

In: the argument after the colon of `--config=nw_ucla:stream=bone,seed=1`.
Out: a `ConfigDict`; any single value can still be changed with `--config.optim.lr=0.05`.
Each section is a dataclass, with defaults and documentation, beside the code that uses it;
`SECTIONS` lists them. An option's short name is its last word (`stream`, `lr`, `epochs`); the full
dotted name works too. Six arguments stand for more than one setting: `recipe=` (see `recipes`),
`strategy=` (the training stages, see `strategies`), `streams=all` (the paper's six streams in one
program; `streams=joint+bone` selects two), `start=RUN` (start from the encoder of a run, a release
or a PyTorch CTR-GCN, with any classes), `partial=true` (its layers that do not fit start at
random), and `freeze=encoder` (it is not trained).
"""

import dataclasses
import difflib
import runpy
import shlex

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from hocslm_jax.data.feeder import Feed
from hocslm_jax.data.source import Source
from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.language.open import LanguageSettings
from hocslm_jax.language.pretrain import PretrainSettings
from hocslm_jax.models.encoder import EncoderConfig
from hocslm_jax.models.hocslm import GROUPS
from hocslm_jax.sharding import MeshSettings
from hocslm_jax.train.augmented_test import ViewSettings
from hocslm_jax.train.config_files import config_file
from hocslm_jax.train.distill import Distillation
from hocslm_jax.train.loop import Schedule
from hocslm_jax.train.optim import Finetune, Optimizer
from hocslm_jax.train.recipes import RECIPES
from hocslm_jax.train.stages import Stage, read_stages
from hocslm_jax.train.step import LossWeights
from hocslm_jax.train.strategies import STRATEGIES

SECTIONS = {
    "data": (Source, Feed),
    "model": (EncoderConfig,),
    "optim": (Optimizer,),
    "finetune": (Finetune,),
    "loss": (LossWeights,),
    "distill": (Distillation,),
    "lm": (LanguageSettings,),
    "train": (Schedule,),
    "test": (ViewSettings,),
    "mesh": (MeshSettings,),
}
ALIASES = {
    "optim": "optim.name",
    "llm": "lm.name",
    "gen": "loss.gen",
    "smoothing": "loss.smoothing",
    "mixup": "loss.mixup",
}
# Sections whose last words are too general for short names, or already used.
DOTTED_ONLY = ("mesh.", "test.", "optim.name", "finetune.", "lm.", "loss.", "distill.")


def load(name: str, arg: str = "") -> ConfigDict:
    """The config of a file, which `config_file` finds, with an argument."""
    return runpy.run_path(str(config_file(name)))["get_config"](arg)


def defaults() -> ConfigDict:
    """Strategy T0 with CTR-GCN's NW-UCLA recipe; each config file changes it for its dataset."""
    sections = {
        name: {k: v for part in parts for k, v in dataclasses.asdict(part()).items()}
        for name, parts in SECTIONS.items()
    }
    # The dataset determines persons and channels; the encoder its spatial and temporal parts.
    sections["data"] |= {"num_persons": 0, "channels": "", "repeat": 5}
    sections["model"] |= {"encoder": "hglnet", "spatial": "", "temporal": ""}
    sections["lm"]["pretrain"] = dataclasses.asdict(PretrainSettings())
    return ConfigDict(
        {
            "seed": 0,
            "strategy": "T0",  # classification only, from scratch
            "stages": STRATEGIES["T0"],
            "t0": "",  # weights in the place of the first stage: a finished T0 run, a release, …
            "compilation_cache": "~/.cache/hocslm_jax/xla",  # "" = off
            **sections,
        }
    )


def ntu(dataset: str, protocol: str) -> ConfigDict:
    """CTR-GCN's NTU recipe: 64 frames, two persons, batch 64, weight decay 4e-4."""
    config = defaults()
    config.data.update(dataset=dataset, protocol=protocol, feeder="ntu", frames=64)
    config.data.update(num_persons=2, repeat=1)
    config.data.second_person = "copy" if dataset == "ntu120" else "zeros"
    config.optim.update(weight_decay=4e-4, milestones=(35, 55))
    config.train.batch_size = 64
    config.update(strategy="T3", stages=STRATEGIES["T3"])
    config.lm.update(name="Qwen/Qwen3-4B", init="load", max_tokens=64)
    return config


def from_run(saved: dict) -> ConfigDict:
    """The config stored in a checkpoint as JSON; settings it lacks get their defaults."""
    config = defaults()
    with config.unlocked():
        config.update(_with_tuples(saved))
    return config


def _with_tuples(value):
    if isinstance(value, dict):
        return {key: _with_tuples(part) for key, part in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def flatten(config: ConfigDict) -> dict:
    """{"optim.lr": 0.1, …} of a nested config."""
    return flatten_dict(config.to_dict(), sep=".")


def apply(config: ConfigDict, arg: str) -> ConfigDict:
    """Sets `k=v,k=v` on `config`. Raises UserError for an unknown name or an invalid value."""
    pairs = [item.partition("=") for item in (arg or "").split(",") if item.strip()]
    settings = [(key.strip(), sep, value.strip()) for key, sep, value in pairs]
    order = ("recipe", "", "start", "partial", "freeze")  # "" are all others
    settings.sort(key=lambda item: order.index(item[0] if item[0] in order else ""))
    for key, sep, value in settings:
        if not sep:
            raise UserError(f"config argument {key!r} has no value: write {key}=…")
        if key == "recipe":
            config.update_from_flattened_dict(choose(RECIPES, "recipe", value))
        elif key == "strategy":
            config.update(strategy=value, stages=choose(STRATEGIES, "strategy", value))
        elif key in STAGE_ARGUMENTS:
            STAGE_ARGUMENTS[key](config, value)
        else:
            path = full_name(config, key)
            value = parse(path, value, flatten(config)[path])
            config.update_from_flattened_dict({path: value})
            if path == "lm.name":
                config.lm.init = "load"
    return config


def named(config: ConfigDict, arg: str) -> list[str]:
    """The dotted names of the settings in an argument, without `recipe=` and similar ones."""
    keys = [item.partition("=")[0].strip() for item in arg.split(",") if item.strip()]
    return [full_name(config, key) for key in keys if key not in SEVERAL]


def start_from(config: ConfigDict, run: str) -> None:
    """Sets classification (T0) that starts from the encoder of a run, release or file of weights.

    Raises:
        UserError: another strategy is set.
    """
    if config.strategy != "T0":
        raise UserError(
            f"start={run} needs strategy T0; with {config.strategy}, give that run as t0=…"
        )
    (stage,) = STRATEGIES["T0"]
    config.update(strategy="custom", stages=({**stage, "start": run, "take": ("encoder",)},))


def take_what_fits(config: ConfigDict, text: str) -> None:
    """Lets layers that do not fit start at random, in each stage that starts from other weights.

    Raises:
        UserError: there is no such stage, or the text is neither true nor false.
    """
    partial = parse("partial", text, False)
    began = [stage.start not in ("random", "previous") for stage in read_stages(config)]
    if not any(began):
        raise UserError(f"partial={text} is for runs that start from other weights: add start=RUN")
    stages = zip(config.stages, began, strict=True)
    config.stages = tuple({**s, "partial": partial} if other else s for s, other in stages)


def freeze(config: ConfigDict, text: str) -> None:
    """Freezes groups, e.g. "encoder" or "encoder+prompt", in every stage.

    Raises:
        UserError: no such group, no stage starts from it, or nothing is left to train.
    """
    stages = list(config.stages)
    for group in text.split("+"):
        if group not in GROUPS:
            raise UserError(f"freeze={text}: choose from {', '.join(GROUPS)}")
        taken = [n for n, stage in enumerate(read_stages(config)) if group in stage.take]
        if not taken:
            raise UserError(
                f"freeze={text}: no stage of this run starts from a trained {group}: add start=RUN"
            )
        for n in taken:
            train = tuple(name for name in stages[n].get("train", Stage().train) if name != group)
            if not train:
                raise UserError(f"freeze={text} leaves nothing to train in stage {n + 1}")
            stages[n] = {**stages[n], "train": train}
    config.update(strategy="custom", stages=tuple(stages))


STAGE_ARGUMENTS = {"start": start_from, "partial": take_what_fits, "freeze": freeze}
SEVERAL = ("recipe", "strategy", *STAGE_ARGUMENTS)  # each sets several settings


def choose(table: dict, kind: str, name: str):
    if name not in table:
        raise UserError(f"unknown {kind} {name!r}: choose from {', '.join(table)}")
    return table[name]


def full_name(config: ConfigDict, key: str) -> str:
    """The dotted name of a short or dotted one."""
    names = list(flatten(config))
    short = {n.rpartition(".")[2]: n for n in names if not n.startswith(DOTTED_ONLY)} | ALIASES
    if key in names:
        return key
    if key not in short:
        known = names if "." in key else [*short, *SEVERAL]
        raise UserError(f"unknown config argument {key!r}{nearest(key, known)}")
    return short[key]


def nearest(key: str, known: list[str]) -> str:
    """`: did you mean 'optim.lr'?`, or some of the known names if none is similar."""
    same = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    same.sort(key=lambda name: name.startswith(DOTTED_ONLY))  # optim.lr before finetune.lr
    near = [ALIASES.get(key, ""), *same, *difflib.get_close_matches(key, known, n=1, cutoff=0.5)]
    if close := [name for name in near if name in known]:
        return f": did you mean {close[0]!r}?"
    return f": known are {', '.join(sorted(known)[:8])}, …, all of them in train/experiment.py"


def parse(name: str, text: str, default):
    """Parses `text` as the type of `default`."""
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if name == "data.streams":
            return PAPER_STREAMS if text == "all" else tuple(text.split("+"))
        if isinstance(default, tuple):
            raise ValueError  # a comma separates arguments
        return type(default)(text)
    except (ValueError, KeyError):
        kind = type(default).__name__
        hint = f": set it with --config.{name}={_example(default)}" if kind == "tuple" else ""
        raise UserError(f"config argument {name}={text} is not of type {kind}{hint}") from None


def _example(values: tuple) -> str:
    """A tuple as written in a shell."""
    return shlex.quote(str(values or ("a", "b")).replace(" ", ""))


def check_strategy(config: ConfigDict) -> None:
    """Raises UserError unless `strategy` and `stages` belong together.

    A config file with its own stages has the strategy "custom".
    """
    name = config.strategy
    if name != "custom" and choose(STRATEGIES, "strategy", name) != config.stages:
        raise UserError(
            f"strategy {name} is a list of stages: choose it with --config=FILE:strategy={name}"
        )
