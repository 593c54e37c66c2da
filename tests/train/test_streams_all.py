"""Several streams in one program equal separate runs, including their files."""

import functools
import json

import jax
import numpy as np
import pytest
import tiny_run

from hocslm_jax import sharding
from hocslm_jax.data.streams import PAPER_STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ensemble import fuse
from hocslm_jax.evaluate.score_files import read_members
from hocslm_jax.evaluate.scores import load_scores
from hocslm_jax.predict.load_model import load_run
from hocslm_jax.train import checkpoint, experiment, loop, same_config

STREAMS = ("joint", "bone_motion")
# All random augmentation is on: the streams must share each draw.
CHANGES = {
    "data.drop_axis": 0.5,
    "data.drop_joints": 0.5,
    "model.dropout": 0.5,
    "optim.ema": 0.9,
    "optim.clip_norm": 1.0,
    "train.log_every": 1,
}
TOGETHER = CHANGES | {"data.streams": STREAMS}


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir, key="train/loss"):
    return [line[key] for line in metrics(workdir) if key in line]


def state_of(workdir, changes):
    run = tiny_run.make_run(workdir, changes)
    with checkpoint.open_manager(workdir) as manager:
        state = checkpoint.restore(manager, run.abstract_state)
    return jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng)))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    assert loop.train(tiny_run.make_run(folder, TOGETHER)).finished
    return folder


@pytest.mark.parametrize("stream", STREAMS)
def test_each_stream_equals_its_separate_run(together, tmp_path, stream):
    alone, own = CHANGES | {"data.stream": stream}, together / stream
    assert loop.train(tiny_run.make_run(tmp_path, alone)).finished
    np.testing.assert_allclose(
        losses(together, f"train/loss/{stream}"), losses(tmp_path), rtol=1e-5
    )
    same = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(same, state_of(own, alone), state_of(tmp_path, alone))
    # the folder is equivalent to that of the separate run
    here, there = ({path.name for path in folder.iterdir()} for folder in (own, tmp_path))
    assert here - {"tensorboard"} == there - {"tensorboard"}
    first, second = (load_scores(folder / "scores.npz") for folder in (own, tmp_path))
    assert first.ids == second.ids
    np.testing.assert_allclose(first.logits, second.logits, rtol=1e-4, atol=1e-5)
    results = [json.loads((folder / "result.json").read_text()) for folder in (own, tmp_path)]
    assert results[0].pop("trained_beside") == [name for name in STREAMS if name != stream]
    assert results[0].keys() == results[1].keys()
    for key in ("stream", "correct", "total", "best_correct", "best_epoch", "steps", "seed"):
        assert results[0][key] == results[1][key]
    assert [line.keys() for line in metrics(own)] == [line.keys() for line in metrics(tmp_path)]
    np.testing.assert_allclose(losses(own), losses(tmp_path), rtol=1e-5)
    models = [json.loads((folder / "model.json").read_text()) for folder in (own, tmp_path)]
    assert models[0] | {"train_step_flops": 0} == models[1] | {"train_step_flops": 0}


def test_stream_folder_resumes_and_is_evaluated_alone(together):
    alone = CHANGES | {"data.stream": "joint"}
    before = load_scores(together / "joint" / "scores.npz")
    assert loop.evaluate(tiny_run.make_run(together / "joint", alone)) == 0
    after = load_scores(together / "joint" / "scores.npz")
    np.testing.assert_allclose(after.logits, before.logits, rtol=1e-5, atol=1e-6)
    assert loop.train(tiny_run.make_run(together / "joint", alone)).finished  # already finished


def test_stream_folder_predicts_and_workdir_lists_streams(together):
    store = tiny_run.TinyStore()
    loaded = load_run(together / "bone_motion", build=tiny_run.build)
    said = loaded.predict([store.joints(row) for row in store.rows("", "test")])
    scores = load_scores(together / "bone_motion" / "scores.npz")
    assert [p.name for p in said] == [store.classes[label] for label in scores.predictions]
    with pytest.raises(UserError, match=r"several streams: give one, e\.g\. .*/joint"):
        load_run(together, build=tiny_run.build)


def test_the_workdir_has_a_summary(together):
    result = json.loads((together / "result.json").read_text())
    assert result["stream"] == "joint+bone_motion" and tuple(result["streams"]) == STREAMS
    for stream, counts in result["streams"].items():
        own = json.loads((together / stream / "result.json").read_text())
        assert counts == {key: own[key] for key in counts}
    members = read_members([str(together)])
    assert tuple(member.stream for member in members) == STREAMS
    assert result["correct"] == fuse(members, [1, 1]).correct
    assert result["total"] == 16 and not (together / "scores.npz").exists()
    lines = [line for line in metrics(together) if "eval/top1" in line]
    assert lines[-1]["eval/correct/joint"] == result["streams"]["joint"]["correct"]
    mean = np.mean([losses(together, f"train/loss/{stream}") for stream in STREAMS], axis=0)
    np.testing.assert_allclose(losses(together), mean, rtol=1e-6)


def test_evaluation_writes_the_report_of_each_stream(together, capsys):
    kept = load_scores(together / "bone_motion" / "scores.npz")
    (together / "bone_motion" / "scores.npz").unlink()
    assert loop.evaluate(tiny_run.make_run(together, TOGETHER)) == 0
    again = load_scores(together / "bone_motion" / "scores.npz")
    np.testing.assert_allclose(again.logits, kept.logits, rtol=1e-5, atol=1e-6)
    assert "together" in capsys.readouterr().out


def test_an_interrupted_run_is_bit_identical(together, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "must_stop", lambda self, step: step == 5)
        assert loop.train(tiny_run.make_run(tmp_path, TOGETHER)).stopped
    assert not (tmp_path / "joint").exists()
    assert loop.train(tiny_run.make_run(tmp_path, TOGETHER)).finished
    for workdir, changes in ((".", TOGETHER), ("joint", CHANGES | {"data.stream": "joint"})):
        states = (state_of(folder / workdir, changes) for folder in (together, tmp_path))
        jax.tree.map(np.testing.assert_array_equal, *states)
    for key in ("train/loss/joint", "train/grad_norm/bone_motion", "eval/correct/joint"):
        assert losses(together, key) == losses(tmp_path, key)
    whole, broken = (json.loads((f / "result.json").read_text()) for f in (together, tmp_path))
    assert whole["streams"] == broken["streams"]


def test_one_device_and_a_stream_axis_give_the_same(together, tmp_path, monkeypatch):
    changes = TOGETHER | {"mesh.stream": 2}
    run = tiny_run.make_run(tmp_path / "split", changes)
    assert run.mesh.shape == {"stream": 2, "data": 4, "model": 1}
    loop.train(run)
    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one)
    loop.train(tiny_run.make_run(tmp_path / "one", TOGETHER))
    for other in ("split", "one"):
        for stream in STREAMS:
            key = f"train/loss/{stream}"
            got = losses(tmp_path / other, key)
            np.testing.assert_allclose(got, losses(together, key), rtol=1e-5)
        counts = [json.loads((f / "result.json").read_text()) for f in (together, tmp_path / other)]
        assert counts[0]["streams"] == counts[1]["streams"]


def test_stream_axis_splits_streams_over_devices(tmp_path):
    run = tiny_run.make_run(tmp_path, TOGETHER | {"mesh.stream": 2})
    state = run.init(jax.random.key(0), {})
    kernel = jax.tree.leaves(state.params)[0]
    assert {shard.data.shape[0] for shard in kernel.addressable_shards} == {1}
    x = np.zeros((8, *run.input_shape), np.float32)
    assert run.put({"x": x})["x"].addressable_shards[0].data.shape[:2] == (2, 1)


def test_a_stream_that_is_not_finite_is_named(tmp_path, monkeypatch):
    run = tiny_run.make_run(tmp_path, TOGETHER)
    put = run.put

    def spoiled(_, batch):
        x = batch["x"].copy()
        x[:, STREAMS.index("bone_motion")] = np.inf
        return put(batch | {"x": x})

    monkeypatch.setattr(type(run), "put", spoiled)
    with pytest.raises(UserError, match="gradient of bone_motion is not finite at step 1"):
        loop.train(run)


def test_the_real_encoder_learns_the_same_separately_and_together(tmp_path, monkeypatch):
    """Three updates; the formulations that are fast on a CPU have gradients of their own."""
    one = functools.partial(sharding.make_mesh, devices=jax.devices()[:1])
    monkeypatch.setattr(sharding, "make_mesh", one)  # compiles faster
    small = {
        "model.encoder": "ctrgcn",
        "model.stages": (1,),
        "data.frames": 4,
        "train.batch_size": 4,
    }
    alone = CHANGES | tiny_run.HGLNET | small
    both = tiny_run.make_run(tmp_path, alone | {"data.streams": STREAMS})
    one = tiny_run.make_run(tmp_path, alone | {"data.stream": STREAMS[1]})
    states = [run.init(jax.random.key(7), {}) for run in (both, one)]
    first = jax.tree.map(lambda a: np.asarray(a)[1], states[0].params)
    jax.tree.map(np.testing.assert_array_equal, first, jax.tree.map(np.asarray, states[1].params))
    iterators = [run.train_iterator() for run in (both, one)]
    for _ in range(3):
        batches = [next(iterator) for iterator in iterators]
        np.testing.assert_array_equal(batches[0]["x"][:, 1], batches[1]["x"])
        steps = [
            run.train_step(state, {}, run.put(batch))
            for run, state, batch in zip((both, one), states, batches, strict=True)
        ]
        states = [state for state, _, _ in steps]
        loss = [np.asarray(metrics["loss"][0]) for _, metrics, _ in steps]
        np.testing.assert_allclose(loss[0][1], loss[1], rtol=1e-5)
    for iterator in iterators:
        iterator.close()
    same = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5)
    for part in ("params", "batch_stats", "ema"):
        trees = [getattr(state, part) for state in states]
        jax.tree.map(lambda a, b: same(np.asarray(a)[1], b), *trees)


def test_later_stages_start_each_stream_from_its_own_weights(tmp_path):
    """T0+ continues from the weights of its first stage, stream by stream."""
    changes = {"data.streams": STREAMS, "finetune.epochs": 1, "finetune.lr": 1e-9}
    assert tiny_run.train_strategy(tmp_path, "T0+", changes) == 0
    first, second = (
        json.loads((folder / "result.json").read_text())["streams"]
        for folder in (tmp_path / "stages" / "1", tmp_path)
    )
    assert {name: found["correct"] for name, found in first.items()} == {
        name: found["correct"] for name, found in second.items()
    }
    assert len({load_scores(tmp_path / name / "scores.npz").logits.sum() for name in STREAMS}) == 2


def test_run_older_than_streams_resumes_as_one_stream(tmp_path):
    saved = checkpoint.plain(tiny_run.make_config({}))
    del saved["data"]["streams"]
    same_config.check_config(saved, checkpoint.plain(tiny_run.make_config({})), tmp_path)
    with pytest.raises(UserError, match=r"data\.streams"):
        same_config.check_config(saved, checkpoint.plain(tiny_run.make_config(TOGETHER)), tmp_path)


def test_the_argument_names_streams():
    config = experiment.apply(experiment.defaults(), "streams=all")
    assert config.data.streams == PAPER_STREAMS
    assert experiment.apply(experiment.defaults(), "streams=joint+k2").data.streams == (
        "joint",
        "k2",
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"data.streams": ("joint", "bones")}, "did you mean 'bone'"),
        ({"data.streams": ("joint", "joint")}, "different streams"),
        ({"data.streams": STREAMS, "mesh.stream": 3}, r"mesh\.stream=3"),
        ({"mesh.stream": 2}, r"mesh\.stream=2"),
        (
            {"data.streams": STREAMS, "strategy": "T3", "stages": experiment.STRATEGIES["T3"]},
            "strategy=T0",
        ),
    ],
)
def test_unsupported_uses_of_streams_are_named(tmp_path, changes, text):
    with pytest.raises(UserError, match=text):
        tiny_run.make_run(tmp_path, changes)
