"""A skeleton of four joints, a small HGLNet, and parameters with nonzero gates."""

import dataclasses

import jax
import numpy as np

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


def shaken(params, seed=7):
    """The same tree with noise on every leaf, so that no gate is zero."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: np.asarray(p) + np.float32(0.3) * rng.standard_normal(p.shape, np.float32), params
    )
