"""NTU RGB+D 120, cross-subject: 53 of 106 subjects train.

    python launch.py --config=configs/ntu120_xsub.py:stream=joint --workdir=runs/ntu120_xsub

Data: raw NTU files cannot be prepared yet (README, Datasets). 63,026 train and 50,919 test clips.
Hardware: one accelerator with 16 GB or more; several share the batch of 64.
Expected: see results/. Arguments: stream, encoder, recipe, seed, epochs, … (configs/base.py).
"""

from configs import base


def get_config(arg: str = ""):
    return base.apply(base.ntu("ntu120", "xsub"), arg)
