"""Loads a model for prediction from a folder or a hub id.

In: a release, or the workdir of a run, whose dataset is not needed. Out: a `TrainedModel`, or an
`Ensemble` of several.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from hocslm_jax import sharding
from hocslm_jax.data.channels import USUAL, check_chosen
from hocslm_jax.data.feeder import Feed
from hocslm_jax.data.prepare.ntu.bodies import COMPAT, Compat
from hocslm_jax.data.prepare.ntu.classes import MINI
from hocslm_jax.data.prepare.readers.clips import Reading, reading_of
from hocslm_jax.data.streams import PAPER_STREAMS, STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.results import read_result
from hocslm_jax.files.atomic import read_json
from hocslm_jax.graph import NTU25, Graph, resolve_graph
from hocslm_jax.language.open import leading_vectors
from hocslm_jax.models import FusionConfig, build_model
from hocslm_jax.models.formulations import traced_for
from hocslm_jax.predict.predictor import Ensemble, Predictor
from hocslm_jax.predict.safe_config import check_sizes, safe_config
from hocslm_jax.predict.trained_model import TrainedModel
from hocslm_jax.train import release_files
from hocslm_jax.train.hub import find_folder
from hocslm_jax.train.stages import fused, read_stages

NTU = (*COMPAT, MINI)  # datasets for which `prepare` selects clips from the bodies in files
MODEL = "model.json"


def load_pretrained(
    source: str | Path | Sequence[str | Path], lm: str | Path | None = None
) -> Predictor:
    """Loads a released model or a run onto the local devices; several form an ensemble.

    Args:
        source: a folder, of one model or of several, or a hub id: `owner/name`, or
            `owner/name/model` of one among several; or a list of these.
        lm: folder or hub id of the language model, if it is not where the run names it.

    Raises:
        UserError: no such folder or id, a damaged model, or models of different classes.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    folders = [folder for one in sources for folder in find_models(find_folder(one))]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise UserError(f"{twice[0]} is given twice: give every model once")
    models = tuple(load_run(folder, lm) for folder in folders)
    return models[0] if len(models) == 1 else Ensemble(models)


def find_models(folder: Path) -> list[Path]:
    """The folder itself, or the releases and runs in it, the paper's streams in its order."""
    inside = [path for path in sorted(folder.iterdir()) if _is_model(path)]
    of_streams = any(path.name in STREAMS for path in inside)  # a run of several streams
    if not inside or release_files.is_release(folder) or (_is_model(folder) and not of_streams):
        return [folder]
    order = {stream: place for place, stream in enumerate(PAPER_STREAMS)}
    return sorted(inside, key=lambda path: order.get(path.name.partition("_seed")[0], len(order)))


def _is_model(folder: Path) -> bool:
    return release_files.is_release(folder) or (folder / "checkpoints").is_dir()


def load_run(
    folder: str | Path, lm: str | Path | None = None, build: Callable = build_model
) -> TrainedModel:
    """Restores one model.

    Args:
        folder: a run's workdir, from which the latest intact checkpoint is used; or a release.
        lm: as of `load_pretrained`.
        build: as for `train.setup.build_run`.

    Raises:
        UserError: there is no run, or it is damaged or has another model.
    """
    folder = Path(folder)
    is_release = release_files.is_release(folder)
    about = release_files.read_card(folder) if is_release else about_run(folder)
    card = folder / release_files.CARD
    with _blaming(card) if is_release else contextlib.nullcontext():
        config = ConfigDict(safe_config(about["config"], card) if is_release else about["config"])
        if streams := config.data.get("streams"):
            raise UserError(
                f"{folder} has several streams: give one, e.g. {folder / streams[0]}, which the "
                "end of the training writes"
            )
        graph, classes, shapes, gain = _read_model(about["model"], folder)
        check_sizes(config, graph, classes, folder)
        feed = dataclasses.replace(Feed.from_config(config.data), graph=graph)
        fusion = _fusion(config, shapes)
        options = {} if fusion is None else {"fusion": fusion}
        network = build(config.model, graph=graph, num_classes=len(classes), **options)
        # Sharded as in training, as far as the local devices allow.
        mesh = sharding.make_mesh(model=math.gcd(config.mesh.model, jax.device_count()))
        abstract = _abstract(network, (1, *feed.clip_shape(graph)), mesh)
        usual_size, compat, reading = _read_clips(about["model"], config.data.dataset, graph)
        check_chosen(str(folder), reading.channels, feed.channels)
    restore = release_files.read_variables if is_release else _restore
    return TrainedModel(
        folder=folder,
        config=config,
        metadata=about,
        classes=classes,
        graph=graph,
        compat=compat,
        reading=reading,
        usual_size=usual_size,
        feed=feed,
        model=network,
        variables=restore(folder, abstract),
        mesh=mesh,
        fusion=fusion,
        lm=lm,
        gain=gain,
    )


def _restore(workdir: Path, abstract: dict) -> dict:
    from hocslm_jax.train import checkpoint  # imports Orbax, which releases do not need

    return checkpoint.restore_variables(workdir, abstract)


def about_run(workdir: Path) -> dict:
    """Records of a run: "config", "model" (model.json), "metrics" (result.json), its data.

    Raises:
        UserError: there is no run, or it is damaged.
    """
    from hocslm_jax.train import checkpoint, experiment  # import Orbax, which releases do not need

    meta = checkpoint.read_run(workdir)
    config = checkpoint.plain(experiment.from_run(meta["config"]))
    model = read_json(workdir / MODEL, "rerun the training, which writes it")
    result = workdir / "result.json"
    metrics = read_result(result) if result.is_file() else {}
    data = {"dataset": meta["dataset"]} if "dataset" in meta else {}  # see `train.identity`
    return {"config": config, "model": model, "metrics": metrics} | data


@contextlib.contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Reports every error as damage of the release's config, which may be untrusted.

    Raises:
        UserError: raised inside, or replacing any other error.
    """
    try:
        yield
    except UserError as error:
        raise UserError(" ".join(str(error).split())) from None
    except Exception as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(
            f"{path} does not describe a model ({type(error).__name__}: {reason}); fetch it again"
        ) from error


def _abstract(network: nn.Module, clip: tuple[int, ...], mesh: jax.sharding.Mesh) -> dict:
    """Shapes, types and shardings of a network's variables."""
    x = jax.ShapeDtypeStruct(clip, np.float32)
    with traced_for("cpu"):  # any formulation has these variables
        found = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), x)
    found = {name: found.get(name, {}) for name in ("params", "batch_stats")}
    return sharding.abstract(found, sharding.tree_shardings(found, mesh))


def _read_model(
    model: dict, folder: Path
) -> tuple[Graph, tuple[str, ...], dict[str, list[int]], float]:
    """Skeleton, class names, parameter shapes and the language model's gain."""
    try:
        graph, classes, shapes = (model[key] for key in ("graph", "classes", "shapes"))
        return resolve_graph(graph), tuple(classes), dict(shapes), model["lm_gain"] or 0.0
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder / MODEL} is damaged: rerun the training, which writes it"
        ) from None


def _read_clips(model: dict, dataset: str, graph: Graph) -> tuple[float, Compat | None, Reading]:
    """The median size of the training clips (0 if unknown), and how they were read.

    Runs of older versions did not record these.

    Raises:
        ValueError: damaged.
    """
    clips = model.get("clips")
    clips = clips if isinstance(clips, dict) else {}
    size = clips.get("size")
    size = size if isinstance(size, float) and 0 < size < math.inf else 0.0
    reading = reading_of(clips.get("reading"), clips.get("channels", USUAL))
    if dataset not in NTU or graph.num_joints != NTU25.num_joints:
        return size, None, reading
    try:
        return size, Compat(**clips["compat"]), reading
    except (KeyError, TypeError):
        return size, COMPAT.get(dataset, Compat()), reading


def _fusion(config: ConfigDict, shapes: dict[str, list[int]]) -> FusionConfig | None:
    """The sizes of the run's fusion, from its parameters, so that no language model is needed."""
    stages = read_stages(config)
    if not fused(stages, config.stage):
        return None
    length, width = shapes["prompt"]
    classify_on = stages[config.stage].classify_on
    lm = config.lm
    sizes = {"lm_width": width, "prompt_length": length, "width": lm.projector_width}
    sizes["leading"] = leading_vectors(lm)
    return FusionConfig(**sizes, reads=lm.projector_reads, classify_on=classify_on)
