"""Training strategies: a list of stages, each one training run with its own objective.

In: `config.stages`, mappings with the fields of `Stage` (`strategies` has the paper's and the
controls). Out: `Stage`s, and the config of each, which has the stage's optimiser and number of
epochs, and its position as `stage`. An empty list means one stage of strategy T0.
"""

import dataclasses

from ml_collections import ConfigDict

from hocslm_jax.errors import UserError
from hocslm_jax.models.hocslm import GROUPS, METERS

LOSSES = ("cls", "gen")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One run of a strategy.

    Attributes:
      train: parameter groups that are updated, of `models.hocslm.GROUPS`.
      losses: "cls" (cross-entropy on the class logits), "gen" (on the caption), or both.
      start: source of the groups in `take`: "previous" (stage), or a name for
        `beginning.open_source` (a workdir, a release, a hub id, a PyTorch CTR-GCN); "random" if
        there is none.
      take: parameter groups that do not start at random.
      partial: their layers that do not fit the model start at random, and are printed.
      optim: "scratch" (`config.optim`, `config.train.epochs`) or "finetune" (`config.finetune`).
      lr, encoder_scale: override the section's values; 0 keeps them.
      classify_on: the input of the classifier, see `FusionConfig`.
      captions: "own", or "shuffled": every clip gets another clip's captions (a control).
    """

    train: tuple[str, ...] = ("encoder", "classifier")
    losses: tuple[str, ...] = ("cls",)
    start: str = "random"
    take: tuple[str, ...] = ()
    partial: bool = False
    optim: str = "scratch"
    lr: float = 0.0
    encoder_scale: float = 0.0
    classify_on: str = "feature"
    captions: str = "own"

    def __post_init__(self):
        for name, known in (("train", GROUPS), ("take", GROUPS), ("losses", LOSSES)):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            for value in getattr(self, name):
                _check(name, value, known)
        _check("optim", self.optim, ("scratch", "finetune"))
        _check("captions", self.captions, ("own", "shuffled"))
        if not self.train or not self.losses:
            raise UserError("a stage needs groups to train and a loss: set its train and losses")
        if (self.start == "random") != (not self.take):
            raise UserError("a stage that starts from another takes groups: set start and take")

    @property
    def language(self) -> bool:
        """Whether the stage needs the language model."""
        return "gen" in self.losses or self.classify_on == "visual"

    @property
    def meters(self) -> tuple[str, ...]:
        """Losses that meet at the feature of an encoder that trains, where each is measured."""
        meet = self.classify_on == "feature" and "encoder" in self.train
        return METERS if meet and set(METERS) <= set(self.losses) else ()


def read_stages(config) -> tuple[Stage, ...]:
    """The stages of a config. Raises UserError for an unknown field or value."""
    known = {field.name for field in dataclasses.fields(Stage)}
    stages = []
    for number, settings in enumerate(config["stages"] or ({},), 1):
        for key in settings:
            if key not in known:
                names = ", ".join(sorted(known))
                raise UserError(f"stage {number} has no setting {key!r}: known are {names}")
        stages.append(Stage(**settings))
    if stages[0].start == "previous":
        raise UserError("the first stage has no previous one: set its start to a run or 'random'")
    return tuple(stages)


def stage_config(config: ConfigDict, position: int) -> ConfigDict:
    """The config of one stage: its optimiser in `optim`, its epochs in `train.epochs`."""
    stage = read_stages(config)[position]
    config = ConfigDict(config.copy_and_resolve_references())
    with config.unlocked():
        config.stage = position
    if stage.optim == "finetune":
        section = config.finetune.to_dict()
        config.train.epochs = section.pop("epochs")
        config.optim.update(section)
    for name in ("lr", "encoder_scale"):
        if value := getattr(stage, name):
            config.optim[name] = value
    return config


def position_of(config) -> int:
    """The position of the stage of a config; 0 if none was selected."""
    return config.get("stage", 0)


def fused(stages: tuple[Stage, ...], position: int) -> bool:
    """Whether a stage's model has a projector: from the first stage with language on."""
    return any(stage.language for stage in stages[: position + 1])


def trained_groups(config) -> tuple[str, ...]:
    """Groups that the stage of this config updates; without the prompt if it is fixed text."""
    stage = read_stages(config)[position_of(config)]
    keeps_words = config["lm"]["prompt_mode"] == "text"
    return tuple(g for g in stage.train if not (keeps_words and g == "prompt"))


def model_settings(config) -> ConfigDict:
    """`config.model`, without dropout in front of a classifier that the stage keeps as it is."""
    settings = ConfigDict(config.model.to_dict())
    if "classifier" not in trained_groups(config):
        settings.dropout = 0.0
    return settings


def fixed_groups(config) -> tuple[str, ...]:
    """Groups of the model that the stage of this config does not train."""
    return tuple(g for g in GROUPS if g not in trained_groups(config))


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"a stage's {name} cannot be {value!r}: use {', '.join(known)}")
