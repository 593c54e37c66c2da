"""Pictures of clips, predictions and descriptions: sizes, people, marks, one-line errors."""

import argparse
import json
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hocslm_jax.__main__ import declare_options
from hocslm_jax.draw import skeletons
from hocslm_jax.draw.descriptions import render_descriptions
from hocslm_jax.draw.primitives import RIGHT_MARK, SIDES, WRONG_MARK
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import Scores, save_scores
from hocslm_jax.graph import NTU25, UCLA20, adjacency, resolve_graph
from hocslm_jax.language.description_scores import write_descriptions
from hocslm_jax.predict import render as verb

CLASSES = tuple(f"class {c}" for c in range(6))
SHARES = dict(zip(CLASSES, (0.6, 0.3, 0.1, 0, 0, 0), strict=True))


def clip(graph=UCLA20, frames=12, people=1):
    """People upright, 1.7 m tall, 0.9 m from one another, who sway: float32 [T, M, V, 3]."""
    height, side = np.linspace(-0.9, 0.8, graph.num_joints), np.sin(np.arange(graph.num_joints))
    person = np.stack([0.2 * side, height, np.full(graph.num_joints, 3.0)], axis=1)  # [V, 3]
    joints = person + np.zeros((frames, people, 1, 1))
    joints[..., 0] += 0.9 * np.arange(people)[:, None]
    return (joints + 0.01 * np.arange(frames)[:, None, None, None]).astype(np.float32)


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(image, colour):
    """Pixels of about this colour."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image - wanted).max(axis=2) < 12).sum())


@pytest.mark.parametrize("graph", [NTU25, UCLA20])
@pytest.mark.parametrize("people", [1, 2])
def test_filmstrip_is_modest_and_colours_the_sides(tmp_path, graph, people):
    path = tmp_path / "clip.png"
    skeletons.render_clip(clip(graph, people=people), graph, path, title="a clip")
    image = picture(path)
    assert path.stat().st_size < 300_000 and image.shape[1] < 1600
    assert (image[0] == 255).all() and (image[:, 0] == 255).all()
    assert all(count(image, colour) > 200 for colour in SIDES.values())


def test_the_second_person_is_drawn_only_when_present(tmp_path):
    joints = clip(people=2)
    skeletons.render_clip(joints, UCLA20, tmp_path / "two.png")
    joints[:, 1] = 0
    skeletons.render_clip(joints, UCLA20, tmp_path / "padded.png")
    skeletons.render_clip(joints[:, :1], UCLA20, tmp_path / "one.png")
    two, padded, one = (picture(tmp_path / f"{name}.png") for name in ("two", "padded", "one"))
    np.testing.assert_array_equal(padded, one)
    assert two.shape[1] > one.shape[1]


@pytest.mark.parametrize("true_class", ["class 0", "class 1", None])
def test_bars_mark_right_and_wrong(tmp_path, true_class):
    options = {"probabilities": SHARES, "true_class": true_class}
    skeletons.render_clip(clip(), UCLA20, tmp_path / "clip.png", **options)
    image = picture(tmp_path / "clip.png")
    assert (count(image, RIGHT_MARK) > 500) == (true_class is not None)
    assert (count(image, WRONG_MARK) > 500) == (true_class == "class 1")


@pytest.mark.parametrize("frames", [1, 2, 200])
def test_animation_shows_the_clip_in_its_own_time(tmp_path, frames):
    path = tmp_path / "clip.gif"
    skeletons.render_clip(clip(frames=frames), UCLA20, path, title="a clip")
    with Image.open(path) as image:
        shown, seconds = image.n_frames, image.info.get("duration", 0) * image.n_frames / 1000
    assert shown <= skeletons.MAX_GIF_FRAMES
    assert shown == 1 or seconds == pytest.approx(frames / 30, rel=0.15)
    assert path.stat().st_size < 300_000 and (picture(path)[0] == 255).all()


@pytest.mark.parametrize("frames", [1, 3])
def test_clips_shorter_than_the_strip(tmp_path, frames):
    skeletons.render_clip(clip(NTU25, frames), NTU25, tmp_path / "clip.png")
    assert picture(tmp_path / "clip.png").shape[1] < 700


@pytest.mark.parametrize("name", ["clip.png", "clip.gif"])
def test_a_long_title_is_not_cut_off(tmp_path, name):
    title = "predicted point finger at the other person (53.0 %), true class W"
    skeletons.render_clip(clip(frames=1), UCLA20, tmp_path / name, title=title)
    assert (picture(tmp_path / name)[:, -5:] == 255).all()


def test_a_skeleton_of_ones_own(tmp_path):
    spec = {"name": "arm", "joints": ["$root_{$", "hand"], "edges": [[1, 0]], "root": 0}
    arm = resolve_graph(spec)
    skeletons.render_clip(clip(arm), arm, tmp_path / "clip.png", title="$x_{$")
    skeletons.render_topology(adjacency(arm).sum(axis=0), arm, tmp_path / "topology.png", "$x_{$")


def test_topology_tells_rows_from_columns(tmp_path):
    matrix = np.zeros((20, 20), np.float32)
    matrix[19, 0] = 1  # from joint 0 to joint 19: lower left
    skeletons.render_topology(matrix, UCLA20, tmp_path / "topology.png", "layer 1")
    image = picture(tmp_path / "topology.png")
    dark = np.argwhere(np.abs(image - [8, 48, 107]).max(axis=2) < 4)
    dark = dark[dark[:, 1] < image.shape[1] * 0.8]  # without the colour bar
    low, across = dark.mean(axis=0) / image.shape[:2]
    assert low > 0.6 and across < 0.4
    with pytest.raises(UserError, match="finite"):
        skeletons.render_topology(matrix * np.nan, UCLA20, tmp_path / "topology.png")


def test_real_clip(shared, tmp_path):
    name = "all_sqe/a11_s01_e00_v03.json"
    with tarfile.open(shared / "data/nw_ucla/all_sqe.tar.xz") as archive:
        member = next(entry for entry in archive if entry.name.endswith(name))
        joints = json.load(archive.extractfile(member))["skeletons"]
    skeletons.render_clip(np.array(joints)[:, None], UCLA20, tmp_path / "clip.png", title="throw")
    assert 20_000 < (tmp_path / "clip.png").stat().st_size < 300_000


def row(number, right=True, said="A person is walking slowly with both arms hanging down."):
    truth = CLASSES[number % 3]
    texts = {"generated": said, "reference": f"A person does {truth}."}
    return {"id": f"clip{number}", "truth": truth, "named": truth if right else "fly", **texts}


def marks(path):
    """Pixels of the green and of the red mark."""
    image = picture(path)
    assert (image[0] == 255).all() and (image[:, -1] == 255).all()
    return count(image, RIGHT_MARK), count(image, WRONG_MARK)


@pytest.mark.parametrize("right", [(True,), (False,), (True, False, True)])
def test_every_sentence_is_marked(tmp_path, right):
    rows = [row(number, fine) for number, fine in enumerate(right)]
    clips = [clip(people=1 + n % 2) for n in range(len(rows))]
    render_descriptions(rows, clips, UCLA20, tmp_path / "figure.png", "title")
    green, red = marks(tmp_path / "figure.png")
    assert (green > 50) == any(right) and (red > 50) == (not all(right))


def test_long_and_empty_sentences_and_odd_clips(tmp_path):
    rows = [row(0, said="word " * 200), row(1, False, said=""), row(2, said="$x_{$ " * 3)]
    late = np.concatenate([0 * clip(), clip()])  # nobody at first
    render_descriptions(rows, [clip(frames=1), clip(people=2), late], UCLA20, tmp_path / "a.png")
    assert min(marks(tmp_path / "a.png")) > 50 and (tmp_path / "a.png").stat().st_size < 400_000


@pytest.mark.parametrize(
    ("joints", "name", "message"),
    [
        (clip(NTU25), "clip.png", r"\[12, 1, 25, 3\], ucla20 needs \[T, M, 20, 3\]"),
        (clip(), "clip.jpeg", r"is a \.png"),
        (np.zeros((4, 2, 20, 3)), "clip.png", "nobody"),
        (np.zeros((0, 1, 20, 3)), "clip.png", "nobody"),
        (None, "clip.png", "no description"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, joints, name, message):
    if joints is not None:
        with pytest.raises(UserError, match=message):
            skeletons.render_clip(joints, UCLA20, tmp_path / name)
    rows, clips = ([row(0)], [joints]) if joints is not None else ([], [])
    with pytest.raises(UserError, match=message):
        render_descriptions(rows, clips, UCLA20, tmp_path / name)


@pytest.fixture
def render(tmp_path, monkeypatch):
    """The verb, on a store of three clips and a run that was tested on the first."""
    ids, labels = ("clip0", "clip1", "clip2"), np.array([2, 1, 0])
    store = SimpleNamespace(name="toy", graph=UCLA20, classes=CLASSES, ids=ids, labels=labels)
    store.channels = "xyz"
    store.joints = lambda row: clip(people=row + 1)
    monkeypatch.setattr(verb, "open_store", lambda dataset, data_dir: store)
    (tmp_path / "run").mkdir()
    write_descriptions(tmp_path / "run/descriptions.jsonl", [row(0), row(1, False), row(2)])
    logits = np.log(np.array([[0.05, 0.1, 0.7, 0.05, 0.05, 0.05]], np.float32))
    save_scores(tmp_path / "run/scores.npz", Scores(("clip0",), np.array([2], np.int32), logits))

    def run(*options):
        parser, out = argparse.ArgumentParser(), tmp_path / "pictures/clip.png"
        declare_options("render", parser)
        verb.run(parser.parse_args(["--dataset", "toy", "--out", str(out), *options]))
        return out

    return SimpleNamespace(run=run, store=store, workdir=str(tmp_path / "run"))


def test_verb_draws_clips_predictions_and_descriptions(render, capsys):
    alone = picture(render.run("--clip", "clip0"))
    scored = picture(render.run("--clip", "clip0", "--workdir", render.workdir))
    assert scored.shape[1] > alone.shape[1] and count(scored, RIGHT_MARK) > 500
    assert "clip.png" in capsys.readouterr().out
    shares = verb.predicted(Path(render.workdir), render.store, "clip0")
    assert list(shares) == list(CLASSES)
    np.testing.assert_allclose(list(shares.values()), [0.05, 0.1, 0.7, 0.05, 0.05, 0.05], atol=1e-6)
    assert min(marks(render.run("--workdir", render.workdir, "--descriptions", "3"))) > 50


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip", "clip00"], "did you mean clip0"),
        (["--clip", "clip0", "--poses", "0"], "at least one pose"),
        (["--clip", "clip1", "--workdir", "RUN"], "clip1 is not among"),
        (["--clip", "clip0", "--workdir", "other"], r"scores\.npz: no such file"),
        (["--descriptions", "3"], "--workdir"),
        (["--descriptions", "0", "--workdir", "RUN"], "at least 1"),
        (["--descriptions", "3", "--workdir", "other"], r"descriptions\.jsonl: no such file"),
    ],
)
def test_verb_says_what_it_lacks(render, options, message):
    with pytest.raises(UserError, match=message):
        render.run(*(render.workdir if option == "RUN" else option for option in options))


def test_verb_refuses_a_run_of_another_dataset(render):
    render.store.classes, render.store.ids = CLASSES[:3], ("clip0", "other")
    for what in (["--clip", "clip0"], ["--descriptions", "3"]):
        with pytest.raises(UserError, match="toy"):
            render.run(*what, "--workdir", render.workdir)


def test_chosen_examples_do_not_depend_on_success():
    rows = [row(number, right=number % 2 == 0) for number in range(30)]
    chosen = verb.choose(rows, 3)
    assert {each["truth"] for each in chosen} == set(CLASSES[:3])
    turned = [each | {"named": None} for each in rows]
    assert [each["id"] for each in verb.choose(turned, 3)] == [each["id"] for each in chosen]
    assert len(verb.choose(rows[:2], 6)) == 2
