"""`train`: one experiment, by `python launch.py …` or `hocslm-jax train …`.

    --config=nw_ucla:stream=bone,encoder=ctrgcn --workdir=runs/ucla_bone
    [--config.optim.lr=0.05] [--mode=train|eval] [--distributed]

`--config` is a file, or the name of one in `configs/`; after the colon come settings. Rerun the
same command to resume. `--mode=eval` needs the workdir alone: the config is the run's own.

On several hosts, start it once on each, with --distributed and a shared workdir. Outside Slurm,
Open MPI and TPU pods, set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
"""

import re
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from hocslm_jax import terminal
from hocslm_jax.errors import UserError
from hocslm_jax.train.config_files import config_file, config_names

# JAX is slow to import, so modules that need it are imported in functions: --help is then fast.

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file or name, with :k=v settings.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; an unfinished run is resumed.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other hosts' processes.")
JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout", 120, "Seconds to wait for the other hosts' processes to start.", lower_bound=1
)

HELP = {"--help", "-help", "-h"}


def main(argv: list[str]) -> int:
    """Reads the flags, runs the command and returns the exit status."""
    return terminal.run(lambda: app.run(_act, argv=argv, flags_parser=parse))


def parse(argv: list[str]) -> list[str]:
    """Parses flags; a flag that cannot be set gives one line instead of a traceback.

    `--help` ends with status 0, where absl's own ends with 1.
    """
    if HELP.intersection(argv):
        print(help_text())
        raise SystemExit(0)
    argv = with_config_path(argv)
    try:
        rest = flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        raise unknown_key(argv, error) from None
    except (OSError, flags.Error) as error:
        raise UserError(" ".join(str(error).split())) from None
    if rest[1:]:
        raise UserError(f"unexpected argument {rest[1]!r}")
    if not WORKDIR.value or not (CONFIG.value or MODE.value == "eval"):
        raise UserError("--config=… (a file or name of configs/) and --workdir=runs/… are required")
    return [*argv[:1], *given_settings(argv)] if CONFIG.value else argv[:1]


def help_text() -> str:
    """This module's description, its flags, and the names of the config files."""
    _, own = flags.FLAGS.module_help(sys.modules[__name__]).strip().split("\n", 1)
    return f"{__doc__}\nflags:\n{own}\nconfigs: {', '.join(config_names())}"


def with_config_path(argv: list[str]) -> list[str]:
    """The arguments with `--config NAME:…` as `--config=FILE:…`."""
    found = []
    for argument in argv:
        if found and found[-1] in ("--config", "-config"):
            argument = f"{found.pop()}={argument}"
        if match := re.fullmatch(r"(--?config=)([^:]*)(:.*)?", argument):
            argument = f"{match[1]}{config_file(match[2])}{match[3] or ''}"
        found.append(argument)
    return found


def unknown_key(argv: list[str], error: Exception) -> UserError:
    """The message about the first `--config.KEY` that is not a setting."""
    from hocslm_jax.train import experiment

    known = list(experiment.flatten(experiment.defaults()))
    keys = (m[1] for a in argv if (m := re.match(r"--config\.([\w.]+)", a)))
    wrong = next((key for key in keys if key not in known), str(error))
    return UserError(f"unknown config key {wrong!r}{experiment.nearest(wrong, known)}")


def given_settings(argv: list[str]) -> list[str]:
    """The dotted names of all settings on the command line, whose strategy is checked."""
    from hocslm_jax.train import experiment

    experiment.check_strategy(CONFIG.value)
    given = "\n".join(argv)
    arguments = re.findall(r"^--?config=[^:\n]+:(.*)$", given, re.MULTILINE)
    flag = re.findall(r"^--?config\.([\w.]+)", given, re.MULTILINE)
    return experiment.named(CONFIG.value, ",".join(arguments)) + flag


def run_config() -> ConfigDict:
    """The config of the command line, or of the run in the workdir."""
    if CONFIG.value:
        return CONFIG.value
    from hocslm_jax.train import checkpoint, experiment

    return experiment.from_run(checkpoint.read_run(Path(WORKDIR.value))["config"])


def _act(argv: list[str]) -> None:
    from hocslm_jax import hosts
    from hocslm_jax.train import check_settings, environment, strategy

    logging.set_verbosity(logging.FATAL)  # Orbax logs each error that it raises as well
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
    except BaseException as error:  # whatever the error, the other processes wait for this one
        hosts.end_all(error)
        raise
    raise SystemExit(status)
