"""Quickstart: a small skeleton dataset with captions, generated with NumPy.

`clips(seed)` yields `Clip`s of `CLASSES`; the protocol is X-Sub: the performers in
`TRAIN_SUBJECTS` train, all others test.
"""

from hocslm_jax.data.prepare.quickstart.actions import CLASSES
from hocslm_jax.data.prepare.quickstart.recordings import TRAIN_SUBJECTS, clip, clips

__all__ = ["CLASSES", "TRAIN_SUBJECTS", "clip", "clips"]
