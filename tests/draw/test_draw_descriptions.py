"""The picture of clips and what was said of them."""

import argparse
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hocslm_jax.draw.descriptions import render_descriptions
from hocslm_jax.draw.primitives import RIGHT_MARK, WRONG_MARK
from hocslm_jax.errors import UserError
from hocslm_jax.graph import UCLA20
from hocslm_jax.language.description_scores import write_descriptions
from hocslm_jax.predict import render as verb
from hocslm_jax.predict.render import choose

CLASSES = ("carry", "throw", "walk")


def row(number, right=True, said="A person is walking slowly with both arms hanging down."):
    truth = CLASSES[number % 3]
    named = truth if right else "fly"
    texts = {"generated": said, "reference": f"A person does {truth}."}
    return {"id": f"clip{number}", "truth": truth, "named": named, **texts}


def clip(people=1, frames=8):
    height = np.linspace(-0.9, 0.8, 20)
    person = np.stack([0.2 * np.sin(np.arange(20)), height, np.full(20, 3.0)], axis=1)
    sway = 0.01 * np.arange(frames)[:, None, None, None]
    return (person + sway + np.arange(people)[:, None, None]).astype(np.float32)


def marks(path):
    """Pixels of the green and of the red mark."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert (pixels[0] == 255).all() and (pixels[:, -1] == 255).all()
    colours = ([int(mark[i : i + 2], 16) for i in (1, 3, 5)] for mark in (RIGHT_MARK, WRONG_MARK))
    return [int((np.abs(pixels - colour).max(axis=2) < 12).sum()) for colour in colours]


@pytest.mark.parametrize("right", [(True,), (False,), (True, False, True)])
def test_every_sentence_is_marked(tmp_path, right):
    rows = [row(number, fine) for number, fine in enumerate(right)]
    path = tmp_path / "figure.png"
    render_descriptions(rows, [clip(1 + n % 2) for n in range(len(rows))], UCLA20, path, "title")
    green, red = marks(path)
    assert (green > 50) == any(right) and (red > 50) == (not all(right))


def test_long_and_empty_sentences_and_odd_clips(tmp_path):
    rows = [row(0, said="word " * 200), row(1, False, said=""), row(2, said="$x_{$ " * 3)]
    path = tmp_path / "figure.png"
    late = np.concatenate([0 * clip(), clip()])  # nobody at first
    render_descriptions(rows, [clip(frames=1), clip(2), late], UCLA20, path)
    assert min(marks(path)) > 50 and path.stat().st_size < 400_000


def test_what_cannot_be_drawn(tmp_path):
    for rows, clips, name, message in (
        ([row(0)], [clip()], "figure.gif", "are .png"),
        ([], [], "figure.png", "no description"),
        ([row(0)], [clip()[:, :, :5]], "figure.png", "clip0: joints are"),
        ([row(0)], [0 * clip()], "figure.png", "clip0: the clip has nobody"),
    ):
        with pytest.raises(UserError, match=message):
            render_descriptions(rows, clips, UCLA20, tmp_path / name)


def test_the_choice_looks_at_classes_and_not_at_success():
    rows = [row(number, right=number % 2 == 0) for number in range(30)]
    chosen = choose(rows, 3)
    assert {each["truth"] for each in chosen} == set(CLASSES)
    turned = [each | {"named": None} for each in rows]
    assert [each["id"] for each in choose(turned, 3)] == [each["id"] for each in chosen]
    assert len(choose(rows[:2], 6)) == 2


@pytest.fixture
def render(tmp_path, monkeypatch):
    """The verb, on a store of three clips and a run that described them."""
    store = SimpleNamespace(
        name="toy", graph=UCLA20, ids=("clip0", "clip1", "clip2"), joints=lambda row: clip()
    )
    monkeypatch.setattr(verb, "open_store", lambda dataset, data_dir: store)
    write_descriptions(tmp_path / "run/descriptions.jsonl", [row(0), row(1, False), row(2)])

    def run(*options):
        parser = argparse.ArgumentParser()
        verb.add_arguments(parser)
        out = tmp_path / "figure.png"
        verb.run(parser.parse_args(["--dataset", "toy", "--out", str(out), *options]))
        return out

    return SimpleNamespace(run=run, store=store, workdir=str(tmp_path / "run"))


def test_verb(render):
    assert min(marks(render.run("--workdir", render.workdir, "--descriptions", "3"))) > 50


def test_verb_says_what_it_lacks(render, tmp_path):
    with pytest.raises(UserError, match="--workdir"):
        render.run("--descriptions", "3")
    with pytest.raises(UserError, match="at least 1"):
        render.run("--descriptions", "0", "--workdir", render.workdir)
    with pytest.raises(UserError, match=r"descriptions\.jsonl: no such file"):
        render.run("--descriptions", "3", "--workdir", str(tmp_path))
    render.store.ids = ("other",)
    with pytest.raises(UserError, match="describes clip0, which is not in toy"):
        render.run("--descriptions", "3", "--workdir", render.workdir)
