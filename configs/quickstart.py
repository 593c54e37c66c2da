"""Fourteen generated actions and a small network: the whole pipeline in a few minutes on a CPU.

    python launch.py --config=configs/quickstart.py --workdir=runs/quickstart

Data: generated before training when missing; nothing is downloaded.
Hardware: two CPU cores.
Expected: see results/. Arguments: stream, encoder, recipe, seed, epochs, … (configs/base.py).
"""

from configs import base


def get_config(arg: str = ""):
    config = base.defaults()
    config.data.update(dataset="quickstart", protocol="xsub", auto_prepare=True)
    # The first person alone tells these actions apart, at half the cost.
    config.data.update(feeder="ntu", frames=32, num_persons=1, repeat=1)
    config.model.update(encoder="ctrgcn", width=16, stages=(2, 1, 1))
    config.optim.update(name="adamw", lr=0.01, weight_decay=0.01, schedule="cosine")
    config.optim.update(warmup_epochs=1, decay_mask=True)
    config.train.update(epochs=30, eval_every=5, checkpoint_every=100)
    return base.apply(config, arg)
