"""The losses against their definitions: padding, chunks, and memory of a compiled one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hocslm_jax import losses, sharding


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


@pytest.fixture(scope="module")
def captions():
    rng = np.random.default_rng(0)
    hidden = rng.normal(size=(4, 10, 6)).astype(np.float32)
    head = rng.normal(size=(50, 6)).astype(np.float32)
    tokens = rng.integers(50, size=(4, 10)).astype(np.int32)
    lengths = np.array([10, 7, 1, 0])  # the last is padding
    return hidden, head, tokens, (np.arange(10) < lengths[:, None]).astype(np.float32)


def dense(hidden, head, tokens, mask):
    logits = jnp.einsum("bth,vh->btv", hidden, head)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, tokens)
    return (nll * mask).sum() / mask.sum()


@pytest.mark.parametrize("chunk", [1, 4, 10, 64])
def test_caption_loss_is_that_of_all_logits_at_once(captions, chunk):
    hidden, head, tokens, mask = captions
    ours = jax.value_and_grad(lambda h: losses.caption(h, head, tokens, mask, chunk)[0])
    theirs = jax.value_and_grad(dense)(hidden, head, tokens, mask)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), ours(hidden), theirs
    )
    _, metrics = losses.caption(hidden, head, tokens, mask, chunk)
    best = np.einsum("bth,vh->btv", hidden, head).argmax(-1)
    assert [float(v) for v in metrics["caption_top1"]] == [((best == tokens) * mask).sum(), 18]


def test_tokens_that_do_not_count_have_no_say(captions):
    hidden, head, tokens, mask = captions
    gradient = jax.grad(lambda h: losses.caption(h, head, tokens, mask, 4)[0])(hidden)
    used = np.abs(gradient).max(axis=-1) > 0
    np.testing.assert_array_equal(used, mask > 0)
    other = np.where(mask > 0, tokens, 49)
    loss = [float(losses.caption(hidden, head, t, mask, 4)[0]) for t in (tokens, other)]
    assert loss[0] == loss[1]


def test_chunks_save_memory_and_stay_on_their_device():
    """All logits never exist, and no device computes another one's, see `token_scores`."""
    mesh = sharding.make_mesh()
    rows, everywhere = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    batch, length, width, words = 16, 64, 32, 4096
    like = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    hidden = like((batch, length, width), sharding=rows)
    head = like((words, width), sharding=everywhere)
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32, sharding=rows)
    mask = like((batch, length), sharding=rows)

    def compiled(chunk):
        loss = lambda h, *rest: losses.caption(h, *rest, chunk)[0]  # noqa: E731
        return jax.jit(jax.grad(loss)).lower(hidden, head, tokens, mask).compile()

    small, whole = compiled(8), compiled(length)
    logits = batch // 8 * length * words * 4  # bytes on one device
    assert small.memory_analysis().temp_size_in_bytes < logits / 2
    assert whole.memory_analysis().temp_size_in_bytes > logits
    assert "all-gather" not in small.as_text()


def test_no_vocabulary_product_is_wider_than_hidden_states(captions):
    """In bfloat16 the gradient of the logits must not make a float32 copy of the words."""
    hidden, head, tokens, mask = (jnp.asarray(a) for a in captions)
    narrow = hidden.astype(jnp.bfloat16), head.astype(jnp.bfloat16)
    loss = lambda h, w: losses.caption(h, w, tokens, mask, 4)[0]  # noqa: E731
    both = jax.jit(jax.grad(loss, argnums=(0, 1)))
    products = [
        line for line in both.lower(*narrow).as_text().splitlines() if "dot_general" in line
    ]
    operands = [line.rpartition(" : ")[2].partition("->")[0] for line in products]
    assert len(operands) >= 3 and all("f32" not in types for types in operands)
    exact = jax.grad(loss, argnums=(0, 1))(*(a.astype(jnp.float32) for a in narrow))
    for found, wanted in zip(both(*narrow), exact, strict=True):
        wanted, found = np.asarray(wanted), np.asarray(found, np.float32)
        assert np.linalg.norm(found - wanted) < 0.02 * np.linalg.norm(wanted)


def test_smoothing_gives_every_class_its_part():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(5, 4)).astype(np.float32), np.array([0, 3, 1, 2, 2])
    mask = np.array([1, 1, 1, 1, 0], np.float32)
    target = 0.8 * np.eye(4)[label] + 0.2 / 4
    nll = -(target * np.asarray(jax.nn.log_softmax(logits))).sum(1)
    loss, metrics = losses.classification(logits, label, mask, 0.2)
    np.testing.assert_allclose(loss, nll[:4].mean(), rtol=1e-6)
    assert float(metrics["top1"][0]) == (logits[:4].argmax(1) == label[:4]).sum()


def test_mixup_blends_clips_and_their_losses_alike():
    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(6, 2, 3)).astype(np.float32), np.arange(6) % 4
    shares = []
    for seed in range(50):
        blend, mixed = losses.mixup(jax.random.key(seed), x, label, 0.4)
        share = float(mixed.share)
        np.testing.assert_allclose(blend, share * x + (1 - share) * x[::-1], rtol=1e-5, atol=1e-6)
        assert mixed.label.tolist() == label[::-1].tolist()
        shares.append(share)
    assert 0.5 <= min(shares) < 0.6 and 0.95 < max(shares) <= 1
    logits, ones = rng.normal(size=(6, 4)).astype(np.float32), np.ones(6, np.float32)
    own, other = (losses.classification(logits, y, ones, 0.1)[0] for y in (label, label[::-1]))
    loss, _ = losses.classification(logits, label, ones, 0.1, mixed)
    np.testing.assert_allclose(loss, share * own + (1 - share) * other, rtol=1e-5)


def draw_teacher(rng, shape, **settings):
    softened = jax.nn.softmax(rng.normal(size=shape).astype(np.float32) / settings["temperature"])
    return losses.Teacher(softened, **settings)


def test_a_teachers_term_is_hintons():
    """Value and gradient against PyTorch's own cross-entropy and KL divergence."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(5, 4)).astype(np.float32), np.array([0, 3, 1, 2, 2])
    mask = np.array([1, 1, 1, 1, 0], np.float32)
    teacher = draw_teacher(rng, (5, 4), temperature=3.0, share=0.7)
    ours = jax.value_and_grad(
        lambda z: losses.classification(z, label, mask, 0.1, teacher=teacher), has_aux=True
    )
    (loss, metrics), slope = ours(jnp.asarray(logits))
    functional, student = torch.nn.functional, torch.tensor(logits, requires_grad=True)
    hard = functional.cross_entropy(student[:4], torch.tensor(label[:4]), label_smoothing=0.1)
    target = torch.tensor(np.array(teacher.probabilities))[:4]
    soft = functional.log_softmax(student[:4] / 3, dim=1)
    term = 9 * functional.kl_div(soft, target, reduction="batchmean")
    theirs = 0.3 * hard + 0.7 * term
    theirs.backward()
    np.testing.assert_allclose(loss, theirs.item(), rtol=1e-5)
    np.testing.assert_allclose(slope, student.grad.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(metrics["teacher"], [4 * term.item(), 4], rtol=1e-5)


def test_mixup_blends_what_the_teacher_says():
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(6, 4)).astype(np.float32), np.arange(6) % 4
    teacher = draw_teacher(rng, (6, 4), temperature=2.0, share=1.0)
    mixed, ones = losses.Mixed(jnp.float32(0.8), label[::-1]), np.ones(6, np.float32)
    blend = 0.8 * teacher.probabilities + 0.2 * teacher.probabilities[::-1]
    loss, _ = losses.classification(logits, label, ones, 0.1, mixed, teacher)
    whole = teacher._replace(probabilities=blend)
    np.testing.assert_allclose(
        loss, losses.classification(logits, label, ones, teacher=whole)[0], rtol=1e-6
    )
    agreed = 2 * jnp.log(blend)  # a student that says what it was told
    slope = jax.grad(lambda z: losses.classification(z, label, ones, 0.1, mixed, teacher)[0])
    np.testing.assert_allclose(slope(agreed), np.zeros((6, 4)), atol=1e-6)
