"""Lists of stages that cannot be trained are refused."""

import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.train import strategy
from hocslm_jax.train.stages import read_stages


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ({"train": ("lm",)}, "'lm'"),
        ({"losses": ("mse",)}, "'mse'"),
        ({"epochs": 3}, "no setting 'epochs'"),
        ({"losses": ()}, "a loss"),
        ({"take": ("encoder",)}, "start and take"),
        ({"start": "previous", "take": ("encoder",)}, "no previous one"),
        ({"optim": "adam"}, "scratch, finetune"),
        ({"captions": "wrong"}, "own, shuffled"),
    ],
)
def test_invalid_stages_are_refused(stage, text):
    with pytest.raises(UserError, match=text):
        read_stages({"stages": (stage,)})


def test_a_missing_run_is_not_evaluated(tmp_path):
    with pytest.raises(UserError, match="no complete checkpoint"):
        tiny_run.on_tiny_data(strategy.evaluate, tmp_path / "none", "T3")
    assert not (tmp_path / "none").exists()
