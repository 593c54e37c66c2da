"""The quickstart with ten of its fourteen classes; the other four are recognised zero-shot.

    python launch.py --config=configs/zero_shot/quickstart.py:unseen=10_4_1 --workdir=runs/qs_10_4_1
    python -m hocslm_jax zero-shot runs/qs_10_4_1

Splits: 10_4_1 to 10_4_3 (hocslm_jax/data/class_splits.py).
Language model: a small one, pretrained on sentences about the ten classes only.
Hardware: two CPU cores.
Expected: docs/results.md. Arguments: unseen, strategy, seed, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    config = experiment.load("quickstart")
    config.data.unseen = "10_4_1"
    return experiment.apply(config, arg)
