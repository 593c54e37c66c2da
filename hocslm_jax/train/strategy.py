"""Runs a whole strategy: its stages one after another, each starting from the previous one.

In: a config and a workdir. Out: the last stage's run in the workdir itself, the earlier ones in
`stages/1`, `stages/2`, …, the language model in `lm/` if it is pretrained here. Every stage resumes
by itself, so rerunning the command resumes the strategy.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax

from hocslm_jax import hosts
from hocslm_jax.data.captions import caption_table
from hocslm_jax.data.class_splits import unseen_classes
from hocslm_jax.data.store import Store
from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import LOCK, check_folder, held, make_folder
from hocslm_jax.hosts import say
from hocslm_jax.language.open import (
    Language,
    check_language,
    open_language,
    open_without_weights,
    read_language,
)
from hocslm_jax.language.pretrain import check_unseen, corpus, pretrain
from hocslm_jax.models import build_model, encoder_config
from hocslm_jax.models.lm import resolve
from hocslm_jax.train import (
    aligned_start,
    augmented_test,
    beginning,
    check_settings,
    checkpoint,
    described_test,
    distill,
    lineage,
    loop,
    setup,
)
from hocslm_jax.train.identity import check_data, settings
from hocslm_jax.train.stages import Stage, fused, read_stages, stage_config


def train(config, workdir: str | Path, build: Callable = build_model) -> int:
    """Runs or resumes all stages; returns the exit status.

    Raises:
        UserError: as `setup.build_run` and `loop.train`, or the run that a stage starts from is
            missing.
    """
    check_model(config, build)
    check_settings.check_values(config)
    check_settings.check_used(config)
    distill.check(config)
    check_places(config, workdir)
    hosts.check_same("settings", lambda: settings(config, workdir, "train"))
    hosts.on_first(lambda: lineage.check_lengths(config, Path(workdir)))
    with locked(Path(workdir)):
        return _train(config, Path(workdir), build)


def _train(config, workdir: Path, build: Callable) -> int:
    stages = read_stages(config)
    opener = functools.cache(functools.partial(setup.open_data, config.data))  # read once
    aligned_start.check(config, stages)
    language, previous = None, None
    if names := config.data.streams:
        say(f"one program for {', '.join(names)} (not data.stream), in {workdir}/STREAM at the end")
    # Errors of the language model or t0 are reported now, not after hours of the first stage.
    if config.data.unseen:
        lineage.check_sources(config, opener())
    if config.t0 and len(stages) > 1:
        check_t0(stages, config, opener)
    lm = prepare_language(config, workdir, opener) if fused(stages, len(stages) - 1) else None
    for position, stage in enumerate(stages):
        last = position == len(stages) - 1
        folder = lineage.stage_folder(workdir, position, len(stages))
        if position == 0 and config.t0 and not last:
            previous = config.t0
            continue
        now = stage_config(config, position)
        if fused(stages, position) and language is None:
            language = open_language(config.lm, setup.open_mesh(config), lm)
        if len(stages) > 1:
            what = f"{'+'.join(stage.train)} by {'+'.join(stage.losses)}"
            say(f"stage {position + 1} of {len(stages)}: {what}, in {folder}")
        run = distill.add_teacher(setup.build_run(now, folder, build, language, opener))
        source = previous if stage.start == "previous" else stage.start
        run = lineage.informed(run, source)
        initial = functools.cache(functools.partial(initial_weights, run, language, previous))
        if lineage.comparable(stage, folder):
            run = lineage.marked(run, initial(), source)
        initial = aligned_start.beginning(run, language, initial)
        ending = loop.train(run, initial, last_steps(run, language) if last else None)
        if ending.stopped and not (last and ending.finished):
            if ending.finished:
                say(f"stopped: stage {position + 1} is finished; rerun for the next one")
            return ending.status
        previous = folder
    return 0


def evaluate(config, workdir: str | Path, build: Callable = build_model) -> int:
    """Scores the test split with the last stage's checkpoint (`--mode=eval`)."""
    check_places(config, workdir)
    hosts.check_same("settings", lambda: settings(config, workdir, "eval"))
    checkpoint.read_run(Path(workdir))  # checks that the run exists before anything is built
    with locked(Path(workdir)):
        return _evaluate(config, Path(workdir), build)


def _evaluate(config, workdir: Path, build: Callable) -> int:
    stages = read_stages(config)
    opener = functools.cache(functools.partial(setup.open_data, config.data))
    language = None
    if fused(stages, len(stages) - 1) and config.lm.describe:
        folder = prepare_language(config, Path(workdir), opener)
        language = open_language(config.lm, setup.open_mesh(config), folder)
    elif fused(stages, len(stages) - 1):
        language = open_without_weights(config.lm, language_folder(config, Path(workdir)))
    run = setup.build_run(stage_config(config, len(stages) - 1), workdir, build, language, opener)
    return loop.evaluate(run, last_steps(run, language))


def check_places(config, workdir: str | Path) -> None:
    """Raises UserError for an invalid path, before anything is created there."""
    places = {"--workdir": workdir, "data.data_dir": config.data.data_dir}
    places |= {"t0": config.t0, "lm.folder": config.lm.folder}
    for name, place in places.items():
        if place or name == "--workdir":
            check_folder(name, place)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Creates the workdir and locks it against other runs; process 0 holds the lock for all.

    Raises:
        UserError: on every process, if another run uses it, or it is not writable.
    """
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            if not workdir.exists():
                stack.callback(_remove_if_empty, workdir)  # a refused run leaves no folder
            make_folder("--workdir", workdir)
            stack.enter_context(held(workdir / LOCK, f"works in --workdir {workdir}"))

        hosts.on_first(enter)
        yield


def check_model(config, build: Callable) -> None:
    """Raises UserError for impossible settings of the package's own network."""
    if build is build_model:
        encoder_config(config.model)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def last_steps(run: setup.Run, language: Language | None) -> Callable[[dict], dict] | None:
    """The steps after training that the config selects: more scores, descriptions of clips."""
    steps = []
    if augmented_test.wanted(run.config):
        steps.append(functools.partial(augmented_test.score, run))
    if run.config.test.train_clips:
        steps.append(functools.partial(distill.score_training_clips, run))
    if language is not None and run.config.lm.describe:
        steps.append(functools.partial(described_test.describe, run, language))
    if not steps:
        return None
    return lambda variables: {k: v for step in steps for k, v in step(variables).items()}


def check_t0(stages: Sequence[Stage], config, opener: Callable[[], Store]) -> None:
    """Raises UserError where the first stage cannot be replaced by the weights of `t0`."""
    t0 = config.t0
    if stages[0] != Stage():
        raise UserError(f"t0={t0}: this strategy's first stage is not T0, so it cannot be taken")
    if _is_run(t0) and not hosts.on_first((_place(t0) / "result.json").is_file):
        raise UserError(f"t0={t0} is a run that is not finished: rerun its command to resume it")
    try:
        source = beginning.open_source(t0)
    except UserError as error:
        raise UserError(f"t0={t0}: {error}") from None
    beginning.check_model(source.model, config, t0)
    check_source(source, stages[1], opener(), config.data.protocol)


def check_source(source: beginning.Source, stage: Stage, store: Store, protocol: str) -> None:
    """Raises UserError where weights are of other data, or of other classes, than a stage takes."""
    name = source.name
    if stage.start == "previous" and _is_run(name):
        check_data(checkpoint.read_run(_place(name)), store, protocol, name)
    if "classifier" in stage.take and source.classes not in ((), store.classes):
        raise UserError(
            f"{name} was trained on other classes than {store.name} has: begin with weights of "
            "this dataset, or take the encoder alone with start="
        )


def _place(source: str | Path) -> Path:
    return Path(os.path.expanduser(source))


def _is_run(source: str | Path) -> bool:
    return hosts.on_first((_place(source) / "checkpoints").is_dir)


def prepare_language(config, workdir: Path, opener: Callable[[], Store]) -> Path:
    """The folder of a run's language model, which is downloaded or pretrained if missing.

    Raises:
        UserError: as `open_language`, or unusable captions.
    """
    check_language(config.lm)
    setup.open_mesh(config)
    store, lm, protocol = opener(), config.lm, config.data.protocol
    folder = language_folder(config, workdir)
    if lm.init == "pretrain":
        unseen = [] if lm.pretrain.unseen else unseen_classes(store)
        pairs = corpus(store, protocol, lm.captions, unseen)
        hosts.on_first(lambda: pretrain(lm, pairs, folder, config.seed))
        hosts.on_first(lambda: check_unseen(folder, unseen))
        hosts.wait_to_see(folder, inside=True)
    _, tokenizer = read_language(folder)
    caption_table(store, tokenizer, lm.max_tokens, lm.captions, rows=store.rows(protocol, "train"))
    return folder


def language_folder(config, workdir: Path) -> Path:
    """The folder of a run's language model, which may not be pretrained yet."""
    if config.lm.init == "pretrain":
        return Path(config.lm.folder or workdir / "lm")
    hosts.on_first(lambda: str(resolve(config.lm.name)))  # downloaded once if hosts share a cache
    return resolve(config.lm.name)


def initial_weights(run: setup.Run, language: Language | None, previous: str | Path | None) -> dict:
    """The groups that do not start at random, as {"params", "batch_stats"}.

    Raises:
        UserError: the run to start from is missing, or has another model or other classes.
    """
    stage, state = run.stage, run.abstract_state
    every = {**state.fixed, **state.params}
    params, batch_stats = {}, {}
    if stage.take:
        source = previous if stage.start == "previous" else stage.start
        if missing := [name for name in stage.take if name not in every]:
            raise UserError(f"this model has no {', '.join(missing)} to take from {source}")
        wanted = {name: every[name] for name in stage.take}
        stats = state.batch_stats if "encoder" in stage.take else {}
        wanted, graph = {"params": wanted, "batch_stats": stats}, run.feed.graph_of(run.store)
        opened = beginning.open_source(source)
        check_source(opened, stage, run.store, run.config.data.protocol)
        found = beginning.take(opened, wanted, run.config, graph, stage)
        params, batch_stats = found["params"], found["batch_stats"]
    if "prompt" in every and "prompt" not in stage.take:
        params["prompt"] = jax.device_put(language.prompt, every["prompt"].sharding)
    return {"params": params, "batch_stats": batch_stats}
