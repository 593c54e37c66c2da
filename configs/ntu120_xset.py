"""NTU RGB+D 120, cross-setup: even setups train, odd setups test.

    python launch.py --config=configs/ntu120_xset.py:stream=joint --workdir=runs/ntu120_xset

Data: raw NTU files cannot be prepared yet (README, Datasets). 54,468 train and 59,477 test clips.
Hardware: one accelerator with 16 GB or more; several share the batch of 64.
Expected: see results/. Arguments: stream, encoder, recipe, seed, epochs, … (configs/base.py).
"""

from configs import base


def get_config(arg: str = ""):
    return base.apply(base.ntu("ntu120", "xset"), arg)
