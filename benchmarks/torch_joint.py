"""The joint train step (strategy T3) in plain PyTorch and transformers, as a baseline.

In: clips, labels and captions, a `CTRGCN` and a frozen `Qwen3ForCausalLM`. Out: both losses, and an
update of encoder, classifier, projector and prompt. It is written as by a careful user: SDPA
attention without a mask, since causality hides the padding; logits of the caption only; no
gradient of frozen weights; the same AdamW. Nothing is fused by hand, and nothing is slowed down.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM
from transformers import Qwen3Config as HFConfig

from benchmarks.torch_ctrgcn import CTRGCN
from hocslm_jax.models.lm import LMConfig, to_hf

IGNORED = -100  # target that `cross_entropy` ignores


class Joint(nn.Module):
    """Encoder, classifier, projector and prompt: x [N, C, T, V, M] to logits and [v; P] of eq. 13.

    `hidden` is the width of the projector's hidden layer, `width` that of the language model.
    """

    def __init__(self, encoder: CTRGCN, hidden: int, width: int, prompt: int):
        super().__init__()
        self.classifier, encoder.classifier = encoder.classifier, nn.Identity()
        self.encoder = encoder
        self.projector = nn.Sequential(
            nn.Linear(self.classifier.in_features, hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
            nn.LayerNorm(width),
        )
        self.prompt = nn.Parameter(0.02 * torch.randn(prompt, width))

    def forward(self, x):
        feature = self.encoder(x)
        visual = self.projector(feature).unsqueeze(1)  # [N, 1, H]
        prompts = self.prompt.expand(len(x), -1, -1)
        return self.classifier(feature), torch.cat([visual, prompts.to(visual.dtype)], dim=1)


def stages(width: int, blocks: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Output channels and stride of every block, as in `EncoderConfig`."""
    return tuple(
        (width << stage, 2 if stage and not position else 1)
        for stage, count in enumerate(blocks)
        for position in range(count)
    )


def random_language(sizes: LMConfig, dtype: str, device: str) -> nn.Module:
    """A causal Qwen3 of these sizes, created on the device."""
    config = HFConfig.from_dict(to_hf(sizes))
    with torch.device(device):
        return AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )


def freeze(language: nn.Module, remat: bool) -> nn.Module:
    """Freezes the weights; with `remat`, layers are recomputed in the backward pass."""
    language.requires_grad_(False)
    if remat:
        new = getattr(language, "activation_checkpointing_enable", None)  # the newer name
        (new or language.gradient_checkpointing_enable)({"use_reentrant": False})
        language.train()  # transformers only checkpoints in this mode; Qwen3 has no dropout
    return language


def to_torch(batch: Mapping[str, np.ndarray], device: str) -> dict[str, torch.Tensor]:
    """Converts a batch for PyTorch: clips [N, C, T, V, M], and the targets of the caption."""
    x, tokens = batch["x"].transpose(0, 4, 2, 3, 1), torch.from_numpy(batch["tokens"]).long()
    padding = torch.arange(tokens.shape[1]) >= torch.from_numpy(batch["lengths"])[:, None]
    made = {
        "x": torch.from_numpy(x.copy()),
        "label": torch.from_numpy(batch["label"]).long(),
        "tokens": tokens,
        "targets": tokens.masked_fill(padding, IGNORED),
    }
    return {name: value.to(device) for name, value in made.items()}


def losses(model: Joint, language: nn.Module, batch: Mapping, half: bool = False):
    """(classification loss, caption loss) of eq. 14; `half` runs the trained part in bfloat16."""
    with torch.autocast(batch["x"].device.type, torch.bfloat16, enabled=half):
        logits, prefix = model(batch["x"])
    tokens, targets = batch["tokens"], batch["targets"]
    words = language.get_input_embeddings()(tokens[:, :-1])
    read = torch.cat([prefix.to(words.dtype), words], dim=1)  # [N, P + L, H]
    length = tokens.shape[1]
    said = language(inputs_embeds=read, use_cache=False, logits_to_keep=length).logits
    caption = cross_entropy(said.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
    return cross_entropy(logits.float(), batch["label"]), caption


def make_optimizer(model: Joint, optim) -> torch.optim.AdamW:
    """AdamW of a config's `optim` at a constant rate, without decay of vectors and scalars."""
    groups: dict[tuple[float, float], list] = {}
    for name, value in model.named_parameters():
        rate = optim.lr * (optim.encoder_scale if name.startswith("encoder.") else 1)
        decay = optim.weight_decay if value.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(value)
    return torch.optim.AdamW(
        [{"params": g, "lr": lr, "weight_decay": decay} for (lr, decay), g in groups.items()]
    )


def make_step(model: Joint, language: nn.Module, batch: Mapping, config) -> Callable[[], tuple]:
    """A function that makes one update: (classification loss, caption loss, gradient norm).

    Args:
        language: frozen.
        batch: from `to_torch`.
        config: config of a stage, from `stage_config`.
    """
    adamw = make_optimizer(model, config.optim)
    half = config.model.dtype == "bfloat16"

    def step():
        model.train()
        adamw.zero_grad()
        classification, caption = losses(model, language, batch, half)
        (config.loss.cls * classification + config.loss.gen * caption).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        adamw.step()
        return classification.detach(), caption.detach(), norm

    return step


def finish(device: str) -> None:
    """Waits for a GPU, which computes asynchronously."""
    if device == "cuda":
        torch.cuda.synchronize()
