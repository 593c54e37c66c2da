"""The encoder: spatial-temporal blocks from a skeleton clip [B, M, T, V, C] to features [B, V, D].

CTR-GCN and HGLNet are the same stack with different parts: `spatial` in {ctrgc, cts}, `temporal` in
{ltc, dht}. Every part can be switched off, so that each row of the paper's Tables 4 and 5 is one
setting.
`Recogniser` adds the classifier.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph
from hocslm_jax.models.layers import Pointwise, subsample
from hocslm_jax.models.normalisation import BatchNorm
from hocslm_jax.models.relations import PAIR_MODES
from hocslm_jax.models.spatial import CTRGC, CTS, SpatialUnit
from hocslm_jax.models.temporal import DHT, LTC


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The parts and sizes of an encoder.

    Attributes:
      spatial: "cts" (HocSLM eqs. 1-7) or "ctrgc" (CTR-GCN).
      temporal: "dht" (HocSLM eqs. 8-10) or "ltc" (CTR-GCN's multi-scale convolutions).
      width: channels of the first stage; each later stage doubles them and halves the frames.
      stages: blocks per stage.
      gsm, lse, gta, ltc: parts of CTS and DHT; at least one of each pair.
      gsm_attention: False replaces eqs. 2-4 by the pairwise tensor itself.
      gsm_width: width d of GSM's queries and keys.
      gta_position: "none" or "relative" (a learnable bias per frame distance).
      pair_mode: "tanh_diff", "diff" or "product" (eq. 1).
      dropout: before the classifier.
      dtype: computation type; parameters, statistics, softmax and logits stay float32.
      remat: keep only the blocks' inputs for the backward pass, and recompute the rest.
    """

    spatial: str = "cts"
    temporal: str = "dht"
    width: int = 64
    stages: tuple[int, ...] = (4, 3, 3)
    gsm: bool = True
    lse: bool = True
    gta: bool = True
    ltc: bool = True
    gsm_attention: bool = True
    gsm_width: int = 16
    gta_position: str = "none"
    pair_mode: str = "tanh_diff"
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False


CTRGCN = EncoderConfig(spatial="ctrgc", temporal="ltc")
HGLNET = EncoderConfig(spatial="cts", temporal="dht")
ENCODERS = {"ctrgcn": CTRGCN, "hglnet": HGLNET}


def _cts(features: int, graph: Graph, config: EncoderConfig, dtype) -> nn.Module:
    return CTS(
        features,
        graph,
        gsm=config.gsm,
        lse=config.lse,
        gsm_attention=config.gsm_attention,
        gsm_width=config.gsm_width,
        pair_mode=config.pair_mode,
        dtype=dtype,
        name="cts",
    )


def _ctrgc(features: int, graph: Graph, config: EncoderConfig, dtype) -> nn.Module:
    return CTRGC(features, graph, config.pair_mode, dtype, name="ctrgc")


def _dht(stride: int, config: EncoderConfig, dtype) -> nn.Module:
    return DHT(stride, config.gta, config.ltc, config.gta_position, dtype, name="dht")


def _ltc(stride: int, config: EncoderConfig, dtype) -> nn.Module:
    return LTC(stride, dtype, name="ltc")


# The parts of a block by the values of `spatial` and `temporal`. Add new ones here.
SPATIAL = {"cts": _cts, "ctrgc": _ctrgc}  # [B, T, V, C] -> S x [B, V, V, features]
TEMPORAL = {"dht": _dht, "ltc": _ltc}  # [B, T, V, C] -> [B, T / stride, V, C]

_CHOICES = {
    "spatial": SPATIAL,
    "temporal": TEMPORAL,
    "gta_position": ("none", "relative"),
    "pair_mode": PAIR_MODES,
    "dtype": ("float32", "bfloat16"),
}


def check_encoder(config: EncoderConfig) -> EncoderConfig:
    """Returns the config, or raises UserError naming the first invalid setting."""
    for field, allowed in _CHOICES.items():
        value = getattr(config, field)
        if value not in allowed:
            raise UserError(f"model.{field} is {value!r}; use one of {', '.join(allowed)}")
    if config.width % 8 or config.width <= 0:
        raise UserError(f"model.width is {config.width}; it must be a positive multiple of 8")
    if not config.stages or min(config.stages) < 1:
        raise UserError(f"model.stages is {config.stages}; give one or more blocks per stage")
    if config.spatial == "cts" and not (config.gsm or config.lse):
        raise UserError("model.gsm and model.lse are both off: CTS needs one of them")
    if config.temporal == "dht" and not (config.gta or config.ltc):
        raise UserError("model.gta and model.ltc are both off: DHT needs one of them")
    return config


class Block(nn.Module):
    """ReLU(temporal(spatial(x)) + shortcut(x)): [B, T, V, C] -> [B, T / stride, V, features]."""

    features: int
    stride: int
    residual: bool
    graph: Graph
    config: EncoderConfig

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        dtype = jnp.dtype(self.config.dtype)
        topology = SPATIAL[self.config.spatial](self.features, self.graph, self.config, dtype)
        y = SpatialUnit(self.features, topology, dtype=dtype, name="spatial")(x, train)
        y = TEMPORAL[self.config.temporal](self.stride, self.config, dtype)(y, train)
        if not self.residual:
            return jax.nn.relu(y)
        if self.stride != 1 or x.shape[-1] != self.features:
            shortcut = Pointwise(self.features, True, dtype=dtype, name="shortcut")
            x = shortcut(subsample(x, self.stride))
            x = BatchNorm(train, dtype, name="shortcut_bn")(*x)
        return jax.nn.relu(y + x)


class Encoder(nn.Module):
    """A feature for each joint: x [B, M, T, V, C] -> [B, V, D], D = 4 * width with three stages.

    Each person runs through the blocks as a sample of its own. The features are means over T and M,
    so an absent second person (zeros) counts as half of the clip, as in CTR-GCN. `pooled` makes one
    feature of them.
    """

    graph: Graph
    config: EncoderConfig = HGLNET

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        batch, persons, frames, joints, channels = x.shape
        x = x.transpose(0, 2, 1, 3, 4).reshape(batch, frames, persons * joints * channels)
        # One scale for each person, joint and axis: BatchNorm over [B, T, M * V * C].
        x = BatchNorm(train, jnp.float32, name="data_bn")(x)
        x = x.reshape(batch, frames, persons, joints, channels).transpose(0, 2, 1, 3, 4)
        x = x.reshape(batch * persons, frames, joints, channels)  # [B * M, T, V, C]
        make = nn.remat(Block, static_argnums=(2,)) if self.config.remat else Block
        index = 0
        for stage, blocks in enumerate(self.config.stages):
            for position in range(blocks):
                stride = 2 if stage and not position else 1
                features = self.config.width << stage
                index += 1
                shape = (features, stride, index > 1)
                block = make(*shape, self.graph, self.config, name=f"block{index}")
                x = block(x, train)
        features = x.astype(jnp.float32).mean(axis=1)  # [B * M, V, D]
        return features.reshape(batch, persons, joints, -1).mean(axis=1)  # [B, V, D]


def pooled(features: jax.Array) -> jax.Array:
    """Eq. 11, the feature s of a clip: [B, V, D] -> [B, D], the mean over the joints."""
    return features.mean(axis=1)


def with_feature(model: nn.Module, variables: dict, x: jax.Array) -> tuple[Any, jax.Array]:
    """The output of a model for clips x [B, M, T, V, C], and the pooled feature [B, D] in it."""
    output, features = with_features(model, variables, x)
    return output, features if features.ndim == 2 else pooled(features)


def with_features(model: nn.Module, variables: dict, x: jax.Array) -> tuple[Any, jax.Array]:
    """The output of a model for clips x [B, M, T, V, C], and what its submodule `encoder` returns.

    This is [B, V, D]; an encoder of your own may also return [B, D].
    """
    output, state = model.apply(
        variables,
        x,
        train=False,
        mutable=["intermediates"],
        capture_intermediates=lambda module, _: module.name == "encoder",
    )
    return output, state["intermediates"]["encoder"]["__call__"][0]


class Recogniser(nn.Module):
    """Encoder and linear classifier: x [B, M, T, V, C] -> logits [B, classes] in float32."""

    graph: Graph
    num_classes: int
    config: EncoderConfig = HGLNET

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        features = Encoder(self.graph, self.config, name="encoder")(x, train)  # [B, V, D]
        return classifier(pooled(features), self.num_classes, self.config.dropout, train)


def classifier(feature: jax.Array, num_classes: int, dropout: float, train: bool) -> jax.Array:
    """Dropout and a linear layer of the calling module: [B, D] -> logits [B, classes]."""
    feature = nn.Dropout(dropout, deterministic=not train)(feature)
    bound = 1.0 / math.sqrt(feature.shape[-1])  # PyTorch's default for a bias

    def uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

    return Pointwise(num_classes, bias_init=uniform, name="classifier")(feature)


def encoder_config(settings: Mapping) -> EncoderConfig:
    """An EncoderConfig: `encoder` names the base, other keys override its fields, "" keeps them.

    Raises:
      UserError: an unknown encoder or field (with the nearest known name), or an invalid
        setting.
    """
    settings = {key: value for key, value in dict(settings).items() if value != ""}
    name = settings.pop("encoder", "hglnet")
    if name not in ENCODERS:
        raise UserError(f"unknown encoder {name!r}; use one of {', '.join(ENCODERS)}")
    fields = [field.name for field in dataclasses.fields(EncoderConfig)]
    for key in settings:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(fields)}"
            raise UserError(f"unknown model setting {key!r}; {hint}")
    if "stages" in settings:
        settings["stages"] = tuple(settings["stages"])
    return check_encoder(dataclasses.replace(ENCODERS[name], **settings))
