"""Two processes of two CPU devices each, as on two hosts, for tests of both."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMINGS = ("step_time_s", "samples_per_s")


def environ():
    """Variables that tell a pair of processes who is who; each needs JAX_PROCESS_ID besides."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_COORDINATOR_ADDRESS": f"localhost:{port}",
        "JAX_NUM_PROCESSES": "2",
    }


def spawn(commands, **options):
    """A process of each command, its output as text; `options` of `subprocess.Popen`."""
    env = environ()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return [
        subprocess.Popen(command, env=env | {"JAX_PROCESS_ID": str(number)}, **pipes, **options)
        for number, command in enumerate(commands)
    ]


def start(workdir, notes, changes, *flags, own=({}, {}), **disturb):
    """Both processes of a run.

    Args:
        changes: to the config of `tiny_run`.
        own: further changes of each process alone.
        disturb: see joined_run.py.
    """
    notes.mkdir(exist_ok=True)
    commands = []
    for number in range(2):
        config = notes / f"config{number}.py"
        config.write_text(
            "import tiny_run\n\n\ndef get_config(arg=''):\n"
            f"    return tiny_run.make_config({ {**changes, **own[number]} })\n"
        )
        command = [sys.executable, str(ROOT / "tests/train/joined_run.py"), str(notes)]
        command += [json.dumps(disturb), "--distributed", f"--config={config}", *flags]
        commands.append([*command, f"--workdir={workdir}"])
    return spawn(commands)


def ended(processes, timeout=500):
    """Statuses and words of both processes, once they have ended."""
    try:
        said = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], said


def run(workdir, notes, changes, *flags, **options):
    """A run that ends well; returns what its processes said."""
    statuses, said = ended(start(workdir, notes, changes, *flags, **options))
    assert statuses == [0, 0], "\n".join(said)
    return said


def wait_until(condition, processes, what):
    deadline = time.monotonic() + 500
    while not condition():
        assert processes[0].poll() is None, processes[0].communicate()[0][-2000:]
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def kill(number, processes):
    """Kills one process; returns the other's status, words and seconds until then."""
    processes[number].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    processes[number].communicate()
    said = processes[1 - number].communicate(timeout=100)[0]
    return processes[1 - number].returncode, said, time.monotonic() - killed


def reports(workdir):
    """Lines of metrics.jsonl without times; half a line, which is being written, is left out."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    lines = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in lines]
