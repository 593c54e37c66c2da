"""Train or evaluate one experiment.

    python launch.py --config=configs/nw_ucla.py:stream=bone,encoder=ctrgcn --workdir=runs/ucla_bone
        [--config.optim.lr=0.05] [--mode=train|eval] [--distributed]

The same as `python -m hocslm_jax train …`; see `hocslm_jax/train/command.py`.
"""

import sys

from hocslm_jax.train import command

if __name__ == "__main__":
    sys.exit(command.main(sys.argv))
