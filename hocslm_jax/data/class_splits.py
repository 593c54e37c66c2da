"""Which classes a run leaves out of its training, to be recognised without any (zero-shot).

In: a store and `data.unseen`, the name of a split below or the numbers of classes. Out: the store
whose train, val and test splits hold the seen classes alone. Two further splits of each protocol
hold the others: `unseen` the test clips to recognise, `examples` the clips that one-shot
recognition may be shown. Nothing trains on either.

The splits of NTU are those of SynSE (Gupta et al., ICIP 2021): the tables of unseen classes in the
README of github.com/skelemoa/synse-zsl, which count from A1, and the same lists in
`feeders/feeder_ntu.py` of github.com/cseeyangchen/STAR and `config.py` of
github.com/YujieOuO/SMIE, which count from 0 as here. `one_shot` is the protocol of NTU RGB+D 120
(Liu et al., TPAMI 2020): every sixth class, and one published clip of each, from the README of
github.com/shahroudy/NTURGB-D. The splits of NW-UCLA and the quickstart are our own, by a rule.
"""

import dataclasses
import re

import numpy as np

from hocslm_jax.data.store import Store
from hocslm_jax.errors import UserError

ONE_SHOT = tuple(range(0, 120, 6))  # A1, A7, …, A115

# Dataset -> name -> labels of the unseen classes, from 0. A name says how many are seen and unseen.
SPLITS: dict[str, dict[str, tuple[int, ...]]] = {
    "ntu60": {
        "55_5": (10, 11, 19, 26, 56),
        "48_12": (3, 5, 9, 12, 15, 40, 42, 47, 51, 56, 58, 59),
    },
    "ntu120": {
        "110_10": (4, 13, 37, 43, 49, 65, 88, 95, 99, 106),
        "96_24": (
            5, 9, 11, 16, 18, 20, 22, 29, 35, 39, 45, 49, 59, 68, 70, 81, 84, 87, 93, 94, 104,
            113, 114, 119,
        ),
        "one_shot": ONE_SHOT,
    },
    # Every class is unseen in one split: class n and the one five later, so that neither of the
    # two is the other's opposite (sit down and stand up) or twin (pick up with one, two hands).
    "nw_ucla": {f"8_2_{n + 1}": (n, n + 5) for n in range(5)},
    # Every third class, beginning at n: twelve of fourteen are unseen in one split.
    "quickstart": {f"10_4_{n + 1}": (n, n + 3, n + 6, n + 9) for n in range(3)},
}  # fmt: skip

# The clips that one-shot recognition is shown; of other splits it draws them.
EXAMPLES: dict[tuple[str, str], tuple[str, ...]] = {
    ("ntu120", "one_shot"): tuple(
        f"S{1 if label < 60 else 18:03}C003P008R001A{label + 1:03}" for label in ONE_SHOT
    ),
}
NOBODY = np.zeros(0, np.int32)
_LABELS = re.compile(r"\d{1,6}(\+\d{1,6})*")


def unseen_labels(dataset: str, text: str, num_classes: int) -> tuple[int, ...]:
    """The labels that `data.unseen` names, ascending; () of an empty text.

    Args:
        text: a name in `SPLITS[dataset]`, or labels from 0 such as "3+8".

    Raises:
        UserError: neither, a label that the dataset does not have, or no class is left to train.
    """
    known = SPLITS.get(dataset, {})
    if not text:
        return ()
    if text in known:
        labels = known[text]
    elif _LABELS.fullmatch(text):
        labels = tuple(sorted({int(label) for label in text.split("+")}))
    else:
        names = f"{', '.join(known)}, or " if known else ""
        raise UserError(
            f"data.unseen={text[:40]}: {dataset} has no such split of classes; use {names}numbers "
            f"of classes from 0, e.g. 0+{num_classes - 1}"
        )
    if labels[-1] >= num_classes:
        raise UserError(
            f"data.unseen={text[:40]}: {dataset} has the classes 0 to {num_classes - 1}, not "
            f"{labels[-1]}"
        )
    if len(labels) == num_classes:
        raise UserError(f"data.unseen={text[:40]} leaves no class of {dataset} to train on")
    return labels


def hold_out(store: Store, text: str) -> Store:
    """The store without the clips of `data.unseen` in train, val and test; itself without any.

    Classes and labels stay as they are.

    Raises:
        UserError: as `unseen_labels`.
    """
    labels = unseen_labels(store.name, text, len(store.classes))
    if not labels:
        return store
    unseen = np.isin(store.labels, labels)  # [N]
    published = np.isin(store.ids, EXAMPLES.get((store.name, text), ()))
    protocols = {}
    for name, splits in store.protocols.items():
        kept = {split: rows[~unseen[rows]] for split, rows in splits.items()}
        left = {split: rows[unseen[rows]] for split, rows in splits.items()}
        examples, tested = (left.get(split, NOBODY) for split in ("train", "test"))
        if (store.name, text) in EXAMPLES:  # all other clips of these classes are tested
            examples = np.flatnonzero(published & unseen).astype(np.int32)
            tested = np.flatnonzero(~published & unseen).astype(np.int32)
        protocols[name] = kept | {"examples": examples, "unseen": tested}
    return dataclasses.replace(store, protocols=protocols, unseen=labels)


def seen_classes(store) -> list[str]:
    """Names of the classes that a run trains on, in label order."""
    return [name for name in store.classes if name not in unseen_classes(store)]


def unseen_classes(store) -> list[str]:
    """Names of the classes that it leaves out.

    Args:
        store: of `hold_out`, or anything with its `classes`.
    """
    return [store.classes[label] for label in getattr(store, "unseen", ())]
