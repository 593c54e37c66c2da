"""In bfloat16 the gradients of gates, weights of sums and biases are those of float32.

Each is a sum over all clips, frames and joints. Formed in bfloat16, whose numbers have eight bits,
such a sum stops growing long before its end.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from small_hglnet import CHAIN, shaken

from hocslm_jax.models.layers import Pointwise
from hocslm_jax.models.spatial import CTS, Values
from hocslm_jax.models.temporal import DHT

# A softmax is invariant to a bias of the keys: its gradient is 0, up to rounding.
NOISE = ("gta/key/bias",)
SUMS = ("fusion", "gates", "gamma", "residual", "graph", "bias", "energy_bias", "gate_bias")


@pytest.mark.parametrize(
    ("make", "args"),
    [
        (lambda dtype: CTS(8, CHAIN, dtype=dtype), ()),
        (lambda dtype: DHT(dtype=dtype), (True,)),
        (lambda dtype: Values(8, 3, dtype=dtype), ()),
        (lambda dtype: Pointwise(8, dtype=dtype), ()),
    ],
    ids=["CTS", "DHT", "Values", "Pointwise"],
)
def test_gradients_of_scalars_and_biases(make, args):
    x = jax.random.normal(jax.random.key(1), (64, 16, 4, 8))
    variables = jax.jit(lambda x: make("float32").init(jax.random.key(0), x, *args))(x)
    params, rest = variables.pop("params"), variables
    params = shaken(params)

    def loss(params, model):
        out = model.apply({"params": params, **rest}, x, *args, mutable=["batch_stats"])[0]
        out = jnp.stack(jax.tree.leaves(out)).astype(jnp.float32)
        return jnp.square(out + 0.5).sum()

    exact, found = (
        traverse_util.flatten_dict(jax.jit(jax.grad(loss), static_argnums=1)(params, make(dtype)))
        for dtype in ("float32", "bfloat16")
    )
    sums = {name: path for path in exact if is_sum(name := "/".join(path))}
    assert sums
    for name, path in sums.items():
        ours, right = np.ravel(found[path]), np.ravel(exact[path])
        size = np.linalg.norm(right)
        assert np.linalg.norm(ours - right) <= 0.1 * size, name  # implies a cosine over 0.99


def is_sum(name: str) -> bool:
    """Whether a parameter meets every sample as it is; BatchNorm's are in float32 throughout."""
    parent, _, last = name.rpartition("/")
    return last in SUMS and not parent.endswith("bn") and name not in NOISE
