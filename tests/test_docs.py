"""The code blocks of README.md and docs/*.md: Python runs, commands are parsed, or say why not.

A block that cannot be tried has a comment on the line before it: `<!-- not run: the reason -->`.
"""

import argparse
import dataclasses
import functools
import re
import runpy
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from hocslm_jax import options
from hocslm_jax.__main__ import declare_options
from hocslm_jax.graph import Graph, adjacency
from hocslm_jax.models import build_model, encoder, lm
from hocslm_jax.models.lm import LMConfig
from hocslm_jax.pose import estimators
from hocslm_jax.predict import clip_files, load_model
from hocslm_jax.predict.predictor import Prediction
from hocslm_jax.predict.trained_model import TrainedModel
from hocslm_jax.train import check_settings, experiment
from hocslm_jax.train.config_files import config_file
from hocslm_jax.train.optim import Finetune
from hocslm_jax.train.stages import read_stages
from hocslm_jax.train.step import LossWeights

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CHAIN = Graph("chain", ("a", "b", "c", "d"), ((0, 1), (2, 1), (3, 2)), 1)
NETWORK = build_model(
    {"encoder": "ctrgcn", "width": 8, "stages": (1, 1, 1)}, graph=CHAIN, num_classes=4
)
BLOCK = re.compile(r"(?:<!-- (not run: .+?) -->\n)?^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language):
    """(page and place, text) of the blocks that are to be tried."""
    found = []
    for page in PAGES:
        for number, (why, kind, text) in enumerate(BLOCK.findall(page.read_text()), 1):
            if kind == language and not why:
                found.append(pytest.param(text, id=f"{page.stem}-{number}"))
    return found


@pytest.mark.parametrize("text", blocks("bash"))
def test_commands_are_such_as_would_start(text):
    assert not subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True).stderr
    for words in commands(text):
        if "launch.py" in words:
            check_launch(words[words.index("launch.py") + 1 :])
        match words:
            case ["python", "-m", "hocslm_jax", verb, *rest]:
                check_verb(verb, rest)
            case ["python", "-m", module, *rest] if module.startswith("benchmarks."):
                source = (ROOT / f"{module.replace('.', '/')}.py").read_text()
                for flag in (word.partition("=")[0] for word in rest if word.startswith("--")):
                    assert f'"{flag}"' in source, f"{module} has no {flag}"
            case ["pip", "install", "-r", name, *_]:
                assert (ROOT / name).is_file()


def commands(text):
    """The words of each command, without variables in front of it."""
    text = re.sub(r"'[^']*'", lambda quoted: quoted[0].replace("\n", " "), text)
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removesuffix("&"), comments=True)
        while words and re.match(r"\w+=", words[0]):
            words = words[1:]
        if words:
            yield words


def check_launch(words):
    flags = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    assert flags.pop("workdir")
    mode = flags.pop("mode", "train")
    assert mode in ("train", "eval") and ("config" in flags or mode == "eval")
    if "config" not in flags:
        return
    file, _, arg = flags.pop("config").partition(":")
    config = runpy.run_path(config_file(file))["get_config"](arg)
    dotted = [name.removeprefix("config.") for name in flags if name.startswith("config.")]
    assert set(dotted) <= set(experiment.flatten(config))
    check_settings.check_used(config, experiment.named(config, arg) + dotted)
    rest = {name: value for name, value in flags.items() if not name.startswith("config.")}
    assert rest.pop("distributed", "") == "" and not rest


def check_verb(verb, words):
    parser = argparse.ArgumentParser()
    declare_options(verb, parser)
    with mock.patch.object(options, "local_folder"):  # of runs that are not here
        args, settings = parser.parse_known_args(words)
    assert not settings or ("settings" in args and options.read_settings(settings))
    for name in ("table", "config"):
        if (file := getattr(args, name, None)) and isinstance(file, str | Path):
            assert (ROOT / str(file).partition(":")[0]).is_file(), file


@pytest.mark.parametrize("text", blocks("python"))
def test_python_runs(text, names):
    """Every name that a block takes as given stands in `names`; it makes the others itself."""
    exec(compile(text, "block", "exec"), names)
    if "stages" in text:
        read_stages(names["config"])


@pytest.fixture
def names(monkeypatch, tmp_path):
    """What the blocks take as given. Runs are stand-ins, the language model is small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(encoder.SPATIAL, "static", None)  # removed again after the test
    monkeypatch.setattr(load_model, "load_pretrained", lambda source: stand_in(TrainedModel))
    monkeypatch.setattr(clip_files, "load_clip", lambda path: np.zeros((8, 1, 20, 3), np.float32))
    monkeypatch.setattr(estimators, "open_pose", mock.create_autospec(estimators.open_pose))
    monkeypatch.setattr(estimators, "estimate", mock.create_autospec(estimators.estimate))
    small = LMConfig(32, 8, 16, 1, 2, 1, 4)
    params = jax.tree.map(lambda a: jnp.zeros(a.shape), lm.param_shapes(small))
    lm.save_params(params, small, tmp_path)
    monkeypatch.setattr(lm, "resolve", lambda name: tmp_path)
    x = jnp.zeros((1, 1, 8, 4, 3))
    return {
        "joints": np.zeros((8, 1, 20, 3), np.float32),
        "x": x,
        "model": SimpleNamespace(apply=shapes_of_apply),
        "variables": jax.eval_shape(lambda: NETWORK.init(jax.random.key(0), x, False)),
        "embeddings": jnp.zeros((1, 3, 8)),
        "config": experiment.defaults(),
        "jnp": jnp,
        "nn": nn,
        "Graph": Graph,
        "adjacency": adjacency,
    }


def shapes_of_apply(variables, x, **options):
    """What a small network gives, in shapes, which need no compiler."""
    return jax.eval_shape(functools.partial(NETWORK.apply, **options), variables, x)


def stand_in(kind):
    """An object with the fields and methods of a dataclass, called as these are declared."""
    made = mock.create_autospec(kind, instance=True)
    for field in dataclasses.fields(kind):
        setattr(made, field.name, mock.MagicMock())
    prediction = mock.create_autospec(Prediction, instance=True)
    for field in dataclasses.fields(Prediction):
        setattr(prediction, field.name, mock.MagicMock())
    made.predict.side_effect = lambda clips, *_, **__: (
        prediction if isinstance(clips, np.ndarray) else [prediction]
    )
    return made


def test_language_page_gives_the_weights_of_the_losses():
    page = (ROOT / "docs/language.md").read_text(encoding="utf-8")
    quickstart = runpy.run_path(str(ROOT / "configs/quickstart.py"))["get_config"]()
    for said in (
        f"`loss.gen={LossWeights().gen:g}`",
        f"`finetune.encoder_scale={Finetune().encoder_scale:g}`",
        f"{quickstart.finetune.encoder_scale:g} in `configs/quickstart.py`",
    ):
        assert said in page, said
