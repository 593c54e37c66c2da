"""The table of recipes: every row is a config that can be run, and none reads a test clip."""

from pathlib import Path

import pytest

from configs import base
from configs.search import nw_ucla
from hocslm_jax.data.pipeline import Feed
from hocslm_jax.data.protocols import VALIDATION
from hocslm_jax.train.ablate import read_table

TABLE = read_table(Path(__file__).resolve().parents[1] / "configs/search/nw_ucla.py")


@pytest.mark.parametrize("row", TABLE.rows)
def test_every_row_validates_on_training_clips(row):
    config = nw_ucla.get_config(TABLE.rows[row])
    assert config.data.protocol in VALIDATION["nw_ucla"]
    Feed.from_config(config.data)


def test_no_two_rows_are_the_same():
    configs = [nw_ucla.get_config(arg).to_json() for arg in TABLE.rows.values()]
    assert len(set(configs)) == len(configs)


@pytest.mark.parametrize("recipe", base.RECIPES)
def test_every_recipe_sets_known_options(recipe):
    config = base.apply(base.defaults(), f"recipe={recipe},seed=3")
    flat = base.flatten(config)
    assert all(flat[name] == value for name, value in base.RECIPES[recipe].items())
    Feed.from_config(config.data)
