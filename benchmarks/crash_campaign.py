"""Kills runs at random moments and compares their outcome with that of an undisturbed run.

    python -m benchmarks.crash_campaign --out results/reliability.json [--kills 200] [--soak 20000]

Out: counts of the kills by place and signal, and of outcomes that were lost (a restart fails) or
wrong (a state, metric or file differs from the undisturbed run's). --soak adds the memory, open
files and threads of a long run. Every process is forked from one that has imported everything and
started no thread; it sends itself the signal at the place given by `crash_run.Kill`.
"""

import argparse
import atexit
import collections
import contextlib
import dataclasses
import json
import math
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import crash_caption, crash_run
from benchmarks.crash_compare import differences, notes, outcome
from benchmarks.crash_run import Kill
from benchmarks.record import measured_here, one_line_errors, read_result, write_result
from hocslm_jax.data.store import open_store
from hocslm_jax.errors import UserError

EPOCHS = 3
KILLS_A_RUN = 6
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


@dataclasses.dataclass
class Campaign:
    """State shared by all parts.

    Attributes:
      kills: "place, signal" -> number of kills.
      faults: descriptions of lost or wrong outcomes.
    """

    folder: Path
    rng: random.Random
    kills: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    faults: list[str] = dataclasses.field(default_factory=list)
    runs: int = 0
    started: int = 0
    until: float = math.inf

    def in_time(self) -> bool:
        """Whether another run may start; none does after the first fault."""
        return time.monotonic() < self.until and not self.faults

    def start(self, target: Callable, *args) -> multiprocessing.Process:
        """Starts a process whose output goes to a file."""
        self.started += 1
        output = self.folder / f"output{self.started}.txt"
        process = multiprocessing.get_context("fork").Process(
            target=_quietly, args=(output, target, *args), name=str(output)
        )
        process.start()
        return process

    def fault(self, text: str) -> None:
        self.faults.append(text)
        print(f"FAULT: {text}", flush=True)

    def ended(self, process: multiprocessing.Process, kill: Kill | None, what: str, seconds=900):
        """Waits for the end; counts the kill, or reports a status that is not due to a kill."""
        process.join(seconds)
        if process.exitcode is None:
            process.kill()
            process.join()
            self.fault(f"{what}: hangs after {kill}")
        elif kill and process.exitcode == -kill.signal:
            self.count(what, kill)
        elif process.exitcode:
            output = Path(process.name).read_text()[-600:]
            self.fault(f"{what}: status {process.exitcode} after {kill}: {output}")

    def counted(self) -> dict:
        kills, total = dict(sorted(self.kills.items())), self.kills.total()
        return {"kills": kills, "total": total, "runs": self.runs, "faults": self.faults}

    def count(self, what: str, kill: Kill) -> None:
        self.kills[f"{what}, {signal.Signals(kill.signal).name}"] += 1


def _quietly(output: Path, target: Callable, *args) -> None:
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    atexit._clear()  # handlers of the parent process
    try:
        status = target(*args)
    finally:
        # Before Python 3.13 a forked process ends without calling these; JAX then disconnects from
        # the other processes without notice, and they abort.
        atexit._run_exitfuncs()
    sys.exit(status)


def kill_training(campaign: Campaign, data: Path, kills: int, processes: int = 1) -> None:
    """Runs of two stages, each killed `KILLS_A_RUN` times and then allowed to finish."""
    config, cache = crash_run.make_config(data, EPOCHS), campaign.folder / "cache"
    whole = campaign.folder / f"whole{processes}"
    _start(campaign, config, whole, cache, processes)
    wanted = outcome(whole)
    wait, before = (2 if processes > 1 else KILLS_A_RUN), campaign.kills.total()
    while campaign.kills.total() - before < kills and campaign.in_time():
        workdir = campaign.folder / f"run{processes}_{campaign.runs}"
        for _ in range(min(wait, kills - campaign.kills.total() + before)):
            place = campaign.rng.choice(list(crash_run.PLACES))
            late = {"step": (1, 8), "between stages": (2, 2)}.get(place, (1, 3))
            delay = campaign.rng.choice((0.0, campaign.rng.uniform(0, 0.08)))
            number = campaign.rng.choice(SIGNALS if processes == 1 else SIGNALS[:1])
            kill = Kill(place, campaign.rng.randint(*late), delay, number)
            _start(campaign, config, workdir, cache, processes, kill)
        while not (workdir / "result.json").is_file() and not campaign.faults:
            _start(campaign, config, workdir, cache, processes)
        campaign.runs += 1
        for text in differences(workdir, wanted):
            campaign.fault(f"{workdir.name}: {text}")


def _start(campaign, config, workdir: Path, cache: Path, processes: int, kill: Kill | None = None):
    """One attempt of a run; one of several processes is killed, and the others must end too."""
    workdir.mkdir(exist_ok=True)
    who = [None]
    if processes > 1:
        with contextlib.closing(socket.socket()) as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(processes)}
        who = [shared | {"JAX_PROCESS_ID": str(number)} for number in range(processes)]
    victim = campaign.rng.randrange(processes)
    started = [
        campaign.start(
            crash_run.train, config, workdir, cache, kill if number == victim else None, one
        )
        for number, one in enumerate(who)
    ]
    what = f"{kill.place if kill else 'undisturbed'}{f', {processes} processes' * (processes > 1)}"
    saved = len(notes(workdir))
    campaign.ended(started[victim], kill, what)
    hit = kill is not None and started[victim].exitcode == -kill.signal
    if kill and kill.signal == signal.SIGTERM and started[victim].exitcode == 0:
        stopped = "stopped: step" in Path(started[victim].name).read_text()
        if stopped and len(notes(workdir)) >= saved:
            campaign.count(what, kill)
    for other in (process for process in started if process is not started[victim]):
        other.join(120)
        if other.exitcode is None or (other.exitcode == 0) == hit:
            said = Path(other.name).read_text()[-1500:]
            campaign.fault(f"{what}: the other process ended with {other.exitcode}: {said}")
            other.kill()


def kill_prepare(campaign: Campaign, source: Path, kills: int) -> None:
    """`prepare` of one folder, killed at any time; a partial dataset must never look complete."""
    start, whole = time.monotonic(), campaign.folder / "whole_data"
    campaign.ended(campaign.start(crash_run.prepare, source, whole), None, "prepare")
    seconds = time.monotonic() - start
    wanted = open_store(crash_run.DATASET, whole)
    before, tries = campaign.kills.total(), 0
    while campaign.kills.total() - before < kills and campaign.in_time():
        data, tries = campaign.folder / f"data{tries}", tries + 1
        kill = Kill("any", delay=campaign.rng.uniform(0, seconds), signal=_any(campaign))
        campaign.ended(campaign.start(crash_run.prepare, source, data, kill), kill, "prepare")
        with contextlib.suppress(UserError):
            if open_store(crash_run.DATASET, data).content != wanted.content:
                campaign.fault("prepare: wrong: a partial dataset looks whole")
        campaign.ended(campaign.start(crash_run.prepare, source, data), None, "prepare")
        campaign.ended(campaign.start(crash_run.verify, data), None, "prepare --check")
        if open_store(crash_run.DATASET, data).content != wanted.content:
            campaign.fault("prepare: wrong: other clips")


def kill_caption(campaign: Campaign, kills: int) -> None:
    """`caption`, killed at any time; written captions must persist, and the rest must follow."""
    videos, ready = campaign.folder / "videos", multiprocessing.get_context("fork").Queue()
    campaign.ended(campaign.start(crash_caption.write_videos, videos), None, "videos")
    server = campaign.start(crash_caption.serve, ready)
    url, start = ready.get(timeout=60), time.monotonic()
    whole = campaign.folder / "whole.jsonl"
    campaign.ended(campaign.start(crash_caption.caption, videos, whole, url), None, "caption")
    seconds, before, tries = time.monotonic() - start, campaign.kills.total(), 0
    while campaign.kills.total() - before < kills and campaign.in_time():
        out, tries = campaign.folder / f"captions{tries}.jsonl", tries + 1
        kill = Kill("any", delay=campaign.rng.uniform(0, seconds), signal=_any(campaign))
        process = campaign.start(crash_caption.caption, videos, out, url, kill)
        campaign.ended(process, kill, "caption")
        kept = crash_caption.read_lines(out)
        campaign.ended(campaign.start(crash_caption.caption, videos, out, url), None, "caption")
        for text in crash_caption.differences(out, kept):
            campaign.fault(f"caption: {text}")
    server.terminate()
    server.join()


def _any(campaign: Campaign) -> int:
    return campaign.rng.choice(SIGNALS)


def soak(campaign: Campaign, data: Path, steps: int) -> dict:
    """A long run, monitored from outside: numbers after a tenth of the steps, and at the end."""
    epochs = 20
    repeat = max(1, steps * 8 // (crash_run.TRAIN * epochs))
    config, workdir = crash_run.make_config(data, epochs, repeat, "T0"), campaign.folder / "soak"
    config.train.update(checkpoint_every=max(1, steps // 100), log_every=max(1, steps // 200))
    workdir.mkdir()
    process, seen = campaign.start(crash_run.train, config, workdir, campaign.folder / "cache"), []
    start = time.monotonic()
    while process.is_alive():
        with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
            line = (workdir / "metrics.jsonl").read_text().splitlines()[-1]
            seen.append({"step": json.loads(line)["step"], **_usage(process.pid)})
        process.join(1)
    campaign.ended(process, None, "soak")
    total = json.loads((workdir / "result.json").read_text())["steps"]
    early = next(one for one in seen if one["step"] >= total // 10)
    return {
        "steps": total,
        "seconds": round(time.monotonic() - start, 1),
        "after_a_tenth": early,
        "at_the_end": [one for one in seen if one["step"] < total][-1],
        "samples": seen[:: max(1, len(seen) // 20)],
    }


def _usage(pid: int) -> dict:
    """Memory, open files and threads of a process, from Linux's /proc."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {
        "memory_mib": round(int(fields["VmRSS"].split()[0]) / 1024, 1),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(fields["Threads"]),
    }


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crash_campaign")
    add = parser.add_argument
    add("--kills", type=int, default=200, help="total number (default 200)")
    add("--parts", nargs="+", default=list(SHARES), choices=list(SHARES), help="default all")
    add("--minutes", type=float, default=math.inf, help="start no further run after this time")
    add("--soak", type=int, default=0, metavar="STEPS", help="then a run of this many steps")
    add("--seed", type=int, default=0)
    add("--out", type=Path, help="JSON file of the counts")
    args = parser.parse_args(argv)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="crash_") as folder:
        campaign = Campaign(Path(folder), random.Random(args.seed))
        campaign.until = start + 60 * args.minutes
        source, data = Path(folder) / "source", Path(folder) / "data"
        crash_run.write_source(source)
        campaign.ended(campaign.start(crash_run.prepare, source, data), None, "prepare")
        found = read_result(args.out) if args.out and args.out.is_file() else {}
        whole = sum(SHARES[part] for part in args.parts)
        for part in args.parts if args.kills else ():
            _part(campaign, part, source, data, round(args.kills * SHARES[part] / whole))
            found |= campaign.counted()
            write_result(args.out, found)
            print(f"{part}: {found['total']} kills, {len(campaign.faults)} faults", flush=True)
        if args.soak:
            found |= {"soak": soak(campaign, data, args.soak)}
        found |= measured_here("crash_campaign", arguments=argv)
    found |= {"seconds": round(time.monotonic() - start, 1)}
    write_result(args.out, found)
    print(f"{campaign.kills.total()} kills, {len(campaign.faults)} lost or wrong outcomes")
    return int(bool(campaign.faults))


SHARES = {"two processes": 0.05, "caption": 0.1, "prepare": 0.15, "training": 0.7}


def _part(campaign: Campaign, part: str, source: Path, data: Path, kills: int) -> None:
    if part == "training":
        kill_training(campaign, data, kills)
    elif part == "two processes":
        kill_training(campaign, data, kills, processes=2)
    elif part == "caption":
        kill_caption(campaign, kills)
    else:
        kill_prepare(campaign, source, kills)


if __name__ == "__main__":
    sys.exit(main())
