"""`launch.py` on the tiny data, for a test that starts it several times at once.

    python joined_run.py NOTES '{"read_s": 0.02}' [flags of launch.py]

Leaves in the folder NOTES, for each process, the rows of the clips it trained on and the files that
it opened for writing. What may be disturbed, in seconds:

    read_s   every clip takes as long to read, so that a test can interrupt the run
    slow_s   process 0 waits as long before each file or folder that it makes in the workdir
    late_s   process 1 finds nothing in the workdir that is younger, like a lagging shared folder
"""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import jax
import tiny_run

from hocslm_jax.train import command, environment, setup, strategy

NOTES, DISTURB = Path(sys.argv.pop(1)), json.loads(sys.argv.pop(1))
PROCESS = os.environ["JAX_PROCESS_ID"]
WORKDIR = next(arg for arg in sys.argv if arg.startswith("--workdir=")).partition("=")[2]
WRITES = os.O_WRONLY | os.O_RDWR
MAKES = ("os.mkdir", "os.rename")


def note_files(event: str, args: tuple) -> None:
    if event == "open" and isinstance(args[0], str | os.PathLike) and args[2] & WRITES:
        written.add(os.fspath(args[0]))


def slow_down(event: str, args: tuple) -> None:
    """Waits before a write in the workdir; the wait before the next one is after this one, too."""
    makes = event in MAKES or (event == "open" and (args[2] or 0) & WRITES)
    if makes and str(args[-2] if event == "os.rename" else args[0]).startswith(WORKDIR):
        time.sleep(DISTURB["slow_s"])


def look_late(late_s: float) -> None:
    """Hides young files from `os.stat` and `os.listdir`, but for the inside of checkpoints."""

    def young(path) -> bool:
        path = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        _, inside, step = path.partition("/checkpoints/")
        if not path.startswith(WORKDIR) or (inside and "/" in step):
            return False
        try:
            return time.time() - stat(path).st_mtime < late_s
        except OSError:
            return False

    def late_stat(path, *args, **options):
        if young(path):
            raise FileNotFoundError(2, "not seen yet", path)
        return stat(path, *args, **options)

    def late_listdir(path="."):
        return [name for name in listdir(path) if not young(os.path.join(path, name))]

    stat, listdir = os.stat, os.listdir
    os.stat, os.listdir = late_stat, late_listdir


def note_clips(run: setup.Run, batch: dict) -> dict:
    with (NOTES / f"clips{PROCESS}.jsonl").open("a") as file:
        file.write(json.dumps(batch["row"].tolist()) + "\n")
    return put(run, batch)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    environment.SILENCE_S = 10
    setup.open_store = lambda *_: tiny_run.TinyStore(DISTURB.get("read_s", 0))
    put, setup.Run.put = setup.Run.put, note_clips
    strategy.train = partial(strategy.train, build=tiny_run.build)
    strategy.evaluate = partial(strategy.evaluate, build=tiny_run.build)
    written: set[str] = set()
    sys.addaudithook(note_files)
    if PROCESS == "0" and "slow_s" in DISTURB:
        sys.addaudithook(slow_down)
    if PROCESS == "1" and "late_s" in DISTURB:
        look_late(DISTURB["late_s"])
    try:
        sys.exit(command.main(sys.argv))
    finally:
        (NOTES / f"files{PROCESS}.json").write_text(json.dumps(sorted(written)))
