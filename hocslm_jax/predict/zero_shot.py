"""The verb `zero-shot`: which class a clip is of, among classes that a run was never trained on.

In: a run with language and with `data.unseen` (configs/zero_shot), and its dataset. Out: counts of
right answers, by the language model's likelihood of the classes' sentences, by the embeddings of
these and by one example of each class, beside controls; as a table, and as `zero_shot.json` in the
run's folder.
"""

import argparse
import dataclasses
import shlex
import sys
import time
from pathlib import Path

from absl import logging

from hocslm_jax.data.class_splits import hold_out, unseen_classes
from hocslm_jax.data.store import Store, open_store
from hocslm_jax.errors import UserError, few
from hocslm_jax.evaluate.zero_shot_table import ZERO_SHOT, run_table
from hocslm_jax.files.atomic import make_folder, write_json
from hocslm_jax.predict.load_model import load_run
from hocslm_jax.predict.trained_model import TrainedModel
from hocslm_jax.predict.unseen_ranking import Options, rank
from hocslm_jax.train.environment import describe_machine, describe_versions, use_compilation_cache
from hocslm_jax.train.identity import check_data
from hocslm_jax.train.release_files import is_release


def run(args: argparse.Namespace) -> None:
    """Ranks the clips, writes the counts and prints them.

    Raises:
        UserError: as `open_run`, or an option that cannot be.
    """
    logging.set_verbosity(logging.ERROR)
    options = read_options(args)
    use_compilation_cache()
    out = args.out or args.run / ZERO_SHOT
    model, store = open_run(args.run, args.data_dir, args.lm)
    make_folder("--out", out.parent)
    start = time.monotonic()
    found = about(model, store, options) | rank(model, store, options)
    found["seconds"] = round(time.monotonic() - start, 1)
    write_json(out, found)
    print(f"{store.name}, {found['protocol']}, never trained: {', '.join(found['classes'])}")
    print("\n".join(run_table(found)))
    print(f"wrote {out}")


def read_options(args: argparse.Namespace) -> Options:
    """The options of the ranking. Raises UserError for one that cannot be."""
    for name in ("sentences", "calibration_clips", "draws"):
        if (value := getattr(args, name)) < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: at least 1 is needed")
    if args.clips == 0 or args.clips < -1:
        raise UserError(f"--clips {args.clips}: give a number of clips, or -1 for all")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: 0 or more is needed")
    names = ("sentences", "clips", "calibration_clips", "draws", "seed")
    return Options(**{name: getattr(args, name) for name in names}, untrained=not args.no_controls)


def open_run(folder: Path, data_dir: str | Path, lm: str | None) -> tuple[TrainedModel, Store]:
    """A run and its dataset, with the clips of its unseen classes.

    Raises:
        UserError: as `load_run` and `open_store`; the run has no language, leaves no class out, may
            have been trained on one of these, or has none of their clips.
    """
    if is_release(folder):
        raise UserError(
            f"{folder} is a release, which does not note what its weights were trained on: give "
            "the workdir of the run"
        )
    model = load_run(folder, lm)
    data = model.config.data
    if model.fusion is None:
        raise UserError(f"{folder} was trained without language: train it with strategy=T3")
    if not data.get("unseen", ""):
        raise UserError(
            f"{folder} left no class out of its training: train it with data.unseen, e.g. by "
            "--config=zero_shot/nw_ucla"
        )
    store = hold_out(open_store(data.dataset, data_dir), data.unseen)
    check_data(model.metadata, store, data.protocol, folder)
    trained = model.metadata.get("dataset", {}).get("trained")
    if known := [name for name in unseen_classes(store) if trained is None or name in trained]:
        raise UserError(
            f"{folder} may have been trained on {few(known, most=3)}, by its record, so it cannot "
            "show what a model knows without training"
        )
    store.rows(data.protocol, "unseen")  # raises where there are none
    shown = store.labels[store.rows(data.protocol, "examples")]
    if missing := [store.classes[label] for label in store.unseen if label not in shown]:
        raise UserError(
            f"{store.name}: {few(missing, most=3)} has no clip to show as an example in "
            f"{data.protocol}; prepare the whole dataset"
        )
    return model, store


def about(model: TrainedModel, store: Store, options: Options) -> dict:
    """What a result says besides its counts."""
    lm, metrics = model.config.lm, model.metadata.get("metrics", {})
    trained = ("command", "epochs", "seed", "encoder", "stream", "strategy", "correct", "total")
    return {
        "dataset": store.name,
        "protocol": model.config.data.protocol,
        "unseen": model.config.data.unseen,
        "classes": unseen_classes(store),
        "chance": 1 / len(store.unseen),
        "seen_classes": len(store.classes) - len(store.unseen),
        "language_model": lm.name or "pretrained here",
        "text_had_unseen": bool(lm.pretrain.get("unseen", False)),
        "training": {key: metrics.get(key) for key in trained},
        "options": dataclasses.asdict(options),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "command": shlex.join(["python", "-m", "hocslm_jax", *sys.argv[1:]]),
    }
