"""Protocols split clips by metadata, without overlap or omission."""

import numpy as np
import pytest

from hocslm_jax.data import protocols
from hocslm_jax.errors import UserError

PROTOCOLS = [(dataset, name) for dataset, rules in protocols.RULES.items() for name in rules]
SIZES = {  # values on the (train, test) side
    ("nw_ucla", "xview"): (2, 1),
    ("ntu60", "xsub"): (20, 20),
    ("ntu60", "xview"): (2, 1),
    ("ntu120", "xsub"): (53, 53),
    ("ntu120", "xset"): (16, 16),
    ("ntu120_mini", "xsub"): (53, 53),
}


@pytest.mark.parametrize("key", PROTOCOLS)
def test_sides_are_disjoint_and_of_the_published_size(key):
    rule = protocols.RULES[key[0]][key[1]]
    assert not rule.train & rule.test
    assert (len(rule.train), len(rule.test)) == SIZES[key]


def test_known_members():
    assert protocols.RULES["ntu60"]["xview"].test == {1}
    assert protocols.RULES["nw_ucla"]["xview"].test == {3}
    assert protocols.RULES["ntu120"]["xset"].train == set(range(2, 33, 2))
    assert {8, 45} <= protocols.RULES["ntu120"]["xsub"].train
    assert 106 in protocols.RULES["ntu120"]["xsub"].test


def test_a_rule_with_a_common_value_is_an_error():
    with pytest.raises(ValueError, match="both sides"):
        protocols.Rule("camera", frozenset({1, 2}), frozenset({2, 3}))


def test_every_row_is_on_one_side():
    camera = np.array([3, 1, 2, 3, 1])
    split = protocols.split_rows(protocols.RULES["nw_ucla"], {"camera": camera})["xview"]
    assert split["train"].tolist() == [1, 2, 4] and split["test"].tolist() == [0, 3]


def test_an_unknown_value_is_told():
    with pytest.raises(UserError, match=r"xview: camera 4 belongs to neither .* \(2 clips\)"):
        protocols.split_rows(protocols.RULES["nw_ucla"], {"camera": np.array([1, 4, 4])})


def test_a_complete_set_must_split_as_published():
    camera = np.repeat([1, 2, 3], (520, 500, 464))
    columns = {"camera": camera, "label": np.zeros(1484)}
    assert len(protocols.public("nw_ucla", columns)["xview"]["train"]) == 1020
    columns["camera"] = np.repeat([1, 2, 3], (520, 499, 465))
    with pytest.raises(UserError, match=r"published \(1020, 464\)"):
        protocols.public("nw_ucla", columns)
    subset = {key: values[:1000] for key, values in columns.items()}
    assert "xview" in protocols.public("nw_ucla", subset)


def made_up(dataset, base):
    """Two clips for every value of every column of the protocol and of what holds clips out."""
    people, cameras, setups = np.meshgrid(range(1, 107), (1, 2, 3), (1, 2), indexing="ij")
    columns = {"subject": people.ravel(), "camera": cameras.ravel(), "setup": setups.ravel()}
    rule = protocols.RULES[dataset][base]
    known = np.isin(columns[rule.column], sorted(rule.train | rule.test))
    columns = {name: values[known] for name, values in columns.items()}
    columns["label"] = np.zeros(known.sum())
    return columns


@pytest.mark.parametrize(
    ("dataset", "name"),
    [(dataset, name) for dataset, held in protocols.VALIDATION.items() for name in held],
)
def test_validation_never_sees_a_test_clip(dataset, name):
    held = protocols.VALIDATION[dataset][name]
    columns = made_up(dataset, held.base)
    real = protocols.split_rows(protocols.RULES[dataset], columns)
    split = protocols.validation(dataset, real, columns)[name]
    train, test = set(split["train"].tolist()), set(split["test"].tolist())
    assert train and test and not train & test
    assert not (train | test) & set(real[held.base]["test"].tolist())
    assert train | test == set(real[held.base]["train"].tolist())
    sides = [set(columns[held.column][rows].tolist()) for rows in (split["train"], split["test"])]
    assert not sides[0] & sides[1] and sides[1] == set(held.values)


def test_validation_protocol_needs_its_base_and_yields_to_an_existing_one():
    columns = {"subject": np.arange(1, 11), "camera": np.ones(10, int)}
    own = {"xview_val": {"train": np.arange(3), "test": np.arange(3, 5)}}
    assert protocols.validation("nw_ucla", own, columns) == {}
    assert protocols.validation("mine", {"xview": own["xview_val"]}, columns) == {}
    both = own | {"xview": {"train": np.arange(10), "test": np.arange(0)}}
    assert "xview_val" not in protocols.validation("nw_ucla", both, columns)
