"""The joint step gives the numbers of one device in any layout; all layouts share checkpoints."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run

from hocslm_jax import sharding
from hocslm_jax.graph import NTU25
from hocslm_jax.language.describe import log_likelihoods
from hocslm_jax.models import FusionConfig, build_model, packing
from hocslm_jax.models.hocslm import METERS
from hocslm_jax.models.lm import DecoderLM, LMConfig, init_cache, init_params
from hocslm_jax.plan.costs import read_costs
from hocslm_jax.train import checkpoint, jitted, state, step
from hocslm_jax.train.stages import Stage

LM = LMConfig(64, 32, 64, 2, 4, 4, 8)
FUSION = FusionConfig(LM.hidden_size, prompt_length=3, width=64)
WEIGHTS = {"cls": 1.0, "gen": 0.5}
CLIP, BATCH, STEPS = (1, 4, 20, 3), 16, 3
# data, model, FSDP of what trains and of the language model
LAYOUTS = {
    "fsdp": (8, 1, True),
    "tensor": (2, 4, False),
    "both": (4, 2, True),
}


@pytest.fixture(scope="module", autouse=True)
def small_leaves_are_split_too():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "WHOLE_BELOW", 2)
        yield


class Joint:
    """The step of T3 on a mesh, with a stand-in for the encoder and a random language model."""

    def __init__(self, data: int, model: int, fsdp: bool, packed: bool = False):
        self.mesh = sharding.make_mesh(data, model, jax.devices()[: data * model])
        network = tiny_run.TinyHocSLM(None, tiny_run.CLASSES, FUSION)
        tx = optax.sgd(0.1, 0.9, nesterov=True)
        init = state.make_init(network, tx, CLIP, ema=False)
        abstract = jax.eval_shape(init, jax.random.key(0), {})
        placed = sharding.tree_shardings(abstract, self.mesh, sharding.state_rules(fsdp))
        self.abstract = sharding.abstract(abstract, placed)
        params = init_params(LM, jax.random.key(1))
        self.placed = sharding.tree_shardings(params, self.mesh, sharding.lm_rules(fsdp))
        self.lm = jax.device_put(params, self.placed)
        language = types.SimpleNamespace(model=DecoderLM(LM, "float32"), params=self.lm)
        lm, place = jitted.gathering(language), sharding.place_rows(self.mesh)
        grid = packing.Grid(data, 1, 13 * BATCH // data) if packed else None
        objective = step.describe(network, lm, WEIGHTS, chunk=4, grid=grid, place=place)
        update = step.make_train_step(objective, tx, meters=METERS)
        self.update = jitted.jit_step(update, placed, self.mesh, language)
        self.init = lambda: jax.jit(init, out_shardings=placed)(jax.random.key(2), {})

    def go(self, now, steps):
        """(state, [{metric: (sum, count)}]) after more steps, each with a batch of its number."""
        rows, metrics = sharding.batch_sharding(self.mesh), []
        for _ in range(steps):
            batch = sharding.shard_batch(rows, make_batch(int(now.step)), BATCH)
            now, values, finite = self.update(now, {"lm": self.lm}, batch)
            assert finite
            metrics.append(jax.device_get(values))
        return now, metrics


def make_batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(BATCH, *CLIP)).astype(np.float32),
        "label": rng.integers(tiny_run.CLASSES, size=BATCH).astype(np.int32),
        "mask": (np.arange(BATCH) < BATCH - 1).astype(np.float32),
        "tokens": rng.integers(LM.vocab_size, size=(BATCH, 10)).astype(np.int32),
        "lengths": rng.integers(1, 11, size=BATCH).astype(np.int32),
    }


def plain(now):
    return jax.tree.map(np.asarray, now.replace(rng=jax.random.key_data(now.rng)))


def close(one, other, rtol=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), one, other)


@pytest.fixture(scope="module")
def whole():
    """The run of one device: final state and metrics."""
    joint = Joint(1, 1, False)
    now, metrics = joint.go(joint.init(), STEPS)
    return plain(now), metrics


@pytest.fixture(scope="module")
def split():
    """The states of all layouts after the same steps."""
    joints = {name: Joint(*layout) for name, layout in LAYOUTS.items()}
    return {name: (joint, *joint.go(joint.init(), STEPS)) for name, joint in joints.items()}


@pytest.mark.parametrize("name", LAYOUTS)
def test_losses_gradients_and_weights_equal_those_of_one_device(name, split, whole):
    """SGD's momentum is a sum of the gradients."""
    _, now, metrics = split[name]
    norms = {"grad_norm", "grad_norm_cls", "grad_norm_gen"}
    assert {"loss", "caption_loss"} | norms <= set(metrics[0])
    close(metrics, whole[1])
    close(plain(now), whole[0])


def test_losses_are_measured_where_both_meet_at_a_trained_feature():
    assert Stage(losses=("gen", "cls")).meters == METERS
    apart = {"train": ("projector",)}, {"losses": ("gen",)}, {"classify_on": "visual"}
    for settings in apart:
        assert Stage(**{"losses": METERS} | settings).meters == ()


def test_each_loss_has_the_norm_of_its_own_gradient_at_the_feature():
    network = tiny_run.TinyHocSLM(None, tiny_run.CLASSES, FUSION)
    x = make_batch(0)["x"]
    variables = network.init(jax.random.key(0), x, False)

    def total(meters, gen):
        logits, prefix = network.apply(variables | {"meters": meters}, x, False)
        return (logits**2).sum() / 2 + gen * (prefix[:, 0] ** 3).sum()

    zeros = dict.fromkeys(METERS, jnp.float32(0))
    once, twice = (jax.tree.map(float, jax.grad(total)(zeros, gen)) for gen in (1.0, 2.0))
    logits = network.apply(variables, x, False)[0]
    slope = logits @ variables["params"]["classifier"]["kernel"].T
    assert once["cls"] == twice["cls"] == pytest.approx(float((slope**2).sum()), rel=1e-5)
    assert twice["gen"] == pytest.approx(4 * once["gen"], rel=1e-5) and once["gen"] > 0
    assert total(zeros, 1.0) == total({"cls": 1.0, "gen": 2.0}, 1.0)


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_device_keeps_its_share(name, split):
    data, model, fsdp = LAYOUTS[name]
    joint, now, _ = split[name]
    shares = lambda tree: {  # noqa: E731
        sharding.path_name(path): leaf.size // leaf.addressable_shards[0].data.size
        for path, leaf in jax.tree.leaves_with_path(tree)
    }
    trained, frozen = shares({"params": now.params, "opt_state": now.opt_state}), shares(joint.lm)
    ways = model * (data if fsdp else 1)
    kernels = {path: share for path, share in trained.items() if "projector/up/kernel" in path}
    assert len(kernels) == 2 and set(kernels.values()) == {ways}  # the parameter and its momentum
    assert trained["params/encoder/Dense_0/kernel"] == (data if fsdp else 1)
    assert trained["params/prompt"] == 1
    assert frozen["blocks/q/kernel"] == frozen["embed/embedding"] == ways


def collectives(joint):
    """Bytes by kind, of one step on one device."""
    batch = sharding.shard_batch(sharding.batch_sharding(joint.mesh), make_batch(0), BATCH)
    step = joint.update.lower(joint.abstract, {"lm": joint.lm}, batch).compile()
    return read_costs(step.as_text(), joint.mesh.size).collectives


def test_fsdp_gathers_weights_and_moves_no_activations(split):
    """In the loops over layers and over pieces of the caption; a layer's twice, a head's never."""
    layers = sum(leaf.nbytes for leaf in jax.tree.leaves(split["fsdp"][0].lm["blocks"]))
    norms = LM.num_layers * 4 * (2 * LM.hidden_size + 2 * LM.head_dim)  # not split
    found = {name: collectives(joint) for name, (joint, *_) in split.items()}
    in_loops = lambda name, kind: getattr(found[name].get(kind), "in_loops", 0)  # noqa: E731
    for name in ("fsdp", "both"):
        model = LAYOUTS[name][1]
        assert in_loops(name, "all-gather") == 2 * (layers - norms) / model
        assert not in_loops(name, "all-to-all") and not in_loops(name, "collective-permute")
    assert not in_loops("fsdp", "all-reduce")
    # Tensor parallelism sums activations of the clips of a replica.
    clips = {name: BATCH // LAYOUTS[name][0] for name in ("both", "tensor")}
    a_clip = {name: in_loops(name, "all-reduce") / count for name, count in clips.items()}
    assert a_clip["both"] == pytest.approx(a_clip["tensor"], rel=0.02)


def test_likelihoods_gather_the_weights_too(split):
    joint = split["fsdp"][0]
    rng = np.random.default_rng(0)
    prefix = rng.normal(size=(BATCH, 4, LM.hidden_size)).astype(np.float32)
    sentences = rng.integers(LM.vocab_size, size=(3, 10)), np.array([10, 7, 1])
    language = types.SimpleNamespace(model=DecoderLM(LM, "float32"), params=joint.lm)
    score = jitted.make_likelihoods(language)
    placed = jax.device_put(prefix, sharding.batch_sharding(joint.mesh))
    alone = log_likelihoods(language.model, jax.device_get(joint.lm), prefix, *sentences)
    np.testing.assert_allclose(score(placed, *sentences), alone, rtol=1e-4)
    text = score.func.lower(joint.lm, placed, *sentences).compile().as_text()
    assert set(read_costs(text, joint.mesh.size).collectives) == {"all-gather"}


def test_weights_are_also_gathered_for_packed_examples(whole):
    joint = Joint(2, 2, True, packed=True)
    _, (metrics,) = joint.go(joint.init(), 1)
    assert metrics.pop("packed") == (1, 1)
    close(metrics, whole[1][0])


def test_decoding_is_the_same_with_gathered_layers(split):
    joint = split["both"][0]
    plain = DecoderLM(LM, "float32")
    gathering = plain.clone(gather=sharding.gather_layer(joint.placed["blocks"]))
    read = jax.random.normal(jax.random.key(3), (BATCH, 5, LM.hidden_size))
    cache, start = init_cache(LM, BATCH, 8, "float32"), jnp.arange(BATCH) % 3

    def decode(lm):
        step = jax.jit(
            lambda params: lm.apply({"params": params}, read, cache, start, method="decode")
        )
        return jax.device_get(step(joint.lm))

    close(decode(gathering), decode(plain))


def test_checkpoint_resumes_on_any_mesh(split, whole, tmp_path):
    joint, now, _ = split["both"]
    with checkpoint.open_manager(tmp_path) as manager:
        checkpoint.save(manager, STEPS, now, {})
    _, wanted = joint.go(now, 1)
    others = {name: split[name][0] for name in ("fsdp", "tensor")}
    for other in (*others.values(), Joint(1, 1, False)):
        with checkpoint.open_manager(tmp_path) as manager:
            restored = checkpoint.restore(manager, other.abstract)
        placed = jax.tree.map(lambda a: a.sharding, other.abstract)
        assert jax.tree.map(lambda a: a.sharding, restored) == placed
        close(plain(restored), whole[0])
        close(other.go(restored, 1)[1], wanted, rtol=1e-5)


def test_fsdp_splits_nearly_all_of_a_real_model(monkeypatch):
    monkeypatch.setattr(sharding, "WHOLE_BELOW", 2**14)
    settings = tiny_run.make_config({"model.encoder": "ctrgcn"}).model
    network = build_model(settings, graph=NTU25, num_classes=60, fusion=FusionConfig(2560, 8))
    init = lambda key: network.init(key, jnp.zeros((1, 2, 64, 25, 3)), train=False)  # noqa: E731
    shapes = jax.eval_shape(init, jax.random.key(0))["params"]
    mesh = sharding.make_mesh(4, 2)
    placed = sharding.tree_shardings(shapes, mesh, sharding.state_rules(True))
    sizes = jax.tree.map(
        lambda a, s: np.array([a.size, np.prod(s.shard_shape(a.shape))]), shapes, placed
    )
    total, share = sum(jax.tree.leaves(sizes))
    assert share < 0.26 * total
