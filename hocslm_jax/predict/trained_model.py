"""One trained model: its network, its weights, and its language model if it describes clips.

In: batches of clips [B, M, T, V, C]. Out: logits, features, prefixes of a language model.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from hocslm_jax import sharding
from hocslm_jax.data.feeder import Feed, build_batch
from hocslm_jax.data.prepare.measure import skeleton_size
from hocslm_jax.data.prepare.notices import named, odd_size
from hocslm_jax.data.prepare.ntu.bodies import Compat
from hocslm_jax.data.prepare.readers.clips import Reading
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph
from hocslm_jax.language.open import Language, open_language
from hocslm_jax.models import FusionConfig
from hocslm_jax.models.encoder import with_feature
from hocslm_jax.models.formulations import traced_for
from hocslm_jax.models.lm import is_gguf, read_config, resolve
from hocslm_jax.predict.clip_files import Clips
from hocslm_jax.predict.predictor import Predictor, usual_batch
from hocslm_jax.train.environment import compiler_options
from hocslm_jax.train.hub import find_folder


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel(Predictor):
    """One trained model on the local devices.

    Attributes (besides those of `Predictor`):
      folder: folder of the run or the release.
      config: the run's config; for a release, the part kept by `safe_config`.
      metadata: see `load_model.about_run` and `release_files.read_card`.
      feed: how a clip becomes the network's input.
      model: the network; `model.apply(variables, x, train=False)` gives logits [B, C], and with a
        fusion also prefixes [B, 1 + P, H].
      variables: the weights for evaluation, placed on the mesh.
      fusion: how its features enter the language model; None if it was trained without one.
      lm: folder or hub id of a language model that replaces the run's own; None keeps that.
      gain: gain of the language model it was trained with, which identifies it.
      usual_size: the median size of the skeletons it was trained on; 0 if unknown.
    """

    folder: Path
    config: ConfigDict
    metadata: dict
    classes: tuple[str, ...]
    graph: Graph
    compat: Compat | None
    reading: Reading
    usual_size: float
    feed: Feed
    model: nn.Module
    variables: dict
    mesh: jax.sharding.Mesh
    fusion: FusionConfig | None
    lm: str | Path | None
    gain: float

    @property
    def members(self) -> tuple["TrainedModel", ...]:
        return (self,)

    def batches(self, function: Callable, clips: Sequence, size: int | None) -> Iterator:
        """`function(variables, x)` of each batch of clips; the end of the last one is padding."""
        store = Clips(clips, self.graph, self.reading.channels)
        size = self.batch_size(size or usual_batch(len(clips)))
        rows = np.full(math.ceil(len(clips) / size) * size, -1)
        rows[: len(clips)] = np.arange(len(clips))
        for batch in rows.reshape(-1, size):
            draws = [(0, int(row)) for row in batch]
            x = build_batch(store, self.feed, self.feed.graph_of(store), None, draws)["x"]
            yield function(self.variables, self.placed(x))

    def batch_size(self, size: int) -> int:
        """The next larger size that the data-parallel devices divide."""
        ways = self.mesh.shape["data"]
        return ways * math.ceil(size / ways)

    def placed(self, x: np.ndarray) -> jax.Array:
        """A batch of clips [B, …] on the devices."""
        return sharding.shard_batch(sharding.batch_sharding(self.mesh), x, len(x))

    @property
    def forward(self) -> Callable:
        """(variables, x [B, M, T, V, C]) -> logits [B, classes] and, with a fusion, prefixes."""
        return _forward(self.model, self.mesh, self.fusion is not None)

    @property
    def encode(self) -> Callable:
        """(variables, x [B, M, T, V, C]) -> the pooled features [B, D]."""
        return _encode(self.model, self.mesh)

    def notes(self, clip: np.ndarray) -> Iterator[str]:
        """Notes on unusual properties of a clip [T, M, V, C] for this model."""
        persons, used = clip.shape[1], self.feed.num_persons
        if persons > used:
            yield f"{persons - used} of {persons} persons are left out, this model sees {used}"
        if empty := int((~clip.any(axis=(1, 2, 3))).sum()):
            yield f"{empty} of {len(clip)} frames hold nobody and are left out"
        lost = np.flatnonzero(~clip.any(axis=(0, 1, 3)))
        if names := [self.graph.joints[v] for v in lost if v != self.graph.centre]:
            yield f"{named(names, 'joint')} of {self.graph.name} missing: at no time in the clip"
        any_unit = self.feed.feeder == "nw_ucla" or self.feed.coordinates == 2
        if not any_unit and (odd := odd_size(skeleton_size(clip[..., :3]), self.usual_size)):
            yield odd

    @property
    def pretrained(self) -> Path:
        """The folder of the language model that the run pretrained, perhaps for several runs."""
        beside = self.folder / "lm"
        shared = self.config.lm.folder  # "" in releases, whose paths are not trusted
        return Path(shared) if shared and not beside.is_dir() else beside

    @functools.cached_property
    def language(self) -> Language:
        """The language model that describes clips; loaded on first use.

        Raises:
            UserError: the run has no projector, or the language model is missing or has another
                width.
        """
        if self.fusion is None:
            raise UserError(
                f"{self.folder} was trained without language, so it cannot describe: train with "
                "strategy=T3, or leave out --describe"
            )
        lm, name = self.config.lm, self.lm
        if name is None and lm.init == "load" and not lm.name:
            named = repr(self.metadata["config"].get("lm", {}).get("name", ""))[:80]
            raise UserError(
                f"{self.folder} does not include its language model: give the one it was trained "
                f"with as --lm (it names {named})"
            )
        if name is None:
            name = lm.name if lm.init == "load" else self.pretrained
            if lm.init != "load" and not name.is_dir():
                raise UserError(f"{name}, the run's language model, is missing: give it as --lm")
        folder = resolve(name) if is_gguf(name) else find_folder(name)
        if (width := read_config(folder).hidden_size) != self.fusion.lm_width:
            raise UserError(
                f"{name} has a hidden size of {width}, but {self.folder} was trained with one of "
                f"{self.fusion.lm_width}: give the model it was trained with as --lm"
            )
        language = open_language(lm, self.mesh, folder)
        if not math.isclose(language.gain, self.gain, rel_tol=1e-2):
            raise UserError(
                f"{name} is another language model than the one {self.folder} was trained with, "
                "though it has the same width: give the right one as --lm"
            )
        return language


# The models of an ensemble are mostly of one network, whose program is traced and compiled once.
@functools.lru_cache(maxsize=8)
def _forward(model: nn.Module, mesh: jax.sharding.Mesh, fused: bool) -> Callable:
    def forward(variables, x):
        output = model.apply(variables, sharding.spread(mesh, x), train=False)
        return output if fused else (output, None)

    return _jit(forward, mesh)


@functools.lru_cache(maxsize=8)
def _encode(model: nn.Module, mesh: jax.sharding.Mesh) -> Callable:
    def encode(variables, x):
        return with_feature(model, variables, sharding.spread(mesh, x))[1]

    return _jit(encode, mesh)


def _jit(function: Callable, mesh: jax.sharding.Mesh) -> Callable:
    platform = mesh.devices.flat[0].platform
    rows = sharding.batch_sharding(mesh)

    def traced(variables, x):
        with traced_for(platform if platform != "gpu" else ""):  # CUDA or ROCm
            return function(variables, x)

    return jax.jit(traced, out_shardings=rows, compiler_options=compiler_options(platform))
