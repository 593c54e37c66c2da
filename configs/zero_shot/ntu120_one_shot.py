"""NTU RGB+D 120, one-shot: 20 novel classes, each shown by one published clip.

    python launch.py --config=configs/zero_shot/ntu120_one_shot.py --workdir=runs/ntu120_one_shot
    python -m hocslm_jax zero-shot runs/ntu120_one_shot

Classes and clips: Liu et al., 2020 (hocslm_jax/data/class_splits.py). Training uses the other 100
classes of the X-Sub training subjects, so that accuracy on these classes can be measured too; the
protocol allows all of their clips.
Data: `python -m hocslm_jax prepare ntu120 …` (docs/data.md).
Hardware: an accelerator with room for the language model, Qwen3-4B; llm=… selects another.
Expected: no run yet. Arguments: llm, stream, seed, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    config = experiment.load("ntu120_xsub")
    config.data.unseen = "one_shot"
    return experiment.apply(config, arg)
