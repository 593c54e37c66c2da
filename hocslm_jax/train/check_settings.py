"""Checks settings: impossible values, and settings that a run would not use.

In: a config, and the names of the settings that the user gave. Out: nothing, or a `UserError` with
the setting and what it needs. `NEEDS` has every setting of `experiment.defaults`.
"""

import math
from collections.abc import Callable, Iterable, Mapping

from hocslm_jax.errors import UserError
from hocslm_jax.models.encoder import encoder_config
from hocslm_jax.train.stages import Stage, read_stages, stage_config

# Last words of settings, in any section, that must not be negative.
NOT_NEGATIVE = (
    *("lr", "momentum", "weight_decay", "warmup_epochs", "milestones", "gamma", "clip_norm"),
    *("encoder_scale", "cls", "gen", "smoothing", "mixup", "dropout", "width", "steps"),
)


Stages = tuple[Stage, ...]


def _any_stage(holds: Callable[[Stage], bool]) -> Callable:
    return lambda config, stages: any(map(holds, stages))


def _optim(name: str, value: str) -> Callable:
    """Whether the optimiser of any stage has that value."""

    def holds(config, stages: Stages) -> bool:
        return any(stage_config(config, n).optim[name] == value for n in range(len(stages)))

    return holds


def _model(holds: Callable) -> Callable:
    return lambda config, stages: holds(encoder_config(config.model))


def _blends(config, stages: Stages) -> bool:
    classify = [stage for stage in stages if "cls" in stage.losses]
    return bool(classify) and not any("gen" in stage.losses for stage in classify)


ALWAYS = "nothing"
# What a setting needs, in words -> function that says whether a run has it.
CONDITIONS: dict[str, Callable] = {
    ALWAYS: lambda config, stages: True,
    "a stage that classifies": _any_stage(lambda s: "cls" in s.losses),
    "stages that classify, none of which describes at the same time": _blends,
    "a stage that describes": _any_stage(lambda s: "gen" in s.losses),
    "a stage with language": _any_stage(lambda s: s.language),
    "a stage with language and lm.init=pretrain": (
        lambda config, stages: any(s.language for s in stages) and config.lm.init == "pretrain"
    ),
    "a stage with language and lm.init=load": (
        lambda config, stages: any(s.language for s in stages) and config.lm.init == "load"
    ),
    "a stage that trains from scratch (others take finetune.*)": (
        _any_stage(lambda s: s.optim == "scratch")
    ),
    "a stage that starts from trained weights or uses language": (
        _any_stage(lambda s: s.optim == "finetune")
    ),
    "a stage that trains encoder and classifier": (
        _any_stage(lambda s: {"encoder", "classifier"} <= set(s.train))
    ),
    "data.unseen and a stage with language": (
        lambda config, stages: config.data.unseen and any(s.language for s in stages)
    ),
    "a strategy of several stages": lambda config, stages: len(stages) > 1,
    "a stage with schedule=step": _optim("schedule", "step"),
    "a stage with the optimiser sgd": _optim("name", "sgd"),
    "data.feeder=ntu": lambda config, stages: config.data.feeder == "ntu",
    "data.streams to be empty": lambda config, stages: not config.data.streams,
    "more than one person": lambda config, stages: config.data.num_persons != 1,
    "distill.share": lambda config, stages: config.distill.share > 0,
    "test.views > 1": lambda config, stages: config.test.views > 1,
    "an encoder with spatial=cts": _model(lambda m: m.spatial == "cts"),
    "an encoder with spatial=cts and gsm": _model(lambda m: m.spatial == "cts" and m.gsm),
    "an encoder with spatial=cts, gsm and gsm_attention": (
        _model(lambda m: m.spatial == "cts" and m.gsm and m.gsm_attention)
    ),
    "an encoder with temporal=dht": _model(lambda m: m.temporal == "dht"),
    "an encoder with temporal=dht and gta": _model(lambda m: m.temporal == "dht" and m.gta),
}
_SCRATCH = "a stage that trains from scratch (others take finetune.*)"
_FINETUNE = "a stage that starts from trained weights or uses language"
_BY_CONDITION = {
    ALWAYS: """seed strategy stages compilation_cache data.dataset data.data_dir data.protocol
        data.unseen
        data.streams data.feeder data.frames data.num_persons data.channels data.repeat
        data.rotation data.crop
        data.mirror data.scale data.jitter data.drop_axis data.drop_joints data.threads data.cache
        data.origin data.graph data.auto_prepare model.encoder model.spatial model.temporal
        model.width model.stages model.pair_mode model.dtype model.remat optim.ema distill.share
        lm.folder train.batch_size train.eval_batch_size train.eval_every
        train.checkpoint_every train.log_every train.keep test.views test.crops test.mirror
        test.train_clips mesh.stream mesh.data mesh.model mesh.fsdp""",
    "data.streams to be empty": "data.stream",
    "data.feeder=ntu": "data.p_interval data.test_interval",
    "more than one person": "data.second_person",
    "an encoder with spatial=cts": "model.gsm model.lse",
    "an encoder with spatial=cts and gsm": "model.gsm_attention",
    "an encoder with spatial=cts, gsm and gsm_attention": "model.gsm_width",
    "an encoder with temporal=dht": "model.gta model.ltc",
    "an encoder with temporal=dht and gta": "model.gta_position",
    "a stage that trains encoder and classifier": "model.dropout",
    _SCRATCH: """optim.name optim.lr optim.weight_decay optim.warmup_epochs optim.schedule
        optim.decay_mask optim.clip_norm optim.encoder_scale train.epochs""",
    "a stage with the optimiser sgd": "optim.momentum",
    "a stage with schedule=step": "optim.milestones optim.gamma",
    _FINETUNE: """finetune.name finetune.lr finetune.weight_decay finetune.warmup_epochs
        finetune.schedule finetune.decay_mask finetune.clip_norm finetune.encoder_scale
        finetune.epochs""",
    "a stage that classifies": "loss.smoothing",
    "stages that classify, none of which describes at the same time": "loss.mixup",
    "a stage that describes": """loss.cls loss.gen lm.chunk lm.pack lm.max_tokens lm.captions
        lm.describe""",
    "a stage with language": """lm.init lm.dtype lm.remat lm.fsdp lm.prompt lm.prompt_mode
        lm.projector_reads lm.projector_width lm.projector_init lm.ln_gain lm.bos""",
    "a stage with language and lm.init=load": "lm.name lm.weights",
    "a stage with language and lm.init=pretrain": """lm.pretrain.vocab_size lm.pretrain.hidden_size
        lm.pretrain.num_layers lm.pretrain.num_heads lm.pretrain.num_kv_heads
        lm.pretrain.intermediate_size lm.pretrain.steps lm.pretrain.batch_size lm.pretrain.lr""",
    "data.unseen and a stage with language": "lm.pretrain.unseen",
    "a strategy of several stages": "t0",
    "distill.share": "distill.teacher distill.temperature",
    "test.views > 1": "test.angle",
}
NEEDS = {name: needs for needs, names in _BY_CONDITION.items() for name in names.split()}
# Settings that are off if 0 or empty. A config file that enables one needs it, so they are always
# checked; other values in a file may belong to another strategy.
SWITCHES = ("t0", "model.dropout", "loss.smoothing", "loss.mixup", "distill.share")


def check_used(config, asked: Iterable[str] = ()) -> None:
    """Raises UserError for the first setting that this run would not use.

    Args:
        asked: dotted names of the settings that the user gave, with any values.
    """
    stages = read_stages(config)
    on = [name for name in SWITCHES if value_of(config, name)]
    for name in dict.fromkeys([*asked, *on]):
        needs = NEEDS.get(name, ALWAYS)
        if not CONDITIONS[needs](config, stages):
            raise UserError(
                f"{name}={value_of(config, name)} would change nothing in this run of strategy "
                f"{config.strategy}: it needs {needs}; leave it out"
            )


def value_of(config, name: str):
    """The value of a dotted name."""
    for part in name.split("."):
        config = config[part]
    return config


def check_values(config) -> None:
    """Raises UserError for values that no other part checks."""
    counts = ("epochs", "batch_size", "eval_batch_size", "checkpoint_every", "log_every", "keep")
    for name in counts:
        if config.train[name] < 1:
            raise UserError(f"train.{name}={config.train[name]} must be at least 1")
    check_numbers(config.to_dict())
    if not 0 <= config.optim.ema < 1:
        raise UserError(f"optim.ema={config.optim.ema} must be in [0, 1)")
    check_streams(config)


def check_numbers(settings: Mapping, prefix: str = "") -> None:
    """Raises UserError for a setting that is not finite, or is negative but must not be."""
    for key, value in settings.items():
        name = prefix + key
        if isinstance(value, Mapping):
            check_numbers(value, f"{name}.")
        for number in value if isinstance(value, tuple | list) else [value]:
            if isinstance(number, Mapping):  # a stage
                check_numbers(number, f"{name}.")
            elif isinstance(number, float) and not math.isfinite(number):
                raise UserError(f"{name}={number}: a finite number is needed")
            elif isinstance(number, int | float) and number < 0 and key in NOT_NEGATIVE:
                raise UserError(f"{name}={number}: it must not be negative")


def check_streams(config) -> None:
    """Raises UserError for settings that several streams in one program do not support."""
    streams, ways = config.data.streams, config.mesh.stream
    if streams and any(stage.language for stage in read_stages(config)):
        raise UserError(
            f"strategies with language support one stream, not strategy={config.strategy}: train "
            "streams=… with strategy=T0, then each stream with t0=WORKDIR/STREAM"
        )
    if ways < 1 or (len(streams) % ways if streams else ways > 1):
        raise UserError(
            f"mesh.stream={ways} does not divide the {len(streams)} streams of data.streams: "
            "set --config.mesh.stream to a divisor, or 1"
        )
