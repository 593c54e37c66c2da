"""Splits in pickles of own datasets, as different tools spell them."""

import pickle

import numpy as np
import pytest

from hocslm_jax.data.prepare.importers.annotations import read_annotations
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25


def read_splits(folder, splits):
    joints = np.ones((1, 5, 25, 3), np.float32)
    clips = [
        {"frame_dir": key, "label": 0, "total_frames": 5, "keypoint": joints + n}
        for n, key in enumerate("ab")
    ]
    path = folder / "a.pkl"
    path.write_bytes(pickle.dumps({"split": splits, "annotations": clips}, 4))
    return read_annotations(path, NTU25, needs_splits=True)[1]


@pytest.mark.parametrize(
    ("names", "protocol"),
    [
        (("train", "test"), "split"),
        (("training", "testing"), "split"),
        (("Train", "Validation"), "split"),
        (("train_fold1", "test_fold1"), "fold1"),
        (("by_subject_train", "by_subject_dev"), "by_subject"),
    ],
)
def test_other_spellings(tmp_path, names, protocol):
    found = read_splits(tmp_path, {names[0]: ["a"], names[1]: ["b"]})
    assert found == {protocol: {"train": ["a"], "test": ["b"]}}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"fold0": ["a"], "fold1": ["b"]}, "it has the splits 'fold0', 'fold1'; name splits train"),
        ({"train": ["a"], "training": ["b"]}, "two splits are the train split of 'split'"),
        ({}, "it has no splits; name splits train and test"),
        ([["a"], ["b"]], "it has no splits"),
        ({"train": np.array(["a"])}, "split 'train' is not a list of ids"),
    ],
)
def test_splits_of_unknown_or_equal_meaning_are_refused(tmp_path, splits, message):
    with pytest.raises(UserError, match=message):
        read_splits(tmp_path, splits)
