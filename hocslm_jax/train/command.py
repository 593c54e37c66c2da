"""`train`: one experiment, by `python launch.py …` or `hocslm-jax train …`.

    --config=nw_ucla:stream=bone,encoder=ctrgcn --workdir=runs/ucla_bone
    [--config.optim.lr=0.05] [--mode=train|eval] [--distributed]

`--config` is a file, or the name of one in `configs/`; after the colon come settings. Rerun the
same command to resume. `--mode=eval` needs the workdir alone: the config is the run's own.

On several hosts start it once on each, with --distributed and a workdir that they share. Outside
Slurm, Open MPI and TPU pods, JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID name the
processes.
"""

import re
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from hocslm_jax import hosts, terminal
from hocslm_jax.errors import UserError
from hocslm_jax.train import check_settings, environment, experiment, strategy
from hocslm_jax.train.checkpoint import read_run

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file or name, with :k=v settings.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; an unfinished one is resumed.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other hosts' processes.")
JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout", 120, "Seconds to wait for the other hosts' processes to start.", lower_bound=1
)


def main(argv: list[str]) -> int:
    """Reads the flags, acts and returns the exit status."""
    return terminal.run(lambda: app.run(_act, argv=argv, flags_parser=parse))


def parse(argv: list[str]) -> list[str]:
    """Flags, with one line instead of a traceback for what cannot be set."""
    argv = with_file(argv)
    try:
        rest = flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        known = list(experiment.flatten(experiment.defaults()))
        keys = (m[1] for a in argv if (m := re.match(r"--config\.([\w.]+)", a)))
        wrong = next((key for key in keys if key not in known), str(error))
        raise UserError(f"unknown config key {wrong!r}{experiment.nearest(wrong, known)}") from None
    except (OSError, flags.Error) as error:
        raise UserError(" ".join(str(error).split())) from None
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}")
    if not WORKDIR.value or not (CONFIG.value or MODE.value == "eval"):
        raise UserError("--config=… (a file or name of configs/) and --workdir=runs/… are required")
    if CONFIG.value:
        experiment.check_strategy(CONFIG.value)
    return [*argv[:1], *asked(argv)]


def with_file(argv: list[str]) -> list[str]:
    """The arguments with `--config NAME:…` as `--config=FILE:…`."""
    found = []
    for argument in argv:
        if found and found[-1] in ("--config", "-config"):
            argument = f"{found.pop()}={argument}"
        if match := re.fullmatch(r"(--?config=)([^:]*)(:.*)?", argument):
            argument = f"{match[1]}{experiment.config_file(match[2])}{match[3] or ''}"
        found.append(argument)
    return found


def asked(argv: list[str]) -> list[str]:
    """The dotted names of all settings on the command line."""
    given = "\n".join(argv)
    arguments = re.findall(r"^--?config=[^:\n]+:(.*)$", given, re.MULTILINE)
    flag = re.findall(r"^--?config\.([\w.]+)", given, re.MULTILINE)
    return experiment.named(CONFIG.value, ",".join(arguments)) + flag if CONFIG.value else []


def run_config() -> ConfigDict:
    """The config of the command line, or of the run in the workdir."""
    if CONFIG.value:
        return CONFIG.value
    saved = read_run(Path(WORKDIR.value))["config"]
    return experiment.from_run(saved)


def _act(argv: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)
    try:
        if DISTRIBUTED.value:
            environment.join_processes(JOIN_TIMEOUT.value)
        config = run_config()
        environment.use_compilation_cache(config.compilation_cache)
        environment.keep_memory()
        if MODE.value == "train":
            check_settings.check_used(config, argv[1:])
            status = strategy.train(config, WORKDIR.value)
        else:
            status = strategy.evaluate(config, WORKDIR.value)
    except BaseException as error:  # the other processes wait for this one, whatever it was
        hosts.end_all(error)
        raise
    raise SystemExit(status)
