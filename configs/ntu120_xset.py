"""NTU RGB+D 120, cross-setup: even setups train, odd setups test.

    python launch.py --config=configs/ntu120_xset.py --workdir=runs/ntu120_xset
    python launch.py --config=configs/ntu120_xset.py:strategy=T0 --workdir=runs/ntu120_xset_t0

Data: `python -m hocslm_jax prepare ntu120 …` (docs/data.md), 54,468 train and 59,477 test clips.
Strategy: T3 with Qwen3-4B, as in the paper; `strategy=T0` is classification alone.
Hardware: one accelerator with at least 16 GB for T0, and 24 GB for T3, whose frozen model needs
8 GB; several devices share the batch of 64.
Expected: see results/. Arguments: stream, encoder, recipe, seed, epochs, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    return experiment.apply(experiment.ntu("ntu120", "xset"), arg)
