"""`launch.py` on the tiny data, for a test that starts it several times at once.

    python joined_run.py NOTES SECONDS [flags of launch.py]

Leaves in the folder NOTES, for each process, the rows of the clips it trained on and the files that
it opened for writing. Every clip takes SECONDS to read, so that a test can interrupt it.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import jax
import tiny_run
from absl import app

import launch
from hocslm_jax.train import environment, setup, strategy

NOTES, SECONDS = Path(sys.argv.pop(1)), float(sys.argv.pop(1))
PROCESS = os.environ["JAX_PROCESS_ID"]
WRITES = os.O_WRONLY | os.O_RDWR


def note_files(event: str, args: tuple) -> None:
    if event == "open" and isinstance(args[0], str | os.PathLike) and args[2] & WRITES:
        written.add(os.fspath(args[0]))


def note_clips(run: setup.Run, batch: dict) -> dict:
    with (NOTES / f"clips{PROCESS}.jsonl").open("a") as file:
        file.write(json.dumps(batch["row"].tolist()) + "\n")
    return put(run, batch)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    environment.SILENCE_S = 10
    setup.open_store = lambda *_: tiny_run.TinyStore(SECONDS)
    put, setup.Run.put = setup.Run.put, note_clips
    strategy.train = partial(strategy.train, build=tiny_run.build)
    written: set[str] = set()
    sys.addaudithook(note_files)
    try:
        app.run(launch.main, flags_parser=launch.parse)
    finally:
        (NOTES / f"files{PROCESS}.json").write_text(json.dumps(sorted(written)))
