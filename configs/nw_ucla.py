"""NW-UCLA, cross-view: views 1 and 2 train (1,020 clips), view 3 tests (464 clips).

    python launch.py --config=configs/nw_ucla.py:stream=bone,encoder=ctrgcn --workdir=runs/ucla_bone
    python launch.py --config=configs/nw_ucla.py:strategy=T3 --workdir=runs/ucla_t3

Data: `python -m hocslm_jax prepare nw_ucla …` (docs/data.md).
Hardware: any accelerator; a few CPU cores also suffice, but are slower.
`strategy=T3` pretrains a small language model on the captions; `llm=Qwen/Qwen3-4B` loads one.
Expected: see results/. Arguments: stream, encoder, recipe, seed, epochs, … (train/experiment.py).
"""

from hocslm_jax.train import experiment


def get_config(arg: str = ""):
    config = experiment.defaults()
    config.lm.update(describe=-1, projector_width=256, remat=False)
    return experiment.apply(config, arg)
