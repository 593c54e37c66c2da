"""Defaults of every experiment, and the `:name=value,name=value` argument of the config files.

In: the argument after the colon of `--config=configs/nw_ucla.py:stream=bone,seed=1`.
Out: a locked-key `ConfigDict`; any single value can still be changed with `--config.optim.lr=0.05`.
An option's short name is its last word (`stream`, `encoder`, `lr`, `epochs`); the full dotted name
works too. `recipe=` swaps the optimiser recipe as a whole and is applied before everything else;
`strategy=` chooses the list of training stages, `llm=` the language model; `streams=all` trains the
paper's six streams in one program, `streams=joint+bone` these two; `start=RUN` takes the encoder of
a finished run, of whatever classes, to begin with.
"""

import difflib
import shlex

from ml_collections import ConfigDict

from configs.strategies import STRATEGIES
from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError

RECIPES = {
    # The CTR-GCN recipe of each config file, unchanged.
    "ctr": {},
    # The same with HocSLM's length.
    "ctr85": {"train.epochs": 85, "optim.milestones": (50, 70)},
    # HocSLM: AdamW, batch 64, 85 epochs, weight decay 0.01. The paper gives no learning rate.
    "adamw": {
        "optim.name": "adamw",
        "optim.lr": 1e-3,
        "optim.weight_decay": 0.01,
        "optim.schedule": "cosine",
        "optim.decay_mask": True,
        "train.epochs": 85,
        "train.batch_size": 64,
    },
    # For CPU cores: the CTR-GCN recipe down a half cosine. In the search on held-out training clips
    # (configs/search/nw_ucla.py) short runs fit even their training clips badly, so nothing is
    # added that makes these harder.
    "short": {"train.epochs": 10, "optim.warmup_epochs": 1, "optim.schedule": "cosine"},
    # For an accelerator: SkateFormer's two augmentations and smoothing, and averaged weights. Not
    # searched here: 65 and more epochs are beyond CPU cores.
    "long": {
        "train.epochs": 120,
        "optim.schedule": "cosine",
        "optim.ema": 0.999,
        "loss.smoothing": 0.1,
        "data.drop_axis": 0.5,
        "data.drop_joints": 0.5,
    },
}
ALIASES = {
    "optim": "optim.name",
    "llm": "lm.name",
    "gen": "loss.gen",
    "smoothing": "loss.smoothing",
    "mixup": "loss.mixup",
}
# Sections whose last words are too general, or taken, to be short names.
DOTTED_ONLY = ("mesh.", "test.", "optim.name", "finetune.", "lm.", "loss.", "distill.")


def defaults() -> ConfigDict:
    """The CTR-GCN recipe; each config file overrides its dataset's part."""
    return ConfigDict(
        {
            "seed": 0,
            "strategy": "T0",  # classification only, from scratch; see strategies.py
            "stages": STRATEGIES["T0"],
            "stage": 0,  # the one at hand, set by the training itself
            "t0": "",  # workdir of a finished T0 run to take as the first stage
            "compilation_cache": "~/.cache/hocslm_jax/xla",  # "" = off
            "data": {
                "dataset": "nw_ucla",
                "data_dir": "data",
                "protocol": "xview",
                "stream": "joint",
                "streams": (),  # several in one program, in its place; streams=all: the paper's six
                "feeder": "nw_ucla",
                "frames": 52,
                "num_persons": 0,  # that a clip may have; 0 = as many as the dataset's clips have
                "origin": "",  # "body": at the body; "kept": as it is; "" = what the dataset needs
                "repeat": 5,  # visits to each training clip in one epoch
                "p_interval": (0.5, 1.0),  # share of the frames that a training crop keeps (ntu)
                "test_interval": 0.95,  # and that a test clip keeps
                "rotation": 0.0,  # degrees; 0 = the protocol's own, -1 = none
                "crop": 0.0,  # share of its frames that may be cut off a training clip
                "mirror": 0.0,  # probability of exchanging left and right
                "scale": 0.0,  # share by which an axis may grow or shrink
                "jitter": 0.0,  # standard deviation of a joint's displacement
                "drop_axis": 0.0,  # probability
                "drop_joints": 0.0,
                "second_person": "zeros",
                "threads": 1,  # that prefetch; more only wait for each other
                "cache": "",  # "ram": keep all clips in memory, 3 GB for NTU120
                "graph": "",  # "" = the dataset's own
                "auto_prepare": False,  # build a missing dataset before training
            },
            "model": {
                "encoder": "hglnet",
                "spatial": "",  # "" = the encoder's own
                "temporal": "",
                "width": 64,
                "stages": (4, 3, 3),
                "gsm": True,
                "lse": True,
                "gta": True,
                "ltc": True,
                "gsm_attention": True,
                "gsm_width": 16,
                "gta_position": "none",
                "pair_mode": "tanh_diff",
                "dropout": 0.0,
                "dtype": "float32",
                "remat": False,  # True: less memory, a third more arithmetic
            },
            "optim": {
                "name": "sgd",
                "lr": 0.1,
                "momentum": 0.9,
                "weight_decay": 1e-4,
                "warmup_epochs": 5,
                "schedule": "step",
                "milestones": (50,),
                "gamma": 0.1,
                "decay_mask": False,  # True: spare all but matrices (`train.optim.DECAYED`)
                "ema": 0.0,  # decay of the averaged weights that are evaluated; 0 = off
                "clip_norm": 0.0,  # 0 = off
                "encoder_scale": 1.0,  # learning rate of the encoder over that of the rest
            },
            # The optimiser of the stages that go on from trained weights, or train with language.
            # The paper gives none of these but the weight decay.
            "finetune": {
                "name": "adamw",
                "lr": 3e-4,
                "weight_decay": 0.01,
                "warmup_epochs": 5,
                "schedule": "cosine",
                "decay_mask": True,
                "clip_norm": 1.0,
                "encoder_scale": 0.3,
                "epochs": 85,
            },
            "loss": {
                "cls": 1.0,  # weights of eq. 14; the paper gives none
                "gen": 0.1,
                "smoothing": 0.0,  # share of the target that all classes have
                "mixup": 0.0,  # alpha of mixup's Beta(alpha, alpha); 0 = off; not beside captions
            },
            "distill": {  # a student of finished runs, for classification alone
                "share": 0.0,  # of the loss that is to follow the teacher; 0 = off
                "teacher": "",  # runs with scores_train.npz: a folder, or a pattern such as runs/*
                "temperature": 4.0,
                "targets": "",  # what the teacher says, in short; set by the training itself
            },
            "lm": {
                "name": "",  # folder or hub id of a Qwen3, for init=load
                "init": "pretrain",  # load, or pretrain a small one on the captions
                "folder": "",  # where the pretrained one lies; "" = lm/ in the workdir
                "dtype": "",  # "" = bfloat16 for a loaded model, float32 for one pretrained here
                "remat": True,
                "fsdp": False,  # True: split its weights over the 'data' axis too
                "chunk": 16,  # caption positions whose logits exist at one time
                "pack": False,  # True: several examples in one row, instead of padding each
                "max_tokens": 48,  # of a caption with its EOS; longer ones are cut at a word
                "captions": "auto",  # auto (the clips' own, else the bank), clips or bank
                "prompt": "Describe the action performed by the person:",
                "prompt_mode": "soft",  # trained from that sentence, or "text": kept as it is
                "projector_width": 1024,
                "ln_gain": "embed_rms",  # first scale of the visual token, or "one"
                "describe": 256,  # test clips described at the end; 0 = none, -1 = all
                "pretrain": {
                    "vocab_size": 1024,
                    "hidden_size": 128,
                    "num_layers": 2,
                    "num_heads": 4,
                    "num_kv_heads": 2,
                    "intermediate_size": 384,
                    "steps": 800,
                    "batch_size": 64,
                    "lr": 3e-3,
                },
            },
            "train": {
                "epochs": 65,
                "batch_size": 16,
                "eval_batch_size": 64,
                "eval_every": 1,  # epochs; 0 = only at the end
                "checkpoint_every": 200,  # steps
                "log_every": 20,  # steps
                "keep": 2,  # checkpoints
            },
            # Test-time augmentation, counted beside the plain test: views x crops (x 2) looks.
            "test": {
                "views": 1,  # turns about the vertical axis, evenly from -angle to angle
                "angle": 30.0,  # degrees
                "crops": 1,  # overlapping stretches of the clip; 1 = all of it
                "mirror": False,  # True: everything once more with left and right exchanged
                "train_clips": False,  # True: scores_train.npz too, plain tests of training clips
            },
            "mesh": {
                "stream": 1,  # of `data.streams`
                "data": -1,  # -1 = all the devices left
                "model": 1,
                "fsdp": False,  # True: split trained weights and moments over 'data' too
            },
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


def flatten(config: ConfigDict, prefix: str = "") -> dict:
    """{"optim.lr": 0.1, …} of a nested config."""
    flat = {}
    for key, value in config.items():
        nested = isinstance(value, ConfigDict)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def apply(config: ConfigDict, arg: str) -> ConfigDict:
    """Sets `k=v,k=v` on `config`. Raises UserError for an unknown name or an unreadable value."""
    pairs = [item.partition("=") for item in (arg or "").split(",") if item.strip()]
    settings = [(key.strip(), sep, value.strip()) for key, sep, value in pairs]
    settings.sort(key=lambda item: (item[0] != "recipe", item[0] == "start"))
    for key, sep, value in settings:
        if not sep:
            raise UserError(f"config argument {key!r} has no value: write {key}=…")
        if key == "recipe":
            config.update_from_flattened_dict(choose(RECIPES, "recipe", value))
        elif key == "strategy":
            config.update(strategy=value, stages=choose(STRATEGIES, "strategy", value))
        elif key == "start":
            start_from(config, value)
        else:
            path = full_name(config, key)
            value = parse(path, value, flatten(config)[path])
            config.update_from_flattened_dict({path: value})
            if path == "lm.name":
                config.lm.init = "load"
    return config


def named(config: ConfigDict, arg: str) -> list[str]:
    """The dotted names of the settings in an argument; `recipe=` and the like stand for more."""
    keys = [item.partition("=")[0].strip() for item in arg.split(",") if item.strip()]
    return [full_name(config, key) for key in keys if key not in ("recipe", "start", "strategy")]


def start_from(config: ConfigDict, run: str) -> None:
    """Classification (T0) that begins with the encoder of the run in that workdir.

    Raises:
        UserError: another strategy is chosen.
    """
    if config.strategy != "T0":
        raise UserError(
            f"start={run} begins a run of strategy T0; for {config.strategy} give that run as t0=…"
        )
    (stage,) = STRATEGIES["T0"]
    config.update(strategy="custom", stages=({**stage, "start": run, "take": ("encoder",)},))


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
        known = names if "." in key else [*short, "recipe", "start", "strategy"]
        raise UserError(f"unknown config argument {key!r}{nearest(key, known)}")
    return short[key]


def nearest(key: str, known: list[str]) -> str:
    """`: did you mean 'optim.lr'?`, or some of the known names where none is near."""
    same = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    same.sort(key=lambda name: name.startswith(DOTTED_ONLY))  # optim.lr before finetune.lr
    near = [ALIASES.get(key, ""), *same, *difflib.get_close_matches(key, known, n=1, cutoff=0.5)]
    if close := [name for name in near if name in known]:
        return f": did you mean {close[0]!r}?"
    return f": known are {', '.join(sorted(known)[:8])}, …, all of them in configs/base.py"


def parse(name: str, text: str, default):
    """`text` in the type of `default`."""
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
    """A tuple as a shell takes it."""
    return shlex.quote(str(values or ("a", "b")).replace(" ", ""))


def check_strategy(config: ConfigDict, file: str) -> None:
    """Raises UserError where `strategy` and `stages` do not belong together.

    A config file with stages of its own calls its strategy "custom".
    """
    name = config.strategy
    if name != "custom" and choose(STRATEGIES, "strategy", name) != config.stages:
        raise UserError(
            f"strategy {name} is a list of stages: choose it with --config={file}:strategy={name}"
        )
