"""Every setting is used, or refused before anything starts."""

import pytest
import tiny_run

from configs import nw_ucla
from hocslm_jax.errors import UserError
from hocslm_jax.train import check_settings, command, experiment


def test_every_setting_of_a_config_says_what_it_needs():
    assert set(check_settings.NEEDS) == set(experiment.flatten(experiment.defaults()))
    assert set(check_settings.NEEDS.values()) == set(check_settings.CONDITIONS)


@pytest.mark.parametrize("strategy", experiment.STRATEGIES)
def test_unused_values_of_config_files_are_accepted(strategy):
    check_settings.check_used(nw_ucla.get_config(f"strategy={strategy}"))
    check_settings.check_used(nw_ucla.get_config(f"strategy={strategy},recipe=long"))


@pytest.mark.parametrize(
    ("arg", "name"),
    [
        ("strategy=T3,mixup=0.2", "loss.mixup"),  # captions cannot be mixed
        ("t0=runs/other", "t0"),
        ("gen=0.5", "loss.gen"),
        ("loss.cls=0.5", "loss.cls"),
        ("finetune.epochs=3", "finetune.epochs"),
        ("llm=Qwen/Qwen3-0.6B", "lm.name"),
        ("strategy=T4,epochs=3", "train.epochs"),
        ("strategy=T4,lr=0.1", "optim.lr"),
        ("schedule=cosine,gamma=0.5", "optim.gamma"),
        ("optim=adamw,momentum=0.5", "optim.momentum"),
        ("encoder=ctrgcn,gsm_width=8", "model.gsm_width"),
        ("gta=False,gta_position=relative", "model.gta_position"),
        ("encoder=ctrgcn,ltc=false", "model.ltc"),
        ("streams=all,stream=bone", "data.stream"),
        ("test_interval=0.9", "data.test_interval"),
        ("num_persons=1,second_person=copy", "data.second_person"),
        ("distill.temperature=2", "distill.temperature"),
        ("test.angle=10", "test.angle"),
        ("strategy=T3,llm=Qwen/Qwen3-0.6B,lm.pretrain.steps=3", "lm.pretrain.steps"),
        ("start=runs/other,lm.chunk=4", "lm.chunk"),
    ],
)
def test_a_setting_that_no_stage_would_use_is_refused(arg, name):
    config = nw_ucla.get_config(arg)
    with pytest.raises(UserError, match=f"^{name}=.* it needs .*; leave it out$") as error:
        check_settings.check_used(config, experiment.named(config, arg))
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "arg",
    [
        "strategy=T3,smoothing=0.1,gen=0.5,loss.cls=2,finetune.epochs=3,epochs=3,t0=runs/a",
        "strategy=T1,mixup=0.2",  # describes in a separate stage
        "strategy=T4,finetune.lr=0.1,lm.pretrain.steps=3,seed=1",
        "mixup=0.2,smoothing=0.1,momentum=0.5,gamma=0.5,gsm_width=8",
    ],
)
def test_a_setting_that_some_stage_uses_is_accepted(arg):
    config = nw_ucla.get_config(arg)
    check_settings.check_used(config, experiment.named(config, arg))


def test_switches_enabled_in_config_files_are_checked(tmp_path):
    with pytest.raises(UserError, match=r"loss\.mixup=0\.2 .*none of which describes"):
        tiny_run.train_strategy(tmp_path, "T3", {"loss.mixup": 0.2})
    assert not list(tmp_path.iterdir())


def test_command_line_is_parsed(monkeypatch):
    class Flag:
        value = nw_ucla.get_config("recipe=short,lr=0.2,strategy=T3")

    monkeypatch.setattr(command, "CONFIG", Flag)
    argument = "configs/nw_ucla.py:recipe=short,lr=0.2,strategy=T3"
    for given in ([f"--config={argument}"], ["--config", argument]):
        argv = ["launch.py", *given, "--config.lm.chunk=4", "--workdir=runs/a"]
        found = command.given_settings(command.with_config_path(argv))
        assert found == ["optim.lr", "lm.chunk"]
