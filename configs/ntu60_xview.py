"""NTU RGB+D 60, cross-view: cameras 2 and 3 train, camera 1 tests.

    python launch.py --config=configs/ntu60_xview.py:stream=joint --workdir=runs/ntu60_xview

Data: raw NTU files cannot be prepared yet (README, Datasets). 37,646 train and 18,932 test clips.
Hardware: one accelerator with 16 GB or more; several share the batch of 64.
Expected: see results/. Arguments: stream, encoder, recipe, seed, epochs, … (configs/base.py).
"""

from configs import base


def get_config(arg: str = ""):
    return base.apply(base.ntu("ntu60", "xview"), arg)
