"""A small benchmark inside NTU RGB+D 120: three subjects, the sixty classes A061 to A120.

In: sources with at least the clips S018C001P008R002, S018C001P045R001 and S032C003P106R001 of these
classes. Out: a Recipe of 120 clips to train and 60 to test, labels 0 to 59, by the official
cross-subject rule. The test subject is also in another setup, before another camera.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from hocslm_jax.data import protocols
from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.ntu import reader
from hocslm_jax.data.prepare.ntu.classes import NTU60, NTU120
from hocslm_jax.data.prepare.ntu.skeleton import Name
from hocslm_jax.data.prepare.ntu.sources import OnBad
from hocslm_jax.data.prepare.writer import Recipe, Shard

NAME = "ntu120_mini"
CLASSES = NTU120[len(NTU60) :]
TAKES = ((18, 1, 8, 2), (18, 1, 45, 1), (32, 3, 106, 1))  # setup, camera, performer, replication


def recipe(sources: Sequence[Path], on_bad: OnBad, *, workers: int = 1) -> Recipe:
    """As `reader.recipe` of "ntu120"; other clips are not read.

    Raises:
      UserError: a source that is not there or unreadable.
    """
    whole = reader.recipe("ntu120", sources, on_bad, workers=workers, keep=keep)
    return dataclasses.replace(
        whole,
        name=NAME,
        classes=CLASSES,
        shards=[functools.partial(_relabelled, shard) for shard in whole.shards],
        protocols=functools.partial(protocols.public, NAME),
        expected=protocols.COMPLETE[NAME][0],
        portable=(),
    )


def keep(name: Name) -> bool:
    """Whether a file of this name is one of the 180."""
    return name[:4] in TAKES and name.action > len(NTU60)


def _relabelled(shard: Shard) -> Iterator[Clip]:
    for clip in shard():
        yield dataclasses.replace(clip, label=clip.label - len(NTU60))
