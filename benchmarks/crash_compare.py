"""Compares two runs: saved states, metrics, and the counts of the result.

In: workdirs of runs that recorded their states (`crash_run.note_states`). Out: the differences.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks import crash_run

TIMINGS = ("step_time_s", "samples_per_s")


def notes(workdir: Path) -> dict[tuple[str, int], str]:
    """(folder, step) -> hash of the saved state, from the last record of each."""
    path = workdir / crash_run.NOTES
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n") and line.startswith("{")]
    return {(row["folder"], row["step"]): row["hash"] for row in rows}


def outcome(workdir: Path) -> dict:
    """Everything that must be equal in a finished run and an undisturbed one."""
    found = {}
    for folder in (workdir / "stages/1", workdir):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        rows = [{k: v for k, v in json.loads(x).items() if k not in TIMINGS} for x in lines]
        result = json.loads((folder / "result.json").read_text())
        counts = [result[key] for key in ("correct", "total", "best_correct", "steps")]
        found[folder.relative_to(workdir).as_posix()] = (rows, counts)
    return {"reports": found, "states": notes(workdir)}


def differences(workdir: Path, wanted: dict) -> Iterator[str]:
    """The differences from the undisturbed run; every state that both saved is compared."""
    try:
        found = outcome(workdir)
    except (OSError, ValueError, KeyError) as error:
        yield f"lost: {error!r}"
        return
    if found["reports"] != wanted["reports"]:
        yield "wrong: other metrics or results"
    last = [max(step for folder, step in wanted["states"] if folder == f) for f in _folders(wanted)]
    for folder, step in zip(_folders(wanted), last, strict=True):
        if (folder, step) not in found["states"]:
            yield f"lost: {folder} was never saved at step {step}"
    for key in found["states"].keys() & wanted["states"].keys():
        if found["states"][key] != wanted["states"][key]:
            yield f"wrong: another state in {key[0]} at step {key[1]}"


def _folders(found: dict) -> list[str]:
    return sorted({folder for folder, _ in found["states"]})
