"""Pictures of clips: right sizes, right people, right prediction, plain errors."""

import argparse
import json
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hocslm_jax.draw import skeletons
from hocslm_jax.draw.primitives import RIGHT_MARK, WRONG_MARK
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import Scores, save_scores
from hocslm_jax.graph import NTU25, UCLA20, adjacency, resolve_graph
from hocslm_jax.predict import render as verb

CLASSES = tuple(f"class {c}" for c in range(6))


def person(graph, across=0.0):
    """Somebody upright in [V, 3]: joints spread over 1.7 m, `across` metres from the middle."""
    height = np.linspace(-0.9, 0.8, graph.num_joints)
    side = 0.2 * np.sin(np.arange(graph.num_joints)) + across
    return np.stack([side, height, np.full(graph.num_joints, 3.0)], axis=1)


def clip(graph, frames=12, people=1):
    joints = np.stack([person(graph, 0.9 * m) for m in range(people)])  # [M, V, 3]
    sway = 0.01 * np.arange(frames)[:, None, None, None]
    return (joints + sway).astype(np.float32)


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(image, colour, tolerance=12):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image - wanted).max(axis=2) < tolerance).sum())


@pytest.mark.parametrize("graph", [NTU25, UCLA20])
@pytest.mark.parametrize("people", [1, 2])
def test_filmstrip_is_modest_and_colours_the_sides(tmp_path, graph, people):
    path = tmp_path / "clip.png"
    skeletons.render_clip(clip(graph, people=people), graph, path, title="a clip")
    image = picture(path)
    assert path.stat().st_size < 300_000 and image.shape[1] < 1600
    assert (image[0] == 255).all() and (image[:, 0] == 255).all()
    for side in ("left", "right", "trunk"):
        assert count(image, skeletons.SIDES[side]) > 200


def test_the_second_person_is_drawn_only_when_present(tmp_path):
    joints = clip(UCLA20, people=2)
    skeletons.render_clip(joints, UCLA20, tmp_path / "two.png")
    joints[:, 1] = 0
    skeletons.render_clip(joints, UCLA20, tmp_path / "padded.png")
    skeletons.render_clip(joints[:, :1], UCLA20, tmp_path / "one.png")
    padded, one = picture(tmp_path / "padded.png"), picture(tmp_path / "one.png")
    np.testing.assert_array_equal(padded, one)
    assert picture(tmp_path / "two.png").shape[1] > one.shape[1]


@pytest.mark.parametrize(("true_class", "wrong"), [("class 0", False), ("class 1", True)])
def test_bars_mark_right_and_wrong(tmp_path, true_class, wrong):
    shares = dict(zip(CLASSES, (0.6, 0.3, 0.1, 0, 0, 0), strict=True))
    options = {"probabilities": shares, "true_class": true_class}
    skeletons.render_clip(clip(UCLA20), UCLA20, tmp_path / "clip.png", **options)
    image = picture(tmp_path / "clip.png")
    assert count(image, RIGHT_MARK) > 500
    assert (count(image, WRONG_MARK) > 500) == wrong


@pytest.mark.parametrize("frames", [1, 2, 200])
def test_animation_shows_the_clip_in_its_own_time(tmp_path, frames):
    path = tmp_path / "clip.gif"
    skeletons.render_clip(clip(UCLA20, frames), UCLA20, path, title="a clip")
    with Image.open(path) as image:
        shown, seconds = image.n_frames, image.info.get("duration", 0) * image.n_frames / 1000
    assert shown <= skeletons.MAX_GIF_FRAMES
    assert shown == 1 or seconds == pytest.approx(frames / 30, rel=0.15)
    assert path.stat().st_size < 300_000
    assert (picture(path)[0] == 255).all()


@pytest.mark.parametrize("frames", [1, 3])
def test_clips_shorter_than_the_strip(tmp_path, frames):
    skeletons.render_clip(clip(NTU25, frames), NTU25, tmp_path / "clip.png")
    assert picture(tmp_path / "clip.png").shape[1] < 700


def test_a_long_title_is_not_cut_off(tmp_path):
    title = "predicted point finger at the other person (53.0 %), true class W"
    for suffix in ("png", "gif"):
        path = tmp_path / f"clip.{suffix}"
        skeletons.render_clip(clip(UCLA20, 1), UCLA20, path, title=title)
        assert (picture(path)[:, -5:] == 255).all()


def test_a_skeleton_of_ones_own(tmp_path):
    spec = {"name": "arm", "joints": ["$root_{$", "hand"], "edges": [[1, 0]], "root": 0}
    arm = resolve_graph(spec)
    skeletons.render_clip(clip(arm), arm, tmp_path / "clip.png", title="$x_{$")
    skeletons.render_topology(adjacency(arm).sum(axis=0), arm, tmp_path / "topology.png", "$x_{$")


@pytest.mark.parametrize(
    ("joints", "name", "message"),
    [
        (clip(NTU25), "clip.png", r"\[12, 1, 25, 3\], ucla20 needs \[T, M, 20, 3\]"),
        (clip(UCLA20), "clip.jpeg", r"\.png or \.gif"),
        (np.zeros((4, 2, 20, 3)), "clip.png", "nobody"),
        (np.zeros((0, 1, 20, 3)), "clip.gif", "nobody"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, joints, name, message):
    with pytest.raises(UserError, match=message):
        skeletons.render_clip(joints, UCLA20, tmp_path / name)


def test_topology_tells_rows_from_columns(tmp_path):
    matrix = np.zeros((20, 20), np.float32)
    matrix[19, 0] = 1  # from joint 0 to joint 19: lower left
    skeletons.render_topology(matrix, UCLA20, tmp_path / "topology.png", "layer 1")
    image = picture(tmp_path / "topology.png")
    dark = np.argwhere(np.abs(image - [8, 48, 107]).max(axis=2) < 4)
    dark = dark[dark[:, 1] < image.shape[1] * 0.8]  # without the colour bar
    low, across = dark.mean(axis=0) / image.shape[:2]
    assert low > 0.6 and across < 0.4
    with pytest.raises(UserError, match="finite 20 x 20"):
        skeletons.render_topology(matrix * np.nan, UCLA20, tmp_path / "topology.png")


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A store of two clips, and a run that was tested on the first."""
    store = SimpleNamespace(
        name="toy",
        graph=UCLA20,
        classes=CLASSES,
        ids=("a01_s01", "a02_s01"),
        labels=np.array([2, 1]),
        joints=lambda row: clip(UCLA20, people=row + 1),
    )
    monkeypatch.setattr(verb, "open_store", lambda dataset, data_dir: store)
    logits = np.log(np.array([[0.05, 0.1, 0.7, 0.05, 0.05, 0.05]], np.float32))
    workdir = tmp_path / "run"
    workdir.mkdir()
    save_scores(workdir / "scores.npz", Scores(("a01_s01",), np.array([2], np.int32), logits))
    return SimpleNamespace(store=store, workdir=workdir, out=tmp_path / "pictures/clip.png")


def render(prepared, clip_id, *options):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    fixed = ["--dataset", "toy", "--clip", clip_id, "--out", str(prepared.out)]
    verb.run(parser.parse_args([*fixed, *options]))
    return picture(prepared.out)


def test_verb_draws_a_clip_with_and_without_its_prediction(prepared, capsys):
    alone = render(prepared, "a01_s01")
    scored = render(prepared, "a01_s01", "--workdir", str(prepared.workdir))
    assert scored.shape[1] > alone.shape[1]
    assert str(prepared.out) in capsys.readouterr().out


def test_prediction_is_the_softmax_of_the_runs_logits(prepared):
    shares = verb.predicted(prepared.workdir, prepared.store, "a01_s01")
    assert list(shares) == list(CLASSES)
    np.testing.assert_allclose(list(shares.values()), [0.05, 0.1, 0.7, 0.05, 0.05, 0.05], atol=1e-6)


def test_verb_says_what_it_lacks(prepared):
    with pytest.raises(UserError, match="toy has no clip a01_s1; did you mean a01_s01"):
        render(prepared, "a01_s1")
    with pytest.raises(UserError, match="a02_s01 is not among the 1 clips"):
        render(prepared, "a02_s01", "--workdir", str(prepared.workdir))
    with pytest.raises(UserError, match=r"scores\.npz: no such file"):
        render(prepared, "a01_s01", "--workdir", str(prepared.workdir / "other"))
    prepared.store.classes = CLASSES[:3]
    with pytest.raises(UserError, match="scores of 6 classes, but toy has 3"):
        render(prepared, "a01_s01", "--workdir", str(prepared.workdir))


def test_real_clip(shared, tmp_path):
    name = "all_sqe/a11_s01_e00_v03.json"
    with tarfile.open(shared / "data/nw_ucla/all_sqe.tar.xz") as archive:
        member = next(entry for entry in archive if entry.name.endswith(name))
        joints = json.load(archive.extractfile(member))["skeletons"]
    skeletons.render_clip(np.array(joints)[:, None], UCLA20, tmp_path / "clip.png", title="throw")
    assert 20_000 < (tmp_path / "clip.png").stat().st_size < 300_000
