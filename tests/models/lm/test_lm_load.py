"""Checkpoint files of Qwen3: written, read, sharded over devices, and refused when wrong."""

import dataclasses
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hocslm_jax.errors import UserError
from hocslm_jax.models.lm import (
    LM_RULES,
    DecoderLM,
    LMConfig,
    load_params,
    param_shapes,
    read_config,
    save_params,
)
from hocslm_jax.models.lm import load as load_module
from hocslm_jax.sharding import P, make_mesh, tree_shardings

UNTIED = LMConfig(24, 16, 12, 2, 4, 2, 6, tie_embeddings=False, max_positions=32)
TIED = LMConfig(24, 16, 12, 3, 4, 4, 6, tie_embeddings=True, max_positions=32)
QWEN2 = dataclasses.replace(UNTIED, family="qwen2")
LLAMA = dataclasses.replace(TIED, family="llama")


def random_params(config, dtype="float32"):
    """Every number different from its neighbours, norm scales too."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), dtype), param_shapes(config)
    )


def assert_same(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert jax.tree.map(lambda x: x.dtype, got) == jax.tree.map(lambda x: x.dtype, want)


def files(folder):
    return sorted(path.name for path in folder.glob("*.safetensors"))


@pytest.mark.parametrize("config", [UNTIED, TIED, QWEN2, LLAMA], ids=lambda c: c.family)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_what_is_saved_loads_bit_for_bit(config, dtype, tmp_path):
    params = random_params(config, dtype)
    save_params(params, config, tmp_path / "one")
    save_params(params, config, tmp_path / "many", max_shard_bytes=2000)
    assert files(tmp_path / "one") == ["model.safetensors"]
    assert len(files(tmp_path / "many")) > 3
    for folder in (tmp_path / "one", tmp_path / "many"):
        assert read_config(folder) == config
        assert_same(load_params(folder, config), params)


def test_saving_again_leaves_no_stale_index(tmp_path):
    save_params(random_params(UNTIED), UNTIED, tmp_path, max_shard_bytes=2000)
    params = random_params(TIED, "bfloat16")
    save_params(params, TIED, tmp_path)
    assert_same(load_params(tmp_path, TIED), params)


@pytest.mark.parametrize(("config", "limit"), [(UNTIED, 3000), (TIED, 10**9)])
def test_transformers_reads_what_is_saved(config, limit, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    params = random_params(config)
    save_params(params, config, tmp_path, max_shard_bytes=limit)
    reference, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(report.values()), report
    tokens = np.arange(10).reshape(2, 5)
    with torch.no_grad():
        want = reference(torch.tensor(tokens)).logits.numpy()
    model = DecoderLM(config, "float32")
    embeddings = model.apply({"params": params}, tokens, method="embed")
    hidden = model.apply({"params": params}, embeddings)
    got = model.apply({"params": params}, hidden, method="logits")
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max(), rtol=0)


def test_numbers_are_cast_while_reading(tmp_path):
    params = random_params(UNTIED)
    save_params(params, UNTIED, tmp_path)
    narrow = load_params(tmp_path, UNTIED, dtype="bfloat16")
    assert_same(narrow, jax.tree.map(lambda x: x.astype("bfloat16"), params))


@pytest.mark.parametrize("limit", [10**9, 2000], ids=["one file", "sharded"])
def test_wrong_tensors_are_in_one_line(limit, tmp_path):
    save_params(random_params(UNTIED), UNTIED, tmp_path, max_shard_bytes=limit)
    changes = {
        "model.layers.0.mlp.up_proj.weight": None,
        "lm_head.weight": None,
        "model.layers.1.self_attn.o_proj.weight": np.zeros((24, 16), np.float32),  # transposed
        "model.layers.1.input_layernorm.weight": np.zeros(16, np.int8),
    }
    for name in files(tmp_path):
        tensors = load_file(tmp_path / name)
        for key in changes.keys() & tensors.keys():
            del tensors[key]
            if changes[key] is not None:
                tensors[key] = changes[key]
        if name == files(tmp_path)[-1]:
            tensors["model.layers.2.mlp.up_proj.weight"] = np.zeros((1, 1), np.float32)
        save_file(tensors, tmp_path / name)
    with pytest.raises(UserError) as caught:
        load_params(tmp_path, UNTIED)
    message = str(caught.value)
    assert "5 tensors" in message and "missing lm_head.weight" in message
    assert "2 more" in message and "\n" not in message


@pytest.mark.parametrize("limit", [10**9, 2000], ids=["one file", "sharded"])
@pytest.mark.parametrize("damage", ["cut", "no header", "absent", "index"])
def test_damaged_files_are_named(damage, limit, tmp_path):
    save_params(random_params(UNTIED), UNTIED, tmp_path, max_shard_bytes=limit)
    victim = tmp_path / files(tmp_path)[-1]
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:-7])
    elif damage == "no header":
        victim.write_bytes(b"version https://example\n" * 20)
    elif damage == "absent":
        victim.unlink()
    else:
        victim = tmp_path / "model.safetensors.index.json"
        victim.write_text('{"weight_map": ')
    with pytest.raises(UserError) as caught:
        load_params(tmp_path, UNTIED)
    message = str(caught.value)
    assert victim.name in message and "again" in message and "\n" not in message


@pytest.mark.parametrize("config", [UNTIED, QWEN2], ids=lambda config: config.family)
def test_eight_devices_hold_their_shards_only(config, tmp_path):
    params = random_params(config)
    save_params(params, config, tmp_path, max_shard_bytes=4000)
    mesh = make_mesh(data=4, model=2)
    rules = (*LM_RULES, (r".*", P()))
    shardings = tree_shardings(params, mesh, rules)
    sharded = load_params(tmp_path, config, shardings)
    assert_same(sharded, params)
    split = {name for name, leaf in leaves(sharded) if not leaf.sharding.is_fully_replicated}
    assert split == {name for name, leaf in leaves(params) if leaf.ndim > 1 and "norm" not in name}
    for (_, leaf), (_, want) in zip(leaves(sharded), leaves(shardings), strict=True):
        assert leaf.sharding == want
        for shard in leaf.addressable_shards:
            assert shard.data.shape == want.shard_shape(leaf.shape)
    save_params(sharded, config, tmp_path / "again")
    assert_same(load_params(tmp_path / "again", config), params)


def test_any_axis_can_be_split(tmp_path):
    params = random_params(UNTIED)
    save_params(params, UNTIED, tmp_path)
    mesh = make_mesh(data=4, model=2)

    def last_axis(path, leaf):
        del path
        spec = P(*[None] * (leaf.ndim - 1), "model")  # also splits heads
        return jax.sharding.NamedSharding(mesh, spec)

    assert_same(load_params(tmp_path, UNTIED, jax.tree.map_with_path(last_axis, params)), params)
    one = jax.sharding.NamedSharding(mesh, P())
    assert_same(load_params(tmp_path, UNTIED, one), params)


def leaves(tree):
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]


def test_the_host_holds_one_stacked_shard_at_a_time(tmp_path, monkeypatch):
    config = LMConfig(256, 128, 2048, 8, 8, 8, 16, max_positions=32)
    params = random_params(config)
    save_params(params, config, tmp_path)
    shardings = tree_shardings(params, make_mesh(data=4, model=2), (*LM_RULES, (r".*", P())))
    put, blocks = jax.device_put, []

    def off_the_host(block, device):
        """As on an accelerator: a CPU device would keep the host's array instead of a copy."""
        blocks.append(block.nbytes)
        return jnp.copy(put(block, device))

    monkeypatch.setattr(load_module.jax, "device_put", off_the_host)
    load_params(tmp_path, config, shardings)  # compiles the copies, which also needs memory
    tracemalloc.start()
    sharded = load_params(tmp_path, config, shardings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    shard = max(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(sharded))
    assert max(blocks) == shard == params["blocks"]["up"]["kernel"].nbytes // 8
    print(f"peak {peak / 1e6:.2f} MB, stacked shard {shard / 1e6:.2f}, model {whole / 1e6:.1f}")
    assert peak < 1.6 * shard < whole / 10


def test_a_replicated_parameter_is_read_once(tmp_path, monkeypatch):
    params = random_params(TIED)
    save_params(params, TIED, tmp_path)
    reads, read_one = [], load_module._read_one

    def counted(*arguments):
        block = read_one(*arguments)
        reads.append(block.nbytes)
        return block

    monkeypatch.setattr(load_module, "_read_one", counted)
    mesh = make_mesh(data=4, model=2)
    load_params(tmp_path, TIED, jax.sharding.NamedSharding(mesh, P()))
    assert sum(reads) == sum(leaf.nbytes for leaf in jax.tree.leaves(params))


def rewritten(folder, change):
    """Rewrites the only weight file with its tensors changed by `change`."""
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("prefix", "head"),
    [("", ""), ("model.language_model.", ""), ("language_model.model.", "language_model.")],
)
@pytest.mark.parametrize("config", [UNTIED, TIED], ids=["untied", "tied"])
def test_other_prefixes_and_ignored_tensors(config, prefix, head, tmp_path):
    params = random_params(config)
    save_params(params, config, tmp_path)

    def renamed(tensors):
        found = {
            name.replace("model.", prefix) if name.startswith("model.") else head + name: tensor
            for name, tensor in tensors.items()
        }
        ignored = ("model.visual.blocks.0.norm1.bias", "layers.0.self_attn.rotary_emb.inv_freq")
        return found | dict.fromkeys(ignored, np.zeros(3, np.float32))

    rewritten(tmp_path, renamed)
    assert_same(load_params(tmp_path, read_config(tmp_path)), params)


def test_unknown_tensor_names_give_one_short_line(tmp_path):
    save_params(random_params(UNTIED), UNTIED, tmp_path)
    rewritten(tmp_path, lambda tensors: {f"transformer.{n}": t for n, t in tensors.items()})
    with pytest.raises(
        UserError, match="holds no language model: none of its 25 tensors"
    ) as caught:
        load_params(tmp_path, UNTIED)
    assert "and 22 more" in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_non_finite_weights_are_refused(value, dtype, tmp_path):
    params = random_params(TIED, dtype)
    save_params(params, TIED, tmp_path)

    def broken(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][-1, -1] = value
        return tensors

    rewritten(tmp_path, broken)
    with pytest.raises(UserError, match=r"layers\.1\.mlp\.up_proj\.weight has values that are NaN"):
        load_params(tmp_path, TIED, dtype="bfloat16")


def test_tied_config_with_another_head_matches_transformers(tmp_path):
    torch, transformers = map(pytest.importorskip, ("torch", "transformers"))
    params = random_params(TIED)
    save_params(params, TIED, tmp_path)
    rng = np.random.default_rng(1)
    head = rng.normal(size=(24, 16)).astype(np.float32)
    rewritten(tmp_path, lambda tensors: tensors | {"lm_head.weight": head})
    config = read_config(tmp_path)
    got = load_params(tmp_path, config)
    assert not config.tie_embeddings
    np.testing.assert_array_equal(got["lm_head"]["kernel"], head.T)
    np.testing.assert_array_equal(got["embed"]["embedding"], params["embed"]["embedding"])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(theirs.lm_head.weight, torch.tensor(head))


@pytest.mark.parametrize("keep", [True, False], ids=["both", "head alone"])
def test_a_tied_checkpoint_may_store_the_head(keep, tmp_path):
    params, name = random_params(TIED), "model.embed_tokens.weight"
    save_params(params, TIED, tmp_path)
    rewritten(tmp_path, lambda t: t | {"lm_head.weight": t[name].copy() if keep else t.pop(name)})
    assert_same(load_params(tmp_path, read_config(tmp_path)), params)
