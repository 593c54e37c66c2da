"""Splits into seen and unseen classes: the published lists, their sizes, and what is held out."""

import dataclasses

import numpy as np
import pytest

from hocslm_jax.data.class_splits import (
    EXAMPLES,
    SPLITS,
    hold_out,
    seen_classes,
    unseen_classes,
    unseen_labels,
)
from hocslm_jax.data.prepare.ntu.classes import CLASSES
from hocslm_jax.data.prepare.nw_ucla import CLASSES as NW_UCLA
from hocslm_jax.data.prepare.quickstart.actions import CLASSES as QUICKSTART
from hocslm_jax.errors import UserError

NAMES = CLASSES | {"nw_ucla": NW_UCLA, "quickstart": QUICKSTART}
# As the README of github.com/skelemoa/synse-zsl prints them, which counts from A1.
SYNSE = {
    ("ntu60", "55_5"): "A11 A12 A20 A27 A57",
    ("ntu60", "48_12"): "A4 A6 A10 A13 A16 A41 A43 A48 A52 A57 A59 A60",
    ("ntu120", "110_10"): "A5 A14 A38 A44 A50 A66 A89 A96 A100 A107",
    ("ntu120", "96_24"): (
        "A6 A10 A12 A17 A19 A21 A23 A30 A36 A40 A46 A50 A60 A69 A71 A82 A85 A88 A94 A95 A105 A114 "
        "A115 A120"
    ),
}
# The same classes by name, some of them, against an error of one in all numbers.
KNOWN = {
    ("ntu60", "55_5"): ["reading", "writing", "put on a hat/cap", "jump up"],
    ("ntu60", "48_12"): ["brushing hair", "pickup", "clapping", "tear up paper"],
    ("ntu120", "110_10"): ["drop", "wear jacket", "salute", "touch head (headache)"],
    ("ntu120", "96_24"): ["pickup", "clapping", "writing", "take off a shoe"],
}


@dataclasses.dataclass(frozen=True)
class Toy:
    """Twelve clips of four classes; the last four are to be tested."""

    protocols: dict
    unseen: tuple = ()
    name: str = "toy"
    classes: tuple = ("a", "b", "c", "d")
    ids: tuple = tuple(f"clip{n}" for n in range(12))
    labels: np.ndarray = dataclasses.field(default_factory=lambda: np.arange(12) % 4)


def toy(**changes):
    rows = {"train": np.arange(8, dtype=np.int32), "test": np.arange(8, 12, dtype=np.int32)}
    return Toy({"half": rows | {"val": rows["train"][:3]}}, **changes)


@pytest.mark.parametrize(("dataset", "name"), [(d, n) for d in SPLITS for n in SPLITS[d]])
def test_a_split_has_the_sizes_of_its_name(dataset, name):
    labels = SPLITS[dataset][name]
    assert tuple(sorted(set(labels))) == labels and max(labels) < len(NAMES[dataset])
    if name != "one_shot":
        seen, unseen = map(int, name.split("_")[:2])
        assert (len(NAMES[dataset]) - len(labels), len(labels)) == (seen, unseen)
    assert unseen_labels(dataset, name, len(NAMES[dataset])) == labels


@pytest.mark.parametrize("key", SYNSE)
def test_ntu_splits_are_those_of_synse(key):
    dataset, name = key
    labels = SPLITS[dataset][name]
    assert " ".join(f"A{label + 1}" for label in labels) == SYNSE[key]
    assert [NAMES[dataset][label] for label in labels][:4] == KNOWN[key]


def test_one_shot_is_the_protocol_of_ntu120():
    shown = EXAMPLES["ntu120", "one_shot"]
    assert [int(clip[-3:]) - 1 for clip in shown] == list(SPLITS["ntu120"]["one_shot"])
    assert len(shown) == 20 and shown[1] == "S001C003P008R001A007"
    assert shown[9:11] == ("S001C003P008R001A055", "S018C003P008R001A061")
    assert shown[-1] == "S018C003P008R001A115"


@pytest.mark.parametrize(("dataset", "never"), [("nw_ucla", 0), ("quickstart", 2)])
def test_our_own_splits_leave_a_class_out_once(dataset, never):
    left = [label for labels in SPLITS[dataset].values() for label in labels]
    assert len(left) == len(set(left)) == len(NAMES[dataset]) - never


def test_nothing_of_an_unseen_class_is_in_train_val_and_test():
    whole = toy()
    store = hold_out(whole, "1+3")
    assert store.unseen == (1, 3) and store.classes == whole.classes
    assert (unseen_classes(store), seen_classes(store)) == (["b", "d"], ["a", "c"])
    splits = {name: rows.tolist() for name, rows in store.protocols["half"].items()}
    assert splits == {
        "train": [0, 2, 4, 6],
        "val": [0, 2],
        "test": [8, 10],
        "examples": [1, 3, 5, 7],
        "unseen": [9, 11],
    }
    assert list(whole.protocols["half"]) == ["train", "test", "val"]  # as it was
    assert hold_out(whole, "") is whole and unseen_classes(whole) == []


def test_published_examples_leave_all_other_clips_to_test(monkeypatch):
    monkeypatch.setitem(SPLITS, "toy", {"one": (1, 3)})
    monkeypatch.setitem(EXAMPLES, ("toy", "one"), ("clip5", "clip11", "clip0"))
    splits = hold_out(toy(), "one").protocols["half"]
    assert splits["examples"].tolist() == [5, 11]
    assert splits["unseen"].tolist() == [1, 3, 7, 9]
    assert splits["train"].tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("dataset", "text", "said"),
    [
        ("nw_ucla", "8_2", "8_2_1, 8_2_2"),
        ("mine", "55_5", "no such split of classes; use numbers of classes from 0, e.g. 0\\+9"),
        ("nw_ucla", "3+", "no such split"),
        ("nw_ucla", "walk", "no such split"),
        ("nw_ucla", "3+10", "has the classes 0 to 9, not 10"),
        ("nw_ucla", "+".join(map(str, range(10))), "leaves no class"),
    ],
)
def test_what_is_no_split_is_one_line(dataset, text, said):
    with pytest.raises(UserError, match=said) as error:
        unseen_labels(dataset, text, 10)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_numbers_are_taken_once_and_in_order():
    assert unseen_labels("nw_ucla", "8+3+8", 10) == (3, 8)
    assert unseen_labels("mine", "2", 10) == (2,)
