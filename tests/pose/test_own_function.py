"""A user's own function as the pose estimator, in 2D and 3D."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hocslm_jax.__main__ import main
from hocslm_jax.data.prepare.filmed import recording_of
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError
from hocslm_jax.pose import estimators
from hocslm_jax.pose.estimators import Poses, assemble, open_pose
from hocslm_jax.pose.own_function import follow

PICTURES = [Image.new("RGB", (64, 48))] * 4
BODY = np.random.default_rng(0).uniform(10, 50, (17, 2))
MODULE = """
import numpy as np

BODY = np.random.default_rng(0).uniform(10, 50, (17, 2))

def flat(image):
    assert image.dtype == np.uint8 and image.shape[2] == 3
    return np.concatenate([BODY + image[0, 0, 0], np.full((17, 1), 0.9)], axis=1)[None]

def deep(image):
    return np.concatenate([BODY / 30, np.full((17, 1), 3), np.full((17, 1), 0.9)], axis=1)[None]

flat.layout = deep.layout = "coco17"

def unnamed(image):
    return None

odd = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_pose.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_pose"
    sys.modules.pop("my_pose", None)


def person(x, sure=0.9):
    return np.column_stack([BODY + np.array([x, 0]), np.full(17, sure)])


def tracks(answers, most):
    """The numbers of the persons of each picture, and x of the first joint without its offset."""
    calls = iter(answers)
    found = follow(lambda image: next(calls), 17, PICTURES[: len(answers)], most)
    return [
        {body.track: round(float(body.pixels[0, 0] - BODY[0, 0])) for body in bodies}
        for bodies in found
    ]


def test_persons_keep_their_numbers_in_any_order():
    one, two = person(0), person(300, 0.8)
    answers = [[two, one], [one, two], [two], [two, one]]
    assert tracks(answers, 2) == [{0: 0, 1: 300}, {0: 0, 1: 300}, {1: 300}, {0: 0, 1: 300}]


def test_of_more_persons_the_surest_are_followed():
    answers = [[person(0, 0.5), person(300)], [person(0), person(310, 0.3)], []]
    assert tracks(answers, 1) == [{0: 300}, {0: 310}, {}]


def test_nobody_and_missing_joints():
    part = person(0)
    part[3] = np.nan
    bodies = next(follow(lambda image: [part, part * np.nan], 17, PICTURES[:1], 2))
    assert len(bodies) == 1 and np.isnan(bodies[0].pixels).any(axis=1).sum() == 1
    assert [*follow(lambda image: None, 17, PICTURES[:1], 2)] == [[]]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (BODY, r"shape \(17, 2\), expected \(persons, 17, 3\)"),
        (BODY[None], r"shape \(1, 17, 2\)"),
        (np.zeros((1, 18, 3)), r"shape \(1, 18, 3\)"),
        ("text", "returned str"),
    ],
)
def test_answers_of_another_shape_are_refused(answer, word):
    with pytest.raises(UserError, match=word):
        list(follow(lambda image: answer, 17, PICTURES[:1], 1))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("rtmpose", "--pose rtmpose: not one of blazepose"),
        ("absent_module:f", "cannot be imported .*No module"),
        ("my_pose:absent", "cannot be imported .*absent"),
        (":flat", "cannot be imported"),
        ("my_pose:unnamed", "unnamed.layout = 'coco17'"),
        ("my_pose:odd", "a function with the attribute layout"),
    ],
)
def test_names_that_are_no_estimator_are_refused(module, name, word):
    with pytest.raises(UserError, match=word) as caught:
        open_pose(name=name)
    assert len(str(caught.value)) < 300


def test_unknown_layouts_are_refused(module):
    __import__(module).flat.layout = "coco71"
    with pytest.raises(UserError, match="did you mean 'coco17'"):
        open_pose(name="my_pose:flat")


def poses_of(name):
    pose = open_pose(name=name)
    return Poses(*assemble(list(pose.follow(PICTURES, pose.persons))), pose.layout, 30.0)


def test_2d_joints_are_pixels_and_3d_joints_metres(module):
    flat, deep = poses_of("my_pose:flat"), poses_of("my_pose:deep")
    recording = recording_of(flat)
    assert (recording.unit, recording.layout.name) == ("px", "coco17")
    np.testing.assert_allclose(recording.joints[0, 0], BODY, rtol=1e-6)
    assert recording_of(deep).unit == "m" and recording_of(deep).joints.shape == (4, 1, 17, 3)
    for poses, count in ((flat, 3), (deep, 2)):
        with pytest.raises(ValueError, match=f"{count}D joints are needed"):
            recording_of(poses, count)


@pytest.mark.parametrize(("name", "channels"), [("flat", "xyc"), ("deep", "xyz")])
def test_videos_become_a_dataset(module, name, channels, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(estimators, "measure_video", lambda path: (4, 30.0))
    monkeypatch.setattr(estimators, "pictures", lambda path, *_: PICTURES)
    for place in ("train/wave/a", "test/wave/b", "train/sit/c", "test/sit/d"):
        (tmp_path / "films" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"films/{place}.mp4").touch()
    where = ["--source", str(tmp_path / "films"), "--data-dir", str(tmp_path), "--name", "mine"]
    assert main(["prepare", "videos", *where, "--pose", f"my_pose:{name}"]) == 0
    store = open_store("mine", tmp_path)
    assert (store.graph.name, store.channels, len(store.ids)) == ("coco17", channels, 4)
    assert main(["prepare", "videos", *where, "--pose", f"my_pose:{name}"]) == 0
    assert "already prepared" in capsys.readouterr().out


def test_the_example_in_the_documentation(monkeypatch):
    """rtmlib's part is a stand-in, which takes BGR and returns key points and scores."""
    text = (Path(__file__).parents[2] / "docs/video.md").read_text(encoding="utf-8")
    (example,) = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "rtmlib" in block
    ]
    shown = []

    def body(image):
        shown.append(image[0, 0].tolist())
        return BODY[None], np.full((1, 17), 0.9)

    rtmlib = types.ModuleType("rtmlib")
    rtmlib.Body = lambda **settings: body
    monkeypatch.setitem(sys.modules, "rtmlib", rtmlib)
    names = {}
    exec(example, names)
    red = [Image.new("RGB", (64, 48), "red")]
    (bodies,) = follow(names["rtmpose"], 17, red, 1)
    assert names["rtmpose"].layout == "coco17" and shown == [[0, 0, 255]]
    np.testing.assert_allclose(bodies[0].pixels, BODY, rtol=1e-6)
