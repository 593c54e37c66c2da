"""`python -m hocslm_jax evaluate`: the accuracy of released or trained models on test clips.

In: runs or releases and a prepared dataset. Out: correct / total of each model and of their
ensemble, and optionally the ensemble's scores as an `.npz` file for `ensemble`.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
from absl import logging

from hocslm_jax.data import pipeline
from hocslm_jax.data.class_splits import hold_out
from hocslm_jax.data.store import Store, open_store
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble import fuse
from hocslm_jax.evaluate.results import accuracy_text
from hocslm_jax.evaluate.score_files import Member
from hocslm_jax.evaluate.scores import Scores, collect_scores, save_scores
from hocslm_jax.predict.command import open_models
from hocslm_jax.predict.predictor import Predictor, usual_batch
from hocslm_jax.predict.trained_model import TrainedModel
from hocslm_jax.train.identity import check_data
from hocslm_jax.train.release_files import is_release


def run(args: argparse.Namespace) -> None:
    """Scores the models and prints their counts.

    Raises:
        UserError: as `load_pretrained` and `evaluate`.
    """
    logging.set_verbosity(logging.ERROR)
    if args.out and args.out.suffix != ".npz":
        raise UserError(f"--out {args.out}: scores are written as .npz: use that suffix")
    predictor = open_models(args.models)
    scores = evaluate(predictor, args.data_dir, args.protocol)
    for name, part in scores.parts.items():
        print(f"{name}: {accuracy_text(part.correct, part.total)}")
    if len(scores.parts) > 1:
        print(f"ensemble of {len(scores.parts)}: {accuracy_text(scores.correct, scores.total)}")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        save_scores(args.out, scores)
        print(f"wrote {args.out}")


def evaluate(
    predictor: Predictor, data_dir: str | Path = "data", protocol: str | None = None
) -> Scores:
    """Scores of all test clips; for an ensemble, of the sum of its members' logits, with `parts`.

    Clips of classes that a model left out of its training (`data.unseen`) are not among them.

    Args:
        data_dir: where `python -m hocslm_jax prepare` put the dataset.
        protocol: its test clips are scored; None for the protocol of the training.

    Raises:
        UserError: the dataset is not prepared, or is not the one that a model was trained on.
    """
    members = predictor.members
    first = members[0].config.data
    if other := [m for m in members if m.config.data.dataset != first.dataset]:
        raise UserError(
            f"{other[0].folder} is of {other[0].config.data.dataset}, not {first.dataset}"
        )
    store = open_store(first.dataset, data_dir)
    names = [member.folder.name for member in members]
    if len(set(names)) < len(names):  # e.g. the joint streams of several runs
        names = [str(member.folder) for member in members]
    scored = [_score(member, store, protocol or first.protocol) for member in members]
    joined = [Member(name, scores) for name, scores in zip(names, scored, strict=True)]
    whole = fuse(joined, np.ones(len(joined)))
    return dataclasses.replace(whole, parts={one.name: one.scores for one in joined})


def _score(model: TrainedModel, store: Store, protocol: str) -> Scores:
    store = hold_out(store, model.config.data.get("unseen", ""))
    own, rows = model.config.data.protocol, store.rows(protocol, "test")
    if store.classes != model.classes:
        raise UserError(
            f"{store.name} in {store.path.parent} has other classes than {model.folder}"
        )
    if not is_release(model.folder):  # a release does not record its clips
        check_data(model.metadata, store, protocol, model.folder, splits=protocol == own)
    if protocol != own and (seen := len(np.intersect1d(rows, store.rows(own, "train")))):
        print(f"{model.folder} was trained on {seen} test clips of {protocol}", file=sys.stderr)
    size = model.batch_size(usual_batch(len(rows)))
    batches = pipeline.eval_batches(store, protocol, "test", model.feed, batch_size=size)
    return collect_scores(
        lambda x: model.forward(model.variables, model.placed(x))[0], batches, store, rows
    )
