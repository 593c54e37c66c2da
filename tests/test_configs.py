"""The config files: constants of the protocols, arguments, and one line per error."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from hocslm_jax.data.class_splits import SPLITS
from hocslm_jax.data.pipeline import Feed
from hocslm_jax.errors import UserError
from hocslm_jax.models import build_model
from hocslm_jax.train import check_settings, experiment
from hocslm_jax.train.config_files import config_file
from hocslm_jax.train.stages import Stage, read_stages
from hocslm_jax.train.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[1]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
ZERO_SHOT = sorted(path.stem for path in (ROOT / "configs/zero_shot").glob("*.py"))


def load(name, arg=""):
    return importlib.import_module(f"configs.{name}").get_config(arg)


@pytest.mark.parametrize("name", NAMES)
def test_every_config_describes_a_run(name):
    config = load(name)
    Feed.from_config(config.data)
    graph = "ucla20" if config.data.dataset == "nw_ucla" else "ntu25"
    graph = importlib.import_module("hocslm_jax.graph").resolve_graph(graph)
    build_model(config.model, graph=graph, num_classes=10)
    text = importlib.import_module(f"configs.{name}").__doc__
    assert f"--config=configs/{name}.py" in text and "Hardware:" in text and "Expected:" in text


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_zero_shot_configs_are_their_datasets_with_a_split(name):
    config = experiment.load(f"zero_shot/{name}")
    assert config.data.unseen in SPLITS[config.data.dataset] and config.strategy == "T3"
    for other in SPLITS[config.data.dataset]:
        assert experiment.load(f"zero_shot/{name}", f"unseen={other}").data.unseen == other
    check_settings.check_used(config, ["data.unseen"])
    text = (ROOT / f"configs/zero_shot/{name}.py").read_text()
    assert f"--config=configs/zero_shot/{name}.py" in text and "zero-shot runs/" in text


@pytest.mark.parametrize(
    ("name", "decay", "milestones", "batch", "second"),
    [
        ("nw_ucla", 1e-4, (50,), 16, "zeros"),
        ("ntu60_xsub", 4e-4, (35, 55), 64, "zeros"),
        ("ntu60_xview", 4e-4, (35, 55), 64, "zeros"),
        ("ntu120_xsub", 4e-4, (35, 55), 64, "copy"),
        ("ntu120_xset", 4e-4, (35, 55), 64, "copy"),
    ],
)
def test_the_ctrgcn_recipe(name, decay, milestones, batch, second):
    config = load(name)
    optim, train, data = config.optim, config.train, config.data
    assert (optim.name, optim.lr, optim.momentum, optim.warmup_epochs) == ("sgd", 0.1, 0.9, 5)
    assert (optim.weight_decay, optim.milestones, optim.gamma) == (decay, milestones, 0.1)
    assert (train.epochs, train.batch_size, train.eval_batch_size) == (65, batch, 64)
    assert data.second_person == second
    assert (data.dataset, data.protocol) == tuple(
        (name + "_xview").rsplit("_", 1) if "ntu" not in name else name.split("_")
    )


def test_a_run_can_start_with_another_runs_encoder():
    config = load("nw_ucla", "start=runs/ntu,width=32")
    (stage,) = read_stages(config)
    assert stage == Stage(start="runs/ntu", take=("encoder",)) and config.model.width == 32
    with pytest.raises(UserError, match="with T3, give that run as t0="):
        load("nw_ucla", "start=runs/ntu,strategy=T3")


def test_groups_are_frozen_in_the_stages_that_take_them():
    (stage,) = read_stages(load("nw_ucla", "freeze=encoder,partial=true,start=a/b.pt"))
    taken = {"start": "a/b.pt", "take": ("encoder",), "partial": True}
    assert stage == Stage(train=("classifier",), **taken)
    first, second = read_stages(load("nw_ucla", "strategy=T3,t0=runs/a,freeze=encoder+classifier"))
    assert first == Stage() and second.train == ("projector", "prompt")
    for arg, text in {
        "freeze=encoder": "no stage .* starts from a trained encoder: add start=RUN",
        "partial=true": "add start=RUN",
        "partial=maybe,start=x": "not of type bool",
        "freeze=all,start=x": "choose from encoder",
        "freeze=classifier,start=x": "starts from a trained classifier",
        "strategy=T0+,freeze=encoder+classifier": "leaves nothing to train in stage 2",
    }.items():
        with pytest.raises(UserError, match=text):
            load("nw_ucla", arg)


def test_arguments_by_short_and_dotted_name():
    config = load("nw_ucla", "stream=bone,encoder=ctrgcn,seed=3,lr=0.2,gsm=false,model.width=32")
    assert (config.data.stream, config.model.encoder, config.seed) == ("bone", "ctrgcn", 3)
    assert (config.optim.lr, config.model.gsm, config.model.width) == (0.2, False, 32)


def test_strategies_and_language_models_by_name():
    config = load("ntu60_xsub")  # the whole of HocSLM, as in the paper
    assert (config.strategy, config.lm.init, config.lm.name) == ("T3", "load", "Qwen/Qwen3-4B")
    assert [stage.losses for stage in read_stages(config)] == [("cls",), ("cls", "gen")]
    config = load("ntu60_xsub", "strategy=T2,llm=Qwen/Qwen3-0.6B")
    assert config.lm.name == "Qwen/Qwen3-0.6B" and read_stages(config)[0].losses == ("gen",)
    assert load("quickstart").lm.init == "pretrain"
    assert load("quickstart", "llm=some/folder").lm.init == "load"


def test_every_strategy_is_a_list_of_stages():
    for name, stages in STRATEGIES.items():
        read = read_stages(load("nw_ucla", f"strategy={name}"))
        assert len(read) == len(stages)
    # Both controls are what they control but for one thing.
    t0, joint = read_stages(load("nw_ucla", "strategy=T3"))
    assert read_stages(load("nw_ucla", "strategy=shuffled")) == (
        t0,
        dataclasses.replace(joint, captions="shuffled"),
    )
    assert read_stages(load("nw_ucla", "strategy=T0+")) == (
        t0,
        dataclasses.replace(joint, train=t0.train, losses=("cls",)),
    )
    assert t0 == Stage()


def test_a_recipe_comes_before_the_other_arguments():
    config = load("nw_ucla", "epochs=7,recipe=adamw")
    assert (config.optim.name, config.optim.weight_decay) == ("adamw", 0.01)
    assert (config.train.epochs, config.train.batch_size) == (7, 64)


@pytest.mark.parametrize(
    ("arg", "text"),
    [
        ("steam=bone", "did you mean 'stream'"),
        ("model.widht=3", "did you mean 'model.width'"),
        ("stream", "no value"),
        ("seed=a", "not of type int"),
        ("gsm=maybe", "not of type bool"),
        ("milestones=3", r"--config\.optim\.milestones='\(50,\)'"),
        ("recipe=adam", "ctr, ctr85, adamw"),
        ("strategy=T9", r"T0, T0\+, T1, T2, T3, T4, shuffled"),
    ],
)
def test_wrong_arguments_are_named(arg, text):
    with pytest.raises(UserError, match=text):
        load("nw_ucla", arg)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--config", "nw_ucla", "--config.optim.lrr=1"], "did you mean 'optim.lr'?"),
        (["--config=nw_ucla", "--config.data.data_dir=nowhere"], "prepare nw_ucla"),
    ],
)
def test_launch_says_what_is_wrong_in_one_line(arguments, text, tmp_path):
    command = [sys.executable, "launch.py", f"--workdir={tmp_path}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    assert len(done.stderr) < 320
    assert text in done.stderr and not list(tmp_path.iterdir())


def test_configs_are_found_by_path_and_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("nw_ucla", "configs/nw_ucla.py", str(ROOT / "configs/nw_ucla.py")):
        assert config_file(name).read_text().startswith('"""NW-UCLA')
    assert config_file("ablations/streams").name == "streams.py"
    with pytest.raises(UserError, match=r"one of .*nw_ucla"):
        config_file("configs/ucla.py")


def test_a_saved_config_is_read_back():
    config = load("nw_ucla", "strategy=T3,epochs=7")
    saved = json.loads(config.to_json()) | {"stage": 1}
    del saved["data"]["crop"]  # as in a run that is older than this setting
    found = experiment.from_run(saved)
    assert found.stage == 1 and found.train.epochs == 7 and found.data.crop == 0.0
    assert found.stages == config.stages and found.data.p_interval == (0.5, 1.0)


@pytest.mark.parametrize(("key", "near"), [("lr", "optim.lr"), ("optim.lrr", "optim.lr")])
def test_unknown_keys_suggest_the_nearest(key, near):
    assert near in experiment.nearest(key, list(experiment.flatten(experiment.defaults())))


def test_the_advice_for_a_tuple_can_be_pasted_into_a_shell():
    with pytest.raises(UserError) as told:
        load("nw_ucla", "milestones=30")
    advice = str(told.value).partition("set it with ")[2]
    echoed = subprocess.run(["bash", "-c", f"echo {advice}"], capture_output=True, text=True)
    assert echoed.stdout == "--config.optim.milestones=(50,)\n", echoed.stderr
