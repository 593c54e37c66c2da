"""NTU RGB+D 120, X-Set, without the unseen classes of SynSE: 110/10, or 96/24 with unseen=96_24.

    python launch.py --config=configs/zero_shot/ntu120.py:unseen=110_10 --workdir=runs/ntu120_110_10
    python -m hocslm_jax zero-shot runs/ntu120_110_10

Splits: hocslm_jax/data/class_splits.py, with their source.
Data: `python -m hocslm_jax prepare ntu120 …` (docs/data.md).
Hardware: an accelerator with room for the language model, Qwen3-4B; llm=… selects another.
Expected: no run yet. Arguments: unseen, llm, stream, seed, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    config = experiment.load("ntu120_xset")
    config.data.unseen = "110_10"
    return experiment.apply(config, arg)
