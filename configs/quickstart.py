"""Fourteen generated actions, a small network and a small language model: all of HocSLM on a CPU.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart

Data: generated before training when missing; nothing is downloaded.
Hardware: two CPU cores.
Expected: see results/. Arguments: strategy, stream, encoder, recipe, seed, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    config = experiment.defaults()
    config.data.update(dataset="quickstart", protocol="xsub", auto_prepare=True)
    # The first person suffices to distinguish these actions, at half the cost.
    config.data.update(feeder="ntu", frames=32, num_persons=1, repeat=1)
    config.model.update(encoder="ctrgcn", width=16, stages=(2, 1, 1))
    config.optim.update(name="adamw", lr=0.01, weight_decay=0.01, schedule="cosine")
    config.optim.update(warmup_epochs=1, decay_mask=True)
    config.train.update(epochs=30, eval_every=5, checkpoint_every=100)
    config.update(strategy="T3", stages=experiment.STRATEGIES["T3"])
    config.finetune.update(epochs=10, warmup_epochs=1, lr=2e-3, encoder_scale=1.0)
    # Its captions name sides, which a mean over the joints would hide.
    config.lm.update(describe=-1, projector_reads="joints", projector_width=256, remat=False)
    config.lm.pretrain.update(steps=500, batch_size=32)
    return experiment.apply(config, arg)
