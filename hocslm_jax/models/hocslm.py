"""HocSLM's trainable part: encoder, classifier, and the fusion with a language model (SSF).

In: clips x [B, M, T, V, C]. Out: class logits [B, classes] and the prefix [v; P] of eq. 13,
[B, 1 + P, H], one visual token and a prompt in the embedding space of a language model of width H;
`FusionConfig.leading` vectors of the prompt may precede the token.
The frozen language model is not part of it, but an argument of the objective.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph
from hocslm_jax.models.encoder import (
    HGLNET,
    Encoder,
    EncoderConfig,
    Recogniser,
    classifier,
    encoder_config,
    pooled,
)

METERS = ("cls", "gen")  # losses whose gradient at the encoder's features can be measured
READS = ("feature", "joints")  # what a projector can read
GROUPS = ("encoder", "classifier", "projector", "prompt")  # the top of the parameter tree


@dataclasses.dataclass(frozen=True)
class FusionConfig:
    """How a feature enters the language model.

    Attributes:
      lm_width: H, the language model's hidden size.
      prompt_length: P, number of prompt vectors.
      leading: how many of them precede the visual token; 0 in the paper.
      width: hidden width of the projector; not given in the paper.
      gain: initial scale of the LayerNorm. At 1, the norm of the visual token is about 30 times
        that of a word's embedding, which hides the prompt; the RMS of the embedding table makes
        them equal.
      reads: "feature" (the pooled feature s, as in eq. 12), or "joints" (the features of all joints
        side by side, which tell the left hand from the right).
      classify_on: "feature" (the pooled feature s) or "visual" (the token v, the paper's T1).
    """

    lm_width: int
    prompt_length: int
    width: int = 1024
    gain: float = 1.0
    reads: str = "feature"
    classify_on: str = "feature"
    leading: int = 0

    def __post_init__(self):
        if self.reads not in READS:
            raise UserError(f"the projector reads {self.reads!r}; use one of {', '.join(READS)}")
        if self.classify_on not in ("feature", "visual"):
            raise UserError(f"classify_on is {self.classify_on!r}; use 'feature' or 'visual'")
        if min(self.lm_width, self.prompt_length, self.width) < 1:
            raise UserError(f"the fusion needs sizes of at least 1, got {self}")


@jax.custom_vjp
def metered(x: jax.Array, meter: jax.Array) -> jax.Array:
    """`x` unchanged; the gradient of the scalar `meter` is the sum of squares of x's gradient.

    So one backward pass measures the gradient of one loss where several losses meet.
    """
    del meter
    return x


metered.defvjp(
    lambda x, meter: (metered(x, meter), None),
    lambda _, grad: (grad, jnp.square(grad.astype(jnp.float32)).sum()),
)


class Projector(nn.Module):
    """Eq. 12, v = LayerNorm(W2 ReLU(W1 s + b1) + b2): feature [B, D] -> visual token [B, H]."""

    features: int
    width: int
    gain: float = 1.0

    @nn.compact
    def __call__(self, feature: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(nn.Dense(self.width, name="up")(feature))
        visual = nn.Dense(self.features, name="out")(hidden)
        scale = nn.initializers.constant(self.gain)
        return nn.LayerNorm(epsilon=1e-5, scale_init=scale, name="norm")(visual)


class HocSLM(nn.Module):
    """Encoder (eqs. 1-11), classifier, projector (eq. 12) and prompt (eq. 13), all in float32.

    Returns (logits [B, classes], prefix [B, 1 + P, H]). If only the logits are used, the compiler
    removes the projector, so that classification costs no more than without it. A scalar 0 for each
    of METERS in the collection "meters" measures that loss's gradient at the encoder's features.
    """

    graph: Graph
    num_classes: int
    fusion: FusionConfig
    config: EncoderConfig = HGLNET

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        fusion = self.fusion
        features = Encoder(self.graph, self.config, name="encoder")(x, train)  # [B, V, D]
        projector = Projector(fusion.lm_width, fusion.width, fusion.gain, name="projector")
        read = self.metered("gen", features)
        joints = fusion.reads == "joints"
        visual = projector(read.reshape(len(x), -1) if joints else pooled(read))  # [B, H]
        shape = (fusion.prompt_length, fusion.lm_width)
        # Training replaces this by the embeddings of a sentence (language/open.py).
        prompt = self.param("prompt", nn.initializers.normal(0.02), shape)
        feature = pooled(self.metered("cls", features))  # [B, D]
        seen = visual if fusion.classify_on == "visual" else feature
        logits = classifier(seen, self.num_classes, self.config.dropout, train)
        return logits, prefix_of(visual, prompt, fusion.leading)

    def metered(self, loss: str, features: jax.Array) -> jax.Array:
        meter = self.get_variable("meters", loss)
        return features if meter is None else metered(features, meter)


def prefix_of(visual: jax.Array, prompt: jax.Array, leading: int = 0) -> jax.Array:
    """Visual tokens [B, H] behind `leading` of the prompt's vectors [P, H]: [B, 1 + P, H]."""
    shape = (visual.shape[0], *prompt.shape)  # B may be symbolic, in an export
    prompts = jnp.broadcast_to(prompt, shape)  # [B, P, H]
    parts = [prompts[:, :leading], visual[:, None], prompts[:, leading:]]
    return jnp.concatenate(parts, axis=1)


def caption_states(lm: nn.Module, params: dict, prefix: jax.Array, tokens: jax.Array) -> jax.Array:
    """Eq. 13: the language model reads Z = [v; P; E_cap], with teacher forcing.

    Args:
        lm: `lm.DecoderLM`, or any module with its `embed` and its `(embeddings) -> hidden`.
        params: parameters of `lm`.
        prefix: [B, 1 + P, H], the visual token and the prompt.
        tokens: int32 [B, L], the caption and its EOS, right-padded.

    Returns:
        Hidden states [B, L, H]; position t sees [v; P; tokens before t] and predicts token t.
    """
    words = lm.apply({"params": params}, tokens[:, :-1], method="embed")  # [B, L - 1, H]
    read = jnp.concatenate([prefix.astype(words.dtype), words], axis=1)  # [B, P + L, H]
    hidden = lm.apply({"params": params}, read)  # [B, P + L, H]
    return hidden[:, prefix.shape[1] - 1 :]


def build_model(
    settings: Mapping, *, graph: Graph, num_classes: int, fusion: FusionConfig | None = None
) -> Recogniser | HocSLM:
    """The network of a config's `model` section (see `EncoderConfig`), with or without a fusion."""
    config = encoder_config(settings)
    if fusion is None:
        return Recogniser(graph, num_classes, config)
    return HocSLM(graph, num_classes, fusion, config)
