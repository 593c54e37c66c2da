"""The built-in lists of missing skeletons are the published ones."""

import pytest

from hocslm_jax.data.prepare.ntu.missing import missing_ids
from hocslm_jax.data.prepare.ntu.skeleton import parse_name


@pytest.mark.parametrize(("actions", "count"), [(60, 302), (120, 535)])
def test_counts(actions, count):
    ids = missing_ids(actions)
    assert len(ids) == count
    assert all(parse_name(name).action <= actions for name in ids)
    assert "S001C002P005R002A008" in ids


@pytest.mark.parametrize("actions", [60, 120])
def test_as_published(shared, actions):
    lines = (shared / f"data/ntu_missing/ntu{actions}.txt").read_text().split()
    assert missing_ids(actions) == set(lines)
