"""NW-UCLA, cross-view: views 1 and 2 train (1,020 clips), view 3 tests (464 clips).

    python launch.py --config=configs/nw_ucla.py:stream=bone,encoder=ctrgcn --workdir=runs/ucla_bone

Data: `python -m hocslm_jax prepare nw_ucla …` (docs/data.md).
Hardware: any accelerator; a few CPU cores do as well, only slower.
Expected: see results/. Arguments: stream, encoder, recipe, seed, epochs, … (configs/base.py).
"""

from configs import base


def get_config(arg: str = ""):
    return base.apply(base.defaults(), arg)
