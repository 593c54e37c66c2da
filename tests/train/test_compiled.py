"""Communication in the compiled step when trained parameters are split."""

import jax
import pytest
import tiny_run
from flax import linen as nn

from hocslm_jax import sharding
from hocslm_jax.plan.costs import read_costs
from hocslm_jax.train import optim, setup, step
from hocslm_jax.train.jitted import abstract_batch

WIDTH, CLIP = 128, (1, 4, 20, 3)


class Wide(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(WIDTH)(x.mean(axis=(1, 2)).reshape(x.shape[0], -1))
        x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
        x = nn.relu(nn.Dense(WIDTH, name="wide")(x))
        return nn.Dense(tiny_run.CLASSES)(x)


@pytest.mark.parametrize("streams", [(), ("joint", "bone")])
def test_split_weights_are_gathered_and_activations_are_not(streams, monkeypatch):
    monkeypatch.setattr(sharding, "WHOLE_BELOW", WIDTH * WIDTH)  # one kernel is split
    config = tiny_run.make_config({"mesh.fsdp": True, "data.streams": streams})
    mesh, model = setup.open_mesh(config), Wide()
    schedule = optim.make_schedule(config.optim, 1, 1)
    programs = setup.make_programs(config, model, step.classify(model), schedule, mesh, CLIP, None)
    state = programs["abstract_state"]
    kernel = state.params["wide"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape)[-1] == WIDTH // mesh.size
    batch = abstract_batch(config, mesh, (*((len(streams),) if streams else ()), *CLIP), None)
    compiled = programs["train_step"].lower(state, {}, batch).compile()
    found = read_costs(compiled.as_text(), mesh.size).collectives
    assert set(found) <= {"all-gather", "all-reduce"}
    assert found["all-gather"].bytes <= kernel.size * kernel.dtype.itemsize
    trained = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.params))
    assert found["all-reduce"].bytes < 1.2 * trained
