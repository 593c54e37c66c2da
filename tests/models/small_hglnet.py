"""A skeleton of four joints, a small HGLNet, and parameters with nonzero gates."""

import dataclasses

import jax

from hocslm_jax.graph import Graph
from hocslm_jax.models import HGLNET

CHAIN = Graph("chain", ("a", "b", "c", "d"), ((0, 1), (2, 1), (3, 2)), 1)
SMALL = dataclasses.replace(HGLNET, width=8, stages=(1, 1))
ROWS = {  # the rows of the paper's Tables 4 and 5
    "baseline": {"spatial": "ctrgc", "temporal": "ltc"},
    "baseline+CTS": {"temporal": "ltc"},
    "baseline+DHT": {"spatial": "ctrgc"},
    "only local": {"gsm": False, "gta": False},
    "without GSM": {"gsm": False},
    "without GTA": {"gta": False},
    "only global": {"lse": False, "ltc": False},
    "HGLNet": {},
}


def shaken(params, key=7):
    """The same tree with noise on every leaf, so that no gate is zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(key), len(leaves))
    noisy = [p + 0.3 * jax.random.normal(k, p.shape) for p, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)
