"""Tiny random models of transformers, and their results; needs PyTorch when called.

`LAYOUTS` covers multi-head, grouped-query and multi-query attention, heads wider and narrower than
their share of the width, tied and untied heads, and each other family. Weights are large enough for
every part to matter.
"""

import numpy as np

_SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "eos_token_id": 7,
    "pad_token_id": 0,
    "bos_token_id": None,
}


def _heads(heads, groups, head_dim, tied, **others):
    return _SIZES | {
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head_dim,
        "tie_word_embeddings": tied,
        **others,
    }


LAYOUTS = {
    "multi-head": _heads(4, 4, 8, tied=True),
    "grouped": _heads(4, 2, 16, tied=False),
    "multi-query": _heads(4, 1, 8, tied=False, num_hidden_layers=2),
    "narrow heads": _heads(6, 3, 4, tied=True, hidden_size=40),
    "llama3": _heads(
        4,
        2,
        16,
        tied=True,
        model_type="llama",
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 100.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "qwen2": _heads(4, 2, None, tied=False, model_type="qwen2", num_hidden_layers=2),
}
LENGTHS = (9, 4, 7)  # lengths of the rows of a right-padded batch


def reference_model(layout, seed=0):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    stated = {key: value for key, value in layout.items() if value is not None}
    config = AutoConfig.for_model(**{"model_type": "qwen3"} | stated)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim == 1:
                assert name.endswith(("norm.weight", ".bias"))
                weight.copy_((not name.endswith("bias")) + 0.3 * noise)
            else:
                weight.copy_(noise * weight.shape[1] ** -0.5 * 1.5)
            weight.requires_grad_(False)
    return model


def inputs(layout, seed=1):
    """(embeddings [B, T, D], mask [B, T], weights [B, T, V] for a scalar of the valid logits)."""
    rng = np.random.default_rng(seed)
    shape = (len(LENGTHS), max(LENGTHS))
    mask = np.arange(shape[1]) < np.array(LENGTHS)[:, None]
    embeddings = rng.normal(size=(*shape, layout["hidden_size"])).astype(np.float32)
    weights = rng.normal(size=(*shape, layout["vocab_size"])).astype(np.float32)
    return embeddings, mask, weights * mask[..., None]


def reference_logits(model, embeddings, mask, weights):
    """(logits [B, T, V], gradient of sum(logits * weights) with respect to the embeddings)."""
    import torch

    given = torch.tensor(embeddings, requires_grad=True)
    logits = model(inputs_embeds=given, attention_mask=torch.tensor(mask).long()).logits
    (logits * torch.tensor(weights)).sum().backward()
    return logits.detach().numpy(), given.grad.numpy()


def reference_texts(model, embeddings, lengths, max_new_tokens, eos_id=None):
    """Greedy texts of the rows, each alone and without padding, with transformers' own cache."""
    import torch

    model.generation_config.eos_token_id = eos_id
    texts = []
    for row, length in zip(embeddings, lengths, strict=True):
        given = torch.tensor(row[None, :length])
        mask = torch.ones(1, length, dtype=torch.long)
        new = model.generate(
            inputs_embeds=given,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            use_cache=True,
            pad_token_id=0,
        )
        texts.append(new[0].tolist())
    return texts
