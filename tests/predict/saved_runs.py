"""Runs with random weights and their language models, as training saves them."""

import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import tiny_run

from hocslm_jax.data.tokenizer import save_tokenizer, train_tokenizer
from hocslm_jax.graph import UCLA20
from hocslm_jax.models.lm import LMConfig, init_params, save_params
from hocslm_jax.train import checkpoint, model_summary
from hocslm_jax.train.state import eval_variables

SENTENCES = ["a person waves the left hand", "two people shake hands and walk away"]
FUSED = {
    **tiny_run.HGLNET,
    "model.encoder": "ctrgcn",
    "model.stages": (1,),
    "compilation_cache": "",
    "optim.ema": 0.5,
    "stages": ({"train": ("encoder", "classifier", "projector", "prompt"), "losses": ("gen",)},),
    "lm.dtype": "float32",
    "lm.captions": "bank",
    "lm.projector_width": 16,
    "lm.max_tokens": 6,
}


class Store(tiny_run.TinyStore):
    graph = UCLA20  # whose files are read
    path = Path("nowhere/1.0.0")  # no captions of its own


def write_lm(folder, width=16):
    """A random language model."""
    tokenizer = train_tokenizer(SENTENCES, 300)
    config = LMConfig(
        vocab_size=tokenizer.size,
        hidden_size=width,
        intermediate_size=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        rope_theta=1e4,
        rms_norm_eps=1e-6,
        tie_embeddings=True,
        max_positions=256,
        eos_token_ids=(tokenizer.eos_id,),
    )
    folder.mkdir()
    save_params(init_params(config, jax.random.key(1)), config, folder)
    save_tokenizer(tokenizer, folder)


def save_run(run):
    """Leaves what a run leaves, with random weights; the averaged ones differ from the others."""
    state = run.init(jax.random.key(3), {}).replace(opt_state=None)
    if state.ema is not None:
        state = state.replace(ema=jax.tree.map(lambda leaf: 0.9 * leaf, state.ema))
    meta = {"config": checkpoint.plain(run.config), "step": 7}
    with checkpoint.open_manager(run.workdir) as manager:
        checkpoint.save(manager, 7, state, meta)
    model_summary.describe_model(run, None)
    return eval_variables(state)
