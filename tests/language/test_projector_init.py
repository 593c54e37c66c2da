"""The least-squares start of the projector, on made-up features and captions."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hocslm_jax.language.align import fitted, word_targets
from hocslm_jax.models import Projector
from hocslm_jax.sharding import make_mesh

RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(9, 6)).astype(np.float32)
LANGUAGE = SimpleNamespace(params={"embed": {"embedding": jnp.asarray(TABLE)}})
EOS = 8
CAPTIONS = SimpleNamespace(
    tokens=np.array([[0, 1, EOS, 0], [2, EOS, 0, 0], [3, 4, 5, EOS]], np.int32),
    lengths=np.array([3, 2, 4]),
    start=np.array([0, 2, 0]),
    count=np.array([2, 1, 2]),
)


def targets(rows):
    mesh = make_mesh(devices=jax.devices()[:1])
    return word_targets(LANGUAGE, CAPTIONS, np.array(rows), mesh)


def test_a_target_is_the_mean_of_the_words_that_set_a_clip_apart():
    first = (TABLE[[0, 1]].mean(axis=0) + TABLE[2]) / 2  # two sentences, without EOS
    second = TABLE[[3, 4, 5]].mean(axis=0)
    apart = (first - second) / 2
    wanted = np.stack([apart, -apart]) / np.sqrt(np.square(apart).mean())
    np.testing.assert_allclose(targets([0, 1]), wanted, rtol=1e-5)


def test_clips_with_the_same_captions_have_no_target():
    assert not targets([0, 2]).any()


@pytest.mark.parametrize("offset", [0, 30])
def test_tokens_point_at_their_targets(offset):
    """Also where all features share a large mean, and some hardly vary."""
    labels = RNG.integers(3, size=200)
    wanted = RNG.normal(size=(3, 12))[labels]
    spread = np.array([1, 1, 5, 1e-3, 0])
    centres = RNG.normal(size=(3, 5)) * spread
    inputs = centres[labels] + 0.1 * RNG.normal(size=(200, 5)) * spread + offset
    projector = Projector(12, 32, gain=0.05)
    random = projector.init(jax.random.key(0), inputs[:1])["params"]

    def agreement(params):
        tokens = projector.apply({"params": params}, inputs.astype(np.float32))
        aims = wanted - wanted.mean(axis=1, keepdims=True)  # as LayerNorm centres them
        aims /= np.sqrt(np.square(aims).mean(axis=1, keepdims=True))
        return float((np.asarray(tokens) / 0.05 * aims).mean())

    params = fitted(inputs.astype(np.float32), wanted, random)
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, random)
    assert agreement(params) > 0.9 > 0.5 > abs(agreement(random))
