"""The classification loss against its definition, with padding."""

import jax
import numpy as np

from hocslm_jax import losses


def test_classification_counts_real_clips_only():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 3)).astype(np.float32)
    label, mask = np.array([0, 2, 1, 0]), np.array([1, 1, 1, 0], np.float32)
    logits[3] = 1e4  # padding
    shares = np.exp(logits[:3]) / np.exp(logits[:3]).sum(1, keepdims=True)
    nll = -np.log(shares[np.arange(3), label[:3]])
    loss, metrics = losses.classification(logits, label, mask)
    np.testing.assert_allclose(loss, nll.mean(), rtol=1e-6)
    assert [float(v) for v in metrics["top1"]] == [(logits[:3].argmax(1) == label[:3]).sum(), 3]
    np.testing.assert_allclose(metrics["loss"], [nll.sum(), 3], rtol=1e-6)
    gradient = jax.grad(lambda z: losses.classification(z, label, mask)[0])(logits)
    assert (np.asarray(gradient[3]) == 0).all() and (np.abs(gradient[:3]) > 0).any()


def test_a_batch_of_padding_has_no_loss():
    loss, metrics = losses.classification(np.ones((2, 3)), np.zeros(2, int), np.zeros(2))
    assert float(loss) == 0 and float(metrics["loss"][1]) == 0
