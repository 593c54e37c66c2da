"""Train or evaluate one experiment.

python launch.py --config=configs/nw_ucla.py:stream=bone,encoder=ctrgcn --workdir=runs/ucla_bone
    [--config.optim.lr=0.05] [--mode=train|eval] [--distributed]

On several hosts start it once on each, with --distributed and a workdir they share. Outside Slurm,
Open MPI and TPU pods, JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say who is who.
"""

import re
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from configs import base
from hocslm_jax import terminal
from hocslm_jax.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, with :k=v arguments.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run; an unfinished one is resumed.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other hosts' processes.")
JOIN_TIMEOUT = flags.DEFINE_float(
    "join_timeout", 120, "Seconds to wait for the other hosts' processes to start.", lower_bound=1
)


def config_file(argv: list[str]) -> str:
    files = (match[1] for arg in argv if (match := re.match(r"--?config=([^:]+)", arg)))
    return next(files, "")


def asked(argv: list[str]) -> list[str]:
    """The dotted names of all settings on the command line."""
    given = "\n".join(argv)
    arguments = re.findall(r"^--?config[=\n][^:\n]+:(.*)$", given, re.MULTILINE)
    flag = re.findall(r"^--?config\.([\w.]+)", given, re.MULTILINE)
    return base.named(CONFIG.value, ",".join(arguments)) + flag


def parse(argv: list[str]) -> list[str]:
    """Flags, with one line instead of a traceback for what cannot be set."""
    file = config_file(argv)
    if file and not Path(file).is_file():
        raise UserError(f"there is no config file {file}: see configs/")
    try:
        rest = flags.FLAGS(argv)
        if rest[1:]:
            raise UserError(f"unexpected argument {rest[1]!r}")
        if not CONFIG.value or not WORKDIR.value:
            raise UserError("--config=configs/….py and --workdir=runs/… are required")
        base.check_strategy(CONFIG.value, file)
    except (AttributeError, KeyError) as error:
        known = list(base.flatten(base.defaults()))
        keys = (m[1] for a in argv if (m := re.match(r"--config\.([\w.]+)", a)))
        wrong = next((key for key in keys if key not in known), str(error))
        raise UserError(f"unknown config key {wrong!r}{base.nearest(wrong, known)}") from None
    except (OSError, flags.Error) as error:
        raise UserError(" ".join(str(error).split())) from None
    return rest


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)
    # These take seconds: after the flags are read.
    from hocslm_jax import hosts
    from hocslm_jax.train import environment, strategy, unused_settings

    try:
        environment.use_compilation_cache(CONFIG.value.compilation_cache)
        if DISTRIBUTED.value:
            environment.join_processes(JOIN_TIMEOUT.value)
        environment.keep_memory()
        if MODE.value == "train":
            unused_settings.check(CONFIG.value, asked(sys.argv))
        act = strategy.train if MODE.value == "train" else strategy.evaluate
        status = act(CONFIG.value, WORKDIR.value)
    except BaseException as error:  # the other processes wait for this one, whatever it was
        hosts.end_all(error)
        raise
    sys.exit(status)


if __name__ == "__main__":
    sys.exit(terminal.run(lambda: app.run(main, flags_parser=parse)))
