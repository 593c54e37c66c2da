"""A few real NTU clips: A061 to A120 of P008 and P045 train (120), of P106 test (60).

    python launch.py --config=configs/ntu120_mini.py:seed=0 --workdir=runs/ntu120_mini

Data: `python -m hocslm_jax prepare ntu120_mini …` (docs/data.md), from a part of NTU120 with them.
Hardware: two CPU cores, hence width 16 and 4 blocks instead of 64 and 10. The recipe was fixed
without any use of the test split.
`strategy=T3` pretrains a small language model on the captions; `llm=Qwen/Qwen3-4B` loads one.
Expected: see results/; chance is 1.67 %. Arguments: train/experiment.py.
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    config = experiment.defaults()
    config.data.update(dataset="ntu120_mini", protocol="xsub", feeder="ntu", frames=64)
    config.data.update(num_persons=2, second_person="copy", repeat=1)
    config.model.update(width=16, stages=(2, 1, 1))
    config.optim.update(name="adamw", lr=3e-3, weight_decay=0.05, schedule="cosine")
    config.optim.update(warmup_epochs=2, decay_mask=True)
    config.train.update(epochs=40, eval_every=5)
    config.lm.update(describe=-1, projector_width=256, remat=False)
    return experiment.apply(config, arg)
