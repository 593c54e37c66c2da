"""The part of `config.data` that selects the clips of a run.

The other part, `feeder.Feed`, says how a clip becomes an input of the network.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Source:
    """The part of `config.data` that selects the clips of a run and how they are read.

    Attributes:
      dataset: its name, as prepared.
      data_dir: folder of prepared datasets.
      protocol: which clips train and which test, e.g. "xsub".
      unseen: classes left out of training and test, to be recognised without training: a name in
        `class_splits.SPLITS`, e.g. "55_5", or labels from 0, e.g. "3+8"; "" = none.
      threads: number of threads that prefetch batches; more than one rarely helps.
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
