"""Which clips a run reads: the part of `config.data` that names a dataset and what is used of it.

How a clip then becomes an input of a network is in the other part, `feeder.Feed`.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Source:
    """The part of `config.data` that says which clips a run reads, and how.

    Attributes:
      dataset: its name, as `prepare` wrote it.
      data_dir: folder of prepared datasets.
      protocol: which clips train and which test, e.g. "xsub".
      unseen: classes that are left out of training and test, to be recognised without any: a
        name in `class_splits.SPLITS`, e.g. "55_5", or labels from 0, e.g. "3+8"; "" = none.
      threads: that prefetch batches; more than one seldom helps, they wait for each other.
      cache: "ram" keeps all clips in memory (3 GB for NTU120), "" reads them from the disk.
      auto_prepare: True builds a missing dataset that needs no download before training.
    """

    dataset: str = "nw_ucla"
    data_dir: str = "data"
    protocol: str = "xview"
    unseen: str = ""
    threads: int = 1
    cache: str = ""
    auto_prepare: bool = False
