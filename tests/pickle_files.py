"""Pickle files for tests, and what reading a bad one says."""

import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.files.pickles import read_pickle


def store(path, data):
    path.write_bytes(data)
    return path


def refusal(path, data):
    """What the UserError says; fails if there is none."""
    with pytest.raises(UserError) as error:
        read_pickle(store(path, data))
    assert "\n" not in str(error.value) and len(str(error.value)) < len(str(path)) + 300
    return str(error.value)
