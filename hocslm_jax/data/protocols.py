"""Evaluation protocols as indices over the metadata: which clips train and which test.

In: the metadata columns of a dataset. Out: {protocol: {"train": rows, "test": rows}}, rows being
positions into the columns. The data is stored once; a protocol never copies it. The lists of
subjects, cameras and setups are those of CTR-GCN, which follow the datasets' papers. The validation
protocols, for choosing settings without the test clips, are our own additions.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from hocslm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rule:
    """Trains on clips whose `column` is in `train`, tests on those whose `column` is in `test`."""

    column: str
    train: frozenset[int]
    test: frozenset[int]

    def __post_init__(self):
        if self.train & self.test:
            raise ValueError(f"{self.column} {sorted(self.train & self.test)} on both sides")


def rule(column: str, train, universe) -> Rule:
    """The Rule that tests on all of `universe` that it does not train on."""
    return Rule(column, frozenset(train), frozenset(universe) - frozenset(train))


NTU60_SUBJECTS = (1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
NTU120_SUBJECTS = (
    *NTU60_SUBJECTS, 45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83,
    84, 85, 86, 89, 91, 92, 93, 94, 95, 97, 98, 100, 103,
)  # fmt: skip

RULES: dict[str, dict[str, Rule]] = {
    "nw_ucla": {"xview": rule("camera", (1, 2), range(1, 4))},
    "ntu60": {
        "xsub": rule("subject", NTU60_SUBJECTS, range(1, 41)),
        "xview": rule("camera", (2, 3), range(1, 4)),
    },
    "ntu120": {
        "xsub": rule("subject", NTU120_SUBJECTS, range(1, 107)),
        "xset": rule("setup", range(2, 33, 2), range(1, 33)),
    },
    "ntu120_mini": {"xsub": rule("subject", NTU120_SUBJECTS, range(1, 107))},
}


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Tests on the training clips of protocol `base` whose `column` is in `values`.

    The other training clips train; the test clips of `base` are not used.
    """

    base: str
    column: str
    values: tuple[int, ...]


# `xview_val` keeps most clips for training and tests unseen people. `view2_val` tests an unseen
# camera, as the real test does, and trains on view 1 alone. NTU holds out every fifth training
# subject.
VALIDATION: dict[str, dict[str, HeldOut]] = {
    "nw_ucla": {
        "xview_val": HeldOut("xview", "subject", (9, 10)),
        "view2_val": HeldOut("xview", "camera", (2,)),
    },
    "ntu60": {"xsub_val": HeldOut("xsub", "subject", NTU60_SUBJECTS[4::5])},
    "ntu120": {"xsub_val": HeldOut("xsub", "subject", NTU120_SUBJECTS[4::5])},
}

# (train, test) clips of the complete public sets, by number of clips in the set.
COMPLETE: dict[str, tuple[int, dict[str, tuple[int, int]]]] = {
    "nw_ucla": (1484, {"xview": (1020, 464)}),
    "ntu60": (56578, {"xsub": (40091, 16487), "xview": (37646, 18932)}),
    "ntu120": (113945, {"xsub": (63026, 50919), "xset": (54468, 59477)}),
    "ntu120_mini": (180, {"xsub": (120, 60)}),
}


def split_rows(
    rules: Mapping[str, Rule], columns: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Applies every rule to the columns.

    Returns:
      {protocol: {"train": rows, "test": rows}}, int32, ascending.

    Raises:
      UserError: the value of a clip is on neither side, e.g. an unknown subject.
    """
    return {name: _apply(name, rule, columns[rule.column]) for name, rule in rules.items()}


def public(dataset: str, columns: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The protocols of a public dataset; checks the published split sizes if it is complete.

    Raises:
      UserError: as `split_rows`, or the set is complete and yet a split has another size.
    """
    protocols = split_rows(RULES[dataset], columns)
    complete, published = COMPLETE[dataset]
    for name, counts in published.items() if len(columns["label"]) == complete else ():
        found = tuple(len(protocols[name][split]) for split in ("train", "test"))
        if found != counts:
            raise UserError(
                f"{dataset} {name}: {found} clips to train and test, published {counts}; "
                "the source is not the public dataset"
            )
    return protocols


def validation(
    dataset: str,
    protocols: Mapping[str, Mapping[str, np.ndarray]],
    columns: Mapping[str, np.ndarray],
) -> dict[str, dict[str, np.ndarray]]:
    """The validation protocols that the dataset's own `protocols` allow.

    They are made when a dataset is opened, not when it is prepared. No test clip can be in them,
    since both sides are training clips of an existing protocol.
    """
    found = {}
    for name, held in VALIDATION.get(dataset, {}).items():
        if held.base not in protocols or name in protocols:
            continue
        rows = protocols[held.base]["train"]
        out = np.isin(columns[held.column][rows], held.values)
        found[name] = {"train": rows[~out], "test": rows[out]}
    return found


def _apply(name: str, rule: Rule, values: np.ndarray) -> dict[str, np.ndarray]:
    train, test = (np.isin(values, sorted(side)) for side in (rule.train, rule.test))
    stray = values[~(train | test)]
    if stray.size:
        raise UserError(
            f"{name}: {rule.column} {int(stray[0])} belongs to neither train nor test "
            f"({stray.size} clips); check the source"
        )
    return {"train": _rows(train), "test": _rows(test)}


def _rows(mask: np.ndarray) -> np.ndarray:
    return np.flatnonzero(mask).astype(np.int32)
