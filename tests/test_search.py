"""The searches' tables: every row is a config that can be run, and none reads a test clip."""

from pathlib import Path

import pytest

from configs.search import nw_ucla
from hocslm_jax.data.pipeline import Feed
from hocslm_jax.data.protocols import VALIDATION
from hocslm_jax.train import distill, experiment
from hocslm_jax.train.ablate import read_table

SEARCH = Path(__file__).resolve().parents[1] / "configs/search"
TABLES = {name: read_table(SEARCH / f"{name}.py") for name in ("nw_ucla", "distill")}
ROWS = [(name, row) for name, table in TABLES.items() for row in table.rows]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_every_row_validates_on_training_clips(name, row):
    config = nw_ucla.get_config(TABLES[name].rows[row])
    assert config.data.protocol in VALIDATION["nw_ucla"]
    Feed.from_config(config.data)
    distill.check(config)


@pytest.mark.parametrize("name", TABLES)
def test_no_two_rows_are_the_same(name):
    configs = [nw_ucla.get_config(arg).to_json() for arg in TABLES[name].rows.values()]
    assert len(set(configs)) == len(configs)


def test_student_runs_after_its_teacher():
    seen = []
    for row, arg in TABLES["distill"].rows.items():
        config = nw_ucla.get_config(arg)
        if config.distill.teacher:
            teacher = config.distill.teacher.removeprefix("{workdir}/").removesuffix("_seed{seed}")
            assert nw_ucla.get_config(TABLES["distill"].rows[teacher]).test.train_clips
            assert teacher in seen
        seen.append(row)


@pytest.mark.parametrize("recipe", experiment.RECIPES)
def test_every_recipe_sets_known_options(recipe):
    config = experiment.apply(experiment.defaults(), f"recipe={recipe},seed=3")
    flat = experiment.flatten(config)
    assert all(flat[name] == value for name, value in experiment.RECIPES[recipe].items())
    Feed.from_config(config.data)
