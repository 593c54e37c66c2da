"""A trained run, loaded for prediction: its model, its feed, and its language model when needed.

In: the workdir of a run, or a release of one; its dataset need not be there; and joints
[T, M, V, 3] in metres. Out: a `Prediction` for each clip.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from hocslm_jax import sharding
from hocslm_jax.data import pipeline
from hocslm_jax.data.prepare.measure import coordinate_range, skeleton_size
from hocslm_jax.data.prepare.notices import odd_size
from hocslm_jax.data.prepare.ntu.bodies import Compat
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.results import read_result
from hocslm_jax.files.atomic import read_json
from hocslm_jax.graph import Graph, resolve_graph
from hocslm_jax.language.describe import Decoding, describe
from hocslm_jax.language.open import Language, open_language
from hocslm_jax.models import FusionConfig, build_model
from hocslm_jax.models.qwen3 import read_config, resolve
from hocslm_jax.predict import release_files
from hocslm_jax.predict.inputs import Clips, check_clip
from hocslm_jax.predict.limits import check_sizes
from hocslm_jax.predict.release_config import safe_config
from hocslm_jax.train import checkpoint
from hocslm_jax.train.environment import compiler_options
from hocslm_jax.train.stages import fused, read_stages

BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a run says of one clip.

    Attributes:
      name: the likeliest class.
      probabilities: of all classes, the likeliest first.
      description: a generated sentence, or None where none was asked for.
      frames, persons: of the clip as it was given.
      persons_used: the first so many are what the network saw.
      size: of the skeleton, see `measure.skeleton_size`, in the unit of the clip.
      coordinates: the least and the greatest.
      notes: what is odd about the clip, sentences.
    """

    name: str
    probabilities: dict[str, float]
    description: str | None
    frames: int
    persons: int
    persons_used: int
    size: float
    coordinates: tuple[float, float]
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedRun:
    """A trained run, ready to predict.

    Attributes:
      config: the run's own.
      metadata: what is known of it: see `about_run`, and `released.read_card` for a release.
      model: the network; `model.apply(variables, x, train=False)` gives logits [B, C], and with a
        fusion also prefixes.
      fusion: how its feature enters a language model; None if it was trained without one.
      variables: the evaluated weights, placed on the mesh.
      forward: (variables, x [B, M, T, V, C]) -> probabilities [B, C] and, with a fusion, prefixes
        [B, 1 + P, H], else None.
      lm: a language model in the place of the run's own, a folder or hub id; None keeps that.
      gain: of the language model it was trained with; tells it from others.
    """

    workdir: Path
    config: ConfigDict
    metadata: dict
    classes: tuple[str, ...]
    feed: pipeline.Feed
    graph: Graph
    model: nn.Module
    fusion: FusionConfig | None
    mesh: jax.sharding.Mesh
    variables: dict
    forward: Callable
    lm: str | Path | None
    gain: float

    @functools.cached_property
    def language(self) -> Language:
        """The language model that describes; read at the first use.

        Raises:
            UserError: the run has no projector, or the model is not there or of another width.
        """
        if self.fusion is None:
            raise UserError(
                f"{self.workdir} was trained without language, so it cannot describe: train with "
                "strategy=T3, or leave out --describe"
            )
        lm, name = self.config.lm, self.lm
        if name is None and lm.init == "load" and not lm.name:
            raise UserError(
                f"{self.workdir} does not bring its language model: give the one it was trained "
                f"with as --lm ({_told_name(self.metadata)})"
            )
        if name is None:
            name = lm.name if lm.init == "load" else self.workdir / "lm"
            if lm.init != "load" and not name.is_dir():
                raise UserError(f"{name}, the run's language model, is not there: give it as --lm")
        folder = resolve(name)
        if (width := read_config(folder).hidden_size) != self.fusion.lm_width:
            raise UserError(
                f"{name} has a hidden size of {width}, but {self.workdir} was trained to speak "
                f"through one of {self.fusion.lm_width}: give the model it was trained with as --lm"
            )
        language = open_language(lm, self.mesh, folder)
        if not math.isclose(language.gain, self.gain, rel_tol=1e-2):
            raise UserError(
                f"{name} is another language model than the one {self.workdir} was trained with, "
                "though of its width: give the right one as --lm"
            )
        return language

    def batch_size(self, clips: int, most: int = BATCH_SIZE) -> int:
        """A batch for so many clips: a power of two, so that few sizes are ever compiled."""
        ways = self.mesh.shape["data"]
        return ways * math.ceil(min(most, 1 << (clips - 1).bit_length()) / ways)

    def predict(
        self,
        clips: Sequence[np.ndarray],
        decoding: Decoding | None = None,
        batch_size: int | None = None,
    ) -> list[Prediction]:
        """One prediction for each clip.

        Args:
            clips: joints [T, M, V, 3] or [T, V, 3] in metres, as `check_clip` takes them.
            decoding: how to describe; None does not.
            batch_size: clips at a time, a multiple of the mesh's 'data' axis; the last batch is
                padded to it. None chooses one.

        Raises:
            UserError: a clip that does not fit the run's skeleton, or as `language`.
        """
        if not clips:
            return []
        clips = [self._checked(number, clip) for number, clip in enumerate(clips)]
        size = batch_size or self.batch_size(len(clips))
        rows = sharding.batch_sharding(self.mesh)
        store, said = Clips(clips, self.graph), []
        batches = pipeline.eval_batches(store, "", "", self.feed, batch_size=size)
        for number, batch in enumerate(batches):
            x = sharding.shard_batch(rows, batch["x"], size)
            shares, prefix = self.forward(self.variables, x)
            texts = [None] * size
            if decoding is not None:
                texts = describe(self.language, prefix, reseeded(decoding, number))
            said += zip(np.asarray(shares), texts, strict=True)
        # Only the end of the last batch is padding.
        return [self._prediction(clip, *pair) for clip, pair in zip(clips, said, strict=False)]

    def _prediction(self, clip: np.ndarray, shares: np.ndarray, text: str | None) -> Prediction:
        order = np.argsort(-shares, kind="stable")
        probabilities = {self.classes[label]: float(shares[label]) for label in order}
        name, (frames, persons) = self.classes[order[0]], clip.shape[:2]
        used, size = min(persons, self.feed.num_persons), skeleton_size(clip)
        return Prediction(
            name, probabilities, text, frames, persons, used, size, coordinate_range(clip),
            tuple(self._notes(clip, size)),
        )  # fmt: skip

    def _notes(self, clip: np.ndarray, size: float) -> Iterator[str]:
        persons, used = clip.shape[1], self.feed.num_persons
        if persons > used:
            yield f"{persons - used} of {persons} persons are left out, this run sees {used}"
        if empty := int((~clip.any(axis=(1, 2, 3))).sum()):
            yield f"{empty} of {len(clip)} frames hold nobody and are left out"
        if self.feed.feeder != "nw_ucla" and (odd := odd_size(size, self.usual_size)):
            yield odd  # the other feeder takes any unit

    @property
    def usual_size(self) -> float:
        """The median size of the skeletons that it was trained on, 0 where that is unknown."""
        size = self._about_clips().get("size")
        return size if isinstance(size, float) and 0 < size < math.inf else 0.0

    @property
    def compat(self) -> Compat | None:
        """How the files of its dataset were read, None where that is unknown."""
        try:
            return Compat(**self._about_clips()["compat"])
        except (KeyError, TypeError):
            return None

    def _about_clips(self) -> dict:
        about = self.metadata["model"].get("clips")
        return about if isinstance(about, dict) else {}

    def _checked(self, number: int, clip: np.ndarray) -> np.ndarray:
        try:
            return check_clip(clip, self.graph, self.config.data.dataset, self.compat)
        except ValueError as error:
            raise UserError(f"clip {number}: {error}") from None


def load_run(
    workdir: str | Path, lm: str | Path | None = None, build: Callable = build_model
) -> LoadedRun:
    """Restores a run's model on the devices at hand.

    Args:
        workdir: of the run, whose latest checkpoint is taken; or the folder of a release.
        lm: a language model in the place of the run's own.
        build: as for `train.setup.build_run`.

    Raises:
        UserError: no run there, a damaged one, or one of another model.
    """
    workdir = Path(workdir)
    is_release = release_files.is_release(workdir)
    about = release_files.read_card(workdir) if is_release else about_run(workdir)
    with _told(workdir / release_files.CARD) if is_release else contextlib.nullcontext():
        own = about["config"]
        config = ConfigDict(safe_config(own, workdir / release_files.CARD) if is_release else own)
        if streams := config.data.get("streams"):
            raise UserError(
                f"{workdir} is of several streams: give one, e.g. {workdir / streams[0]}"
            )
        graph, classes, shapes, gain = _read_model(about["model"], workdir)
        check_sizes(config, graph, classes, workdir)
        feed = dataclasses.replace(pipeline.Feed.from_config(config.data), graph=graph)
        fusion = _fusion(config, shapes)
        options = {} if fusion is None else {"fusion": fusion}
        network = build(config.model, graph=graph, num_classes=len(classes), **options)
        # As the run was split, as far as the devices here allow.
        mesh = sharding.make_mesh(model=math.gcd(config.mesh.model, jax.device_count()))
        clip = (1, feed.num_persons, feed.frames, graph.num_joints, 3)
        abstract = _abstract(network, clip, mesh)
    restore = release_files.read_variables if is_release else checkpoint.restore_variables
    return LoadedRun(
        workdir=workdir,
        config=config,
        metadata=about,
        classes=classes,
        feed=feed,
        graph=graph,
        model=network,
        fusion=fusion,
        mesh=mesh,
        variables=restore(workdir, abstract),
        forward=_make_forward(network, fusion is not None, mesh),
        lm=lm,
        gain=gain,
    )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Takes whatever goes wrong for damage of the release's config, which anyone may have written.

    Raises:
        UserError: as raised inside, or in the place of any other error.
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
    x = jnp.zeros(clip)
    found = jax.eval_shape(lambda key: network.init(key, x, train=False), jax.random.key(0))
    found = {name: found.get(name, {}) for name in ("params", "batch_stats")}
    return checkpoint.abstract(found, sharding.tree_shardings(found, mesh))


def _told_name(metadata: dict) -> str:
    """What a release calls its language model; only shown, never fetched."""
    told = metadata["config"].get("lm", {}).get("name", "")
    return repr(told)[:80] if told else "it names none"


def reseeded(decoding: Decoding, batch: int) -> Decoding:
    """Another draw for every batch."""
    return dataclasses.replace(decoding, seed=decoding.seed + batch)


def about_run(workdir: Path) -> dict:
    """What is known of a run: its "config", "model" (model.json) and "metrics" (result.json).

    Raises:
        UserError: no run there, or a damaged one.
    """
    config = checkpoint.read_run(workdir)["config"]
    model = read_json(workdir / "model.json", "start the training once more, it writes it")
    result = workdir / "result.json"
    metrics = read_result(result) if result.is_file() else {}
    return {"config": config, "model": model, "metrics": metrics}


def _read_model(
    model: dict, workdir: Path
) -> tuple[Graph, tuple[str, ...], dict[str, list[int]], float]:
    """Skeleton, class names, parameter shapes and the language model's gain."""
    try:
        graph, classes, shapes = (model[key] for key in ("graph", "classes", "shapes"))
        return resolve_graph(graph), tuple(classes), dict(shapes), model["lm_gain"] or 0.0
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{workdir}/model.json is damaged: start the training once more, it writes it"
        ) from None


def _fusion(config: ConfigDict, shapes: dict[str, list[int]]) -> FusionConfig | None:
    """The sizes of the run's fusion by its parameters: the language model need not be there."""
    stages = read_stages(config)
    if not fused(stages, config.stage):
        return None
    length, width = shapes["prompt"]
    classify_on = stages[config.stage].classify_on
    return FusionConfig(width, length, config.lm.projector_width, classify_on=classify_on)


def _make_forward(network, fused: bool, mesh: jax.sharding.Mesh) -> Callable:
    def forward(variables, x):
        output = network.apply(variables, x, train=False)
        logits, prefix = output if fused else (output, None)
        return jax.nn.softmax(logits), prefix

    options = compiler_options(mesh.devices.flat[0].platform)
    rows = sharding.batch_sharding(mesh)
    return jax.jit(forward, out_shardings=rows, compiler_options=options)
