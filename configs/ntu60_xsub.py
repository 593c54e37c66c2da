"""NTU RGB+D 60, cross-subject: 20 of 40 subjects train.

    python launch.py --config=configs/ntu60_xsub.py --workdir=runs/ntu60_xsub
    python launch.py --config=configs/ntu60_xsub.py:strategy=T0 --workdir=runs/ntu60_xsub_t0

Data: `python -m hocslm_jax prepare ntu60 …` (docs/data.md), 40,091 train and 16,487 test clips.
Strategy: T3 with Qwen3-4B, as in the paper; `strategy=T0` is classification alone.
Hardware: one accelerator with at least 16 GB for T0, and 24 GB for T3, whose frozen model needs
8 GB; several devices share the batch of 64.
Expected: see results/. Arguments: stream, encoder, recipe, seed, epochs, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    return experiment.apply(experiment.ntu("ntu60", "xsub"), arg)
