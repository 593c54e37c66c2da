"""A run is bound to its data, and its workdir is locked."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_run

from hocslm_jax.errors import UserError
from hocslm_jax.files import atomic
from hocslm_jax.train import distill, experiment, loop, same_config, setup, strategy
from hocslm_jax.train.identity import check_data, identity


@dataclasses.dataclass(frozen=True)
class Other(tiny_run.TinyStore):
    """The tiny data with one change."""

    classes: tuple = tiny_run.TinyStore.classes
    ids: tuple = tiny_run.TinyStore.ids
    labels: np.ndarray = dataclasses.field(default_factory=lambda: tiny_run.TinyStore.labels)
    content: str = "as prepared"
    first: int = 0
    graph: object = tiny_run.TinyStore.graph

    def rows(self, protocol, split):
        return super().rows(protocol, split)[self.first if split == "train" else 0 :]


SWAPPED = tiny_run.TinyStore.labels[::-1].copy()
CHANGED = [
    ({"classes": ("walk", "b", "c", "d")}, "class 0 is 'a' there, 'walk' here"),
    ({"classes": ("a", "b", "c", "d", "e")}, "4 classes there, 5 here"),
    ({"ids": tuple(f"new{row}" for row in range(48))}, "other test clips; other train clips"),
    ({"labels": SWAPPED}, "other labels of test clips"),
    ({"first": 1}, "32 train clips there, 31 here"),
    ({"content": "prepared from others"}, "other coordinates"),
    ({"graph": dataclasses.replace(tiny_run.TinyStore.graph, name="x")}, "another skeleton"),
]


def with_data(run, **changes):
    return dataclasses.replace(run, store=Other(**changes))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bound") / "run"
    run = with_data(tiny_run.make_run(folder, {"train.epochs": 1}))
    assert loop.train(run).finished
    return folder


@pytest.mark.parametrize(("changes", "said"), CHANGED)
def test_other_data_is_named(changes, said):
    meta = {"dataset": identity(Other(), "split")}
    check_data(meta, Other(), "split", "runs/x")
    with pytest.raises(UserError, match=re.escape(said)) as error:
        check_data(meta, Other(**changes), "split", "runs/x")
    assert "runs/x" in str(error.value) and len(str(error.value)) < 300


def test_run_with_other_data_is_not_changed(finished):
    before = {path: path.read_bytes() for path in finished.glob("*.*")}
    for act, epochs in ((loop.train, 1), (loop.train, 2), (loop.evaluate, 1)):
        run = tiny_run.make_run(finished, {"train.epochs": epochs})
        with pytest.raises(UserError, match="trained on other data"):
            act(with_data(run, classes=("walk", "b", "c", "d")))
    assert {path: path.read_bytes() for path in finished.glob("*.*")} == before


def test_first_stage_and_teacher_must_have_the_same_data(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "open_store", lambda *_: Other(content="prepared from others"))
    config = tiny_run.make_config({"t0": str(finished), "train.epochs": 1, "finetune.epochs": 1})
    config.update(strategy="T0+", stages=experiment.STRATEGIES["T0+"])
    with pytest.raises(UserError, match=r"trained on other data: other coordinates"):
        strategy.train(config, tmp_path / "run", tiny_run.build)
    assert not (tmp_path / "run/result.json").exists()
    run = tiny_run.make_run(tmp_path, {"distill.share": 0.5, "distill.teacher": str(finished)})
    with pytest.raises(UserError, match=r"trained on other data: other coordinates"):
        distill.add_teacher(with_data(run, content="prepared from others"))


def test_an_older_run_or_dataset_is_not_compared(finished):
    check_data({}, Other(first=5), "split", "x")
    old = identity(Other(content=""), "split")
    check_data({"dataset": old}, Other(), "split", "x")


def test_missing_zero_and_false_differ(tmp_path):
    here = {"optim": {"ema": 0.0, "decay_mask": False}, "loss": {"smoothing": 0.0}}
    same_config.check_config({"optim": {"ema": 0, "decay_mask": False}}, here, tmp_path)
    for optim in ({"ema": 0.0}, {"ema": False, "decay_mask": False}, {"decay_mask": False}):
        with pytest.raises(UserError, match="holds a run with another config"):
            same_config.check_config({"optim": optim}, here, tmp_path)
    with pytest.raises(UserError, match=r"loss\.smoothing \(0\.0 there, 0\.1 here\)"):
        new = here | {"loss": {"smoothing": 0.1}}
        same_config.check_config({"optim": here["optim"]}, new, tmp_path)


def test_many_other_settings_are_three_and_a_count(tmp_path):
    with pytest.raises(UserError, match="and 37 more") as error:
        same_config.check_config({}, {f"setting{n}": "x" * 500 for n in range(40)}, tmp_path)
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_a_second_run_in_a_workdir_is_refused(tmp_path):
    config = tiny_run.make_config({})
    workdir = tmp_path / "x[1]"
    workdir.mkdir()
    with atomic.held(workdir / atomic.LOCK, "trains"):
        for act in (strategy.train, strategy.evaluate):
            with pytest.raises(UserError, match=r"process \d+ on \S+ works in --workdir") as error:
                (workdir / "checkpoints/1/meta").mkdir(parents=True, exist_ok=True)
                meta = {"step": 1, "config": {}}
                (workdir / "checkpoints/1/meta/metadata").write_text(json.dumps(meta))
                act(config, workdir, tiny_run.build)
            assert str(workdir) in str(error.value)


@pytest.mark.parametrize("name", ["x[1]", "exp[lr=0.1],ü -?*"])
def test_a_run_in_a_folder_of_any_name_can_be_read(finished, tmp_path, name):
    run = with_data(tiny_run.make_run(tmp_path / name, {"train.epochs": 1}))
    assert loop.train(run).finished and loop.evaluate(run) == 0
    assert loop.train(with_data(tiny_run.make_run(tmp_path / name, {"train.epochs": 2}))).finished


@pytest.mark.parametrize("flag", ["--workdir=gs://bucket/x", "--workdir=a\\b"])
def test_launch_refuses_invalid_folders_in_one_line(tmp_path, flag):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(root / "launch.py"), "--config=configs/quickstart.py", flag]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: --workdir")
    assert not (root / "gs:").exists()
