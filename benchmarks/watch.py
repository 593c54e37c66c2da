"""Runs a command as a user would, in a process of its own, and looks at what it takes.

In: the words of a Python command, and perhaps when to end it with SIGTERM. Out: what it said, its
wall and CPU seconds, and the peak memory of it and its descendants. What it prints goes to a file.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from hocslm_jax.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
POLL = 0.2  # seconds between two looks at the memory
MIB = 1 << 20


def watch(scratch: Path, stage: str, command: list, enough: Callable[[], bool] | None = None):
    """Runs a Python command to its end, or to SIGTERM once it is `enough`.

    Returns:
      The command and what it said, without the scratch folder's name; wall and CPU seconds; how
      busy the machine was; MiB at most: of the largest process, and of all processes at one moment,
      with and without pages that they share or can be read again from files.

    Raises:
      UserError: it failed; with its last line.
    """
    command, log = [str(word) for word in command], scratch / f"{stage}.log"
    start, load, peaks = time.perf_counter(), os.getloadavg(), np.zeros(3)
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=out, stderr=subprocess.STDOUT
        )
    told = False
    try:
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peaks = np.maximum(peaks, memory(process.pid))
            if enough and not told and enough():
                told = True
                process.send_signal(signal.SIGTERM)
            time.sleep(POLL)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
    finally:
        if process.returncode is None:  # we are being stopped
            process.terminate()
    said = log.read_text().replace(str(scratch), "SCRATCH")
    if process.returncode:
        raise UserError(f"{stage} ended with {process.returncode}: {said.strip()[-500:]}")
    usage = ended[2]
    return {
        "command": shlex.join(["python", *command]).replace(str(scratch), "SCRATCH"),
        "said": said.strip(),
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "load_before_and_after": [load[0], os.getloadavg()[0]],
        "peak_mib": dict(zip(("one_process", "all", "all_unshared"), peaks / MIB, strict=True)),
    }


def memory(pid: int) -> tuple[int, int, int]:
    """Resident bytes of a process and its descendants: the most that one of them ever had, all now,
    and all now that are their own."""
    most = total = own = 0
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.Error, OSError):
                info = process.memory_info()
                total, own = total + info.rss, own + info.rss - info.shared
                status = Path(f"/proc/{process.pid}/status").read_text()
                # Not what wait4 says: that begins with the memory of the process that forked.
                kib = re.findall(r"VmHWM:\s*(\d+)", status)  # none of one that has just ended
                most = max(most, *(1024 * int(number) for number in kib), 0)
    return most, total, own
