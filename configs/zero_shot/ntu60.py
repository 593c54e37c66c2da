"""NTU RGB+D 60, X-Sub, without the unseen classes of SynSE: 55/5, or 48/12 with unseen=48_12.

    python launch.py --config=configs/zero_shot/ntu60.py:unseen=55_5 --workdir=runs/ntu60_55_5
    python -m hocslm_jax zero-shot runs/ntu60_55_5

Splits: hocslm_jax/data/class_splits.py, with their source.
Data: `python -m hocslm_jax prepare ntu60 …` (docs/data.md).
Hardware: an accelerator with room for the language model, Qwen3-4B; llm=… selects another.
Expected: no run yet. Arguments: unseen, llm, stream, seed, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    config = experiment.load("ntu60_xsub")
    config.data.unseen = "55_5"
    return experiment.apply(config, arg)
