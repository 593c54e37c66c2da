"""The mesh, the path rules, and which clips a host must load."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from hocslm_jax import sharding
from hocslm_jax.errors import UserError


def test_mesh_takes_what_the_model_axis_leaves():
    assert sharding.make_mesh(model=2).shape == {"data": 4, "model": 2}
    for data, model in ((3, 2), (-1, 0), (8, 8), (-1, 16)):
        with pytest.raises(UserError, match="8 devices"):
            sharding.make_mesh(data, model)


def test_rules_go_by_path_and_reach_the_optimizer():
    mesh = sharding.make_mesh(model=2)
    rules = [(r"(.*/)?head/kernel", P(None, "model")), *sharding.RULES]
    params = {"head": {"kernel": jnp.ones((4, 8))}, "body": {"kernel": jnp.ones((4, 8))}}
    tree = {"params": params, "opt": optax.adam(0.1).init(params)}
    placed = sharding.tree_shardings(tree, mesh, rules)
    paths = {sharding.path_name(path): s.spec for path, s in jax.tree.leaves_with_path(placed)}
    split = [name for name, spec in paths.items() if spec == P(None, "model")]
    assert split == ["opt/0/mu/head/kernel", "opt/0/nu/head/kernel", "params/head/kernel"]
    born = jax.jit(lambda: tree, out_shardings=placed)()
    assert born["opt"][0].mu["head"]["kernel"].addressable_shards[0].data.shape == (4, 4)


def test_rules_without_an_end_are_refused():
    with pytest.raises(UserError, match="no sharding rule matches body"):
        sharding.tree_shardings({"body": jnp.ones(2)}, sharding.make_mesh(), [("head", P())])


def test_batches_are_split_and_complete():
    rows = sharding.batch_sharding(sharding.make_mesh())
    x = np.arange(32.0).reshape(16, 2)
    array = sharding.shard_batch(rows, {"x": x}, 16)["x"]
    assert array.addressable_shards[0].data.shape == (2, 2)
    np.testing.assert_array_equal(array, x)


@pytest.mark.parametrize(
    ("mesh", "rows", "share"),
    [
        ({"model": 2}, 16, (2, 6)),
        ({"model": 2}, 12, (3, 6)),  # not over all 8
        ({"model": 1}, 16, (2, 6)),
        ({"model": 2, "stream": 2}, 16, (4, 3)),  # the streams of a clip apart as well
    ],
)
def test_inputs_are_spread_over_all_devices(mesh, rows, share):
    mesh = sharding.make_mesh(**mesh)
    x = jnp.arange(6.0 * rows).reshape(rows, 6)
    placed = jax.device_put(x, sharding.input_sharding(mesh))
    spread = jax.jit(lambda x: sharding.spread(mesh, x))(placed)
    assert spread.addressable_shards[0].data.shape == share
    np.testing.assert_array_equal(spread, x)


def test_gathering_keeps_the_model_axis():
    mesh = sharding.make_mesh(model=2)
    tree = {"a": jnp.ones((8, 4)), "b": jnp.ones(8)}
    placed = {"a": NamedSharding(mesh, P("data", "model")), "b": NamedSharding(mesh, P("model"))}
    gathered = jax.jit(lambda tree: sharding.gather(tree, placed))(jax.device_put(tree, placed))
    shapes = jax.tree.map(lambda leaf: leaf.addressable_shards[0].data.shape, gathered)
    assert shapes == {"a": (8, 2), "b": (4,)}
    assert sharding.gather_layer({"b": placed["b"]}) is None


class Device:
    def __init__(self, process_index):
        self.process_index = process_index


class Placement:
    """Stands for a batch sharding over the devices of several hosts."""

    def __init__(self, hosts):
        self.hosts = hosts

    def devices_indices_map(self, shape):
        rows = shape[0] // len(self.hosts)
        slices = {}
        for i, replicas in enumerate(self.hosts):
            for host in replicas:
                slices[Device(host)] = (slice(i * rows, (i + 1) * rows),)
        return slices


@pytest.mark.parametrize(
    ("hosts", "shard"),
    [
        ([[0], [0], [1], [1]], (0, 2)),  # data over both hosts
        ([[1], [1], [0], [0]], (1, 2)),  # in another device order
        ([[0, 1]], (0, 1)),  # one replica over both hosts: the same clips
        ([[0, 1], [2, 3]], (0, 2)),
    ],
)
def test_hosts_that_share_a_replica_load_the_same_clips(hosts, shard):
    assert sharding.host_shard(Placement(hosts), 8) == shard  # this process is host 0


def test_one_host_loads_everything():
    mesh = sharding.make_mesh(data=2, model=4)
    assert sharding.host_shard(sharding.batch_sharding(mesh), 8) == (0, 1)
    assert isinstance(sharding.replicated(mesh), NamedSharding)


def test_a_batch_must_fill_the_data_axis():
    mesh = sharding.make_mesh()
    sharding.check_batch(mesh, 16, "train.batch_size")
    for size in (0, 12):
        with pytest.raises(UserError, match="8 data-parallel"):
            sharding.check_batch(mesh, size, "train.batch_size")
