"""NTU RGB+D 60, cross-subject: 20 of 40 subjects train.

    python launch.py --config=configs/ntu60_xsub.py:stream=joint --workdir=runs/ntu60_xsub

Data: raw NTU files cannot be prepared yet (README, Datasets). 40,091 train and 16,487 test clips.
Hardware: one accelerator with 16 GB or more; several share the batch of 64.
Expected: see results/. Arguments: stream, encoder, recipe, seed, epochs, … (configs/base.py).
"""

from configs import base


def get_config(arg: str = ""):
    return base.apply(base.ntu("ntu60", "xsub"), arg)
