"""One skeleton clip in memory: what every raw-format reader yields and every builder writes.

Only real frames and real persons are kept; padding, cropping and the second person of the reference
protocol are matters of the feeders.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Clip:
    """A labelled skeleton sequence.

    Attributes:
      id: unique within the dataset, e.g. `a01_s02_e00_v03`.
      joints: float32 [T, M, V, 3], metres; T >= 1 frames, M >= 1 persons, finite.
      label: 0-based class.
      subject, camera, setup, replication: as numbered by the dataset; 0 where it has none.
      caption: a sentence about the motion, or "".
    """

    id: str
    joints: np.ndarray
    label: int
    subject: int = 0
    camera: int = 0
    setup: int = 0
    replication: int = 0
    caption: str = ""
