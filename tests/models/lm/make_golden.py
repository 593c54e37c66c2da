"""Writes golden_qwen3.npz from transformers: two tiny models with inputs, logits, gradients, texts.

python tests/models/lm/make_golden.py      (needs torch and transformers; the test does not)
"""

from pathlib import Path

import numpy as np
from lm_reference import (
    LAYOUTS,
    LENGTHS,
    inputs,
    reference_logits,
    reference_model,
    reference_texts,
)

FILE = Path(__file__).with_name("golden_qwen3.npz")
SMALL = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2}


def golden(layout, seed):
    model = reference_model(layout, seed)
    embeddings, mask, weights = inputs(layout, seed)
    logits, gradient = reference_logits(model, embeddings, mask, weights)
    state = model.state_dict()
    if layout["tie_word_embeddings"]:
        del state["lm_head.weight"]
    return {
        "config": np.array(model.config.to_json_string(use_diff=False)),
        "embeddings": embeddings,
        "lengths": np.array(LENGTHS, np.int32),
        "weights": weights,
        "logits": np.where(mask[..., None], logits, 0),
        "gradient": np.where(mask[..., None], gradient, 0),
        "texts": np.array(reference_texts(model, embeddings, LENGTHS, 8), np.int32),
        **{f"tensor/{name}": tensor.numpy() for name, tensor in state.items()},
    }


def main():
    arrays = {}
    for seed, name in enumerate(("grouped", "narrow heads")):
        found = golden(LAYOUTS[name] | SMALL, seed)
        arrays |= {f"{name}/{key}": value for key, value in found.items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE.name}: {FILE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
