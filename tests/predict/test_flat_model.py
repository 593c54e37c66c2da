"""A model of 2D joints with a confidence: from a folder of clips to a release that predicts."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
import tiny_run

import hocslm_jax
from hocslm_jax import __main__
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import load_scores
from hocslm_jax.predict import release
from hocslm_jax.predict.accuracy import evaluate
from hocslm_jax.predict.clip_files import to_draw
from hocslm_jax.predict.load_model import load_run
from hocslm_jax.train import loop, setup
from hocslm_jax.train.stages import stage_config

SETTINGS = tiny_run.HGLNET | {
    "model.encoder": "ctrgcn",
    "train.epochs": 3,
    "train.batch_size": 8,
    "data.dataset": "mine",
    "data.protocol": "split",
    "data.channels": "",
    "data.mirror": 0.5,
    "data.num_persons": 0,
    "compilation_cache": "",
}


def write_folder(folder):
    """Twenty clips in pixels, anywhere in the image; the class is how a hand goes."""
    (folder / "source").mkdir()
    rng, rows = np.random.default_rng(0), ["id,file,label,split"]
    for number in range(20):
        pose = np.array([[0, 0], [0, -90], [-40, -30], [40, -30], [-20, 90], [20, 90]])
        clip = np.tile(pose, (10, 1, 1)) + rng.normal(size=(10, 6, 2)) + rng.uniform(100, 900, 2)
        clip[:, 2, number % 2] += np.linspace(0, 80, 10)
        sure = rng.uniform(0.5, 1, (10, 6, 1))
        sure[3, 2] = 0  # the hand is lost in one frame
        np.save(folder / f"source/{number}.npy", np.concatenate([clip, sure], axis=-1))
        rows.append(f"c{number},{number}.npy,{number % 2},{('train', 'test')[number > 15]}")
    (folder / "source/clips.csv").write_text("\n".join(rows))
    (folder / "source/graph.json").write_text(
        '{"name": "toy", "joints": ["hip", "head", "left hand", "right hand", "left foot", '
        '"right foot"], "edges": [[1, 0], [2, 1], [3, 1], [4, 0], [5, 0]], "root": 0, "up": "-y"}'
    )
    command = ["prepare", "folder", "--name", "mine", "--source", str(folder / "source")]
    assert __main__.main([*command, "--data-dir", str(folder)]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flat")
    write_folder(folder)
    config = tiny_run.make_config(SETTINGS | {"data.data_dir": str(folder)})
    run = setup.build_run(stage_config(config, 0), folder / "run")
    assert loop.train(run).finished
    return folder


def test_predictions_of_files_match_the_test(trained, capsys):
    loaded = load_run(trained / "run")
    assert loaded.reading.channels == loaded.feed.channels == "xyc"
    assert loaded.feed.clip_shape(loaded.graph) == (1, 4, 6, 3)
    scores = load_scores(trained / "run/scores.npz")
    clips = [hocslm_jax.load_clip(trained / f"source/{n}.npy") for n in range(16, 20)]
    found = loaded.predict(clips)
    wanted = np.exp(scores.logits) / np.exp(scores.logits).sum(axis=1, keepdims=True)
    for row, prediction in enumerate(found):
        shares = [prediction.probabilities[name] for name in loaded.classes]
        np.testing.assert_allclose(shares, wanted[row], atol=1e-4)
        assert not prediction.notes  # of the unit, least of all
    files = [str(trained / f"source/{n}.npy") for n in range(16, 20)]
    picture = trained / "clip.png"
    command = ["predict", "--checkpoint", str(trained / "run")]
    assert __main__.main([*command, *files[:1], "--out", str(picture)]) == 0
    assert picture.stat().st_size > 1000
    with pytest.raises(UserError, match=r"clip 0: shape \(5, 1, 6, 4\), expected \(T, 6, 3 or 2\)"):
        loaded.predict(np.zeros((5, 6, 4)))


def test_a_release_of_it_is_the_same_model(trained, tmp_path):
    size, said = release.release(trained / "run", tmp_path / "out", "float32", trained)
    loaded = hocslm_jax.load_pretrained(tmp_path / "out")
    assert loaded.reading == load_run(trained / "run").reading and size > 1000
    scores = evaluate(loaded, trained)
    assert said.startswith(f"{scores.correct}/{scores.total}") and scores.total == 4
    card = (tmp_path / "out/README.md").read_text()
    assert "6 joints, channels xyc" in card and "in metres" not in card


def test_flat_clips_are_drawn_upright(trained):
    store = open_store("mine", trained)
    drawn = to_draw(store.joints(0), store.graph, store.channels)
    assert drawn.shape == (10, 1, 6, 3) and not drawn[..., 2].any()
    assert (drawn[:, 0, 1, 1] > drawn[:, 0, 4, 1]).all()  # the head is above a foot
