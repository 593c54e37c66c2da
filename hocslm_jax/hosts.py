"""Coordinates the processes of a run on several hosts: decide, wait, compare, stop and end.

In: a function, a value or a signal of one process. Out: the same answer, or the same UserError, on
all of them. New files may appear late in a shared folder, so only process 0 reads it and informs
the others. Messages use JAX's coordination service, which needs no device and detects dead
processes. Every process must call these functions in the same
order. With a single process they return at once.
"""

import atexit
import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax._src import distributed  # the only access to the service; Orbax uses it too

from hocslm_jax.errors import UserError

WAIT_S = 7 * 24 * 3600  # for work of another process; a dead process is detected long before
LAG_S = 60  # most seconds until files of another host appear in a shared folder
# Calls of `agree_to_stop` between a signal and the stop: more than the number of steps that one
# process can be ahead of another (`loop.AHEAD`).
LEAD = 8
ENDED, STOP = "hocslm/ended", "hocslm/stop"

_calls, _asked = itertools.count(), itertools.count()
_acting: list[str] = []  # the call of `on_first` whose `act` runs now, on process 0
_watchers: list[threading.Thread] = []


def on_first(act: Callable[[], Any]) -> Any:
    """Runs `act` on process 0 only; returns its value (JSON types) on every process.

    The other processes wait for it without a time limit. Within `act`, the functions of this module
    behave as in a run of one process.

    Raises:
        UserError: raised by process 0; other processes report any error of process 0 in this way.
    """
    if _alone():
        return act()
    key = f"hocslm/first/{next(_calls)}"
    if jax.process_index() != 0:
        answer = json.loads(_get(key))
        if "error" in answer:
            raise UserError(answer["error"])
        return answer["value"]
    _acting.append(key)
    try:
        answer = {"value": act()}
    except BaseException as error:
        _set(key, json.dumps({"error": message_of(error)}))
        raise
    finally:
        _acting.clear()
    _set(key, json.dumps(answer))
    return answer["value"]


def wait_for_all() -> None:
    """Returns when every process has called it."""
    if not _alone():
        distributed.global_state.client.wait_at_barrier(
            f"hocslm/barrier/{next(_calls)}", WAIT_S * 1000
        )


def any_process(value: bool) -> bool:
    """Whether `value` holds on any process."""
    return _on_all_values(value, any)


def check_same(
    what: str,
    mine: Callable[[], Mapping[str, Any]],
    advice: str = "make them equal on every host",
) -> None:
    """Compares a flat mapping of JSON values with that of process 0.

    Raises:
        UserError: they differ on some process; the message names it, its host, and the keys.
    """
    if not _alone():
        here = [socket.gethostname(), mine()]
        _on_all_values(here, lambda found: _compare(what, found, advice))


def _compare(what: str, found: Sequence[tuple[str, Mapping[str, Any]]], advice: str) -> None:
    (here, wanted), *others = found
    for number, (there, values) in enumerate(others, 1):
        keys = [k for k in sorted(wanted.keys() | values.keys()) if wanted.get(k) != values.get(k)]
        if keys:
            shown = ", ".join(
                f"{k} ({_short(values.get(k))} there, {_short(wanted.get(k))} on process 0)"
                for k in keys[:2]
            )
            more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
            raise UserError(
                f"process {number} ({there}) and process 0 ({here}) differ in {what}: "
                f"{shown}{more}; {advice}"
            )


def wait_to_see(path: Path, inside: bool = False) -> None:
    """Waits until this host sees a file or folder of process 0, and with `inside` its content.

    Raises:
        UserError: it does not appear within `LAG_S`.
    """
    if _alone():
        return
    names = on_first(lambda: [str(p.relative_to(path)) for p in path.rglob("*")] if inside else [])
    deadline = time.monotonic() + LAG_S
    for one in (path, *(path / name for name in names)):
        while not one.exists():
            if time.monotonic() > deadline:
                raise UserError(
                    f"process {jax.process_index()} ({socket.gethostname()}) does not see {one}, "
                    "but process 0 does: it must be in a folder that all hosts share"
                )
            time.sleep(0.2)


def agree_to_stop(asked: bool) -> bool:
    """Whether the run stops: true on all processes at the same call after one has `asked`.

    Between two calls there must be a step or batch of all processes, which keeps them within `LEAD`
    calls of each other.
    """
    if _alone():
        return asked
    now = next(_asked)
    if asked:
        _set_once(STOP, str(now + LEAD))
    at = _try_get(STOP)
    return at is not None and now >= int(at)


def _alone() -> bool:
    return bool(_acting) or jax.process_count() == 1


def give_up(seconds: float) -> None:
    """Ends this process because the others did not connect in time."""
    where = distributed.global_state.coordinator_address
    text = (
        f"error: --distributed: not all processes connected to {where} within {seconds:g} s: "
        "start one on every host, check that it reaches that address, or raise --join_timeout"
    )
    print(text, file=sys.stderr, flush=True)
    os._exit(2)


def join_watch() -> None:
    """From now on this process ends when another one calls `end_all`."""
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(over,), daemon=True)
    watcher.start()
    _watchers.append(watcher)
    # The interpreter must not exit while the thread uses the service.
    atexit.register(lambda: (over.set(), watcher.join()))


def end_all(error: BaseException) -> None:
    """Ends all other processes with this error's message; returns when this one may end too.

    If another process failed first, it does not return: this process ends with that message.
    """
    if not _watchers:
        return
    message = json.dumps([jax.process_index(), message_of(error)])
    if not _set_once(ENDED, message):
        if not isinstance(error, UserError | KeyboardInterrupt):
            traceback.print_exception(error)
        _watchers[0].join()


def message_of(error: BaseException) -> str:
    """The message about an error for the other processes."""
    if isinstance(error, UserError):
        return str(error)
    where = f"process {jax.process_index()} ({socket.gethostname()})"
    if isinstance(error, KeyboardInterrupt):
        return f"{where} was interrupted; rerun the same command to resume"
    reason = str(error).strip().partition("\n")[0][:160]
    return f"{where} failed with {type(error).__name__}: {reason}; see what it printed"


def _watch(over: threading.Event) -> None:
    while not over.wait(1.0):
        first, text = json.loads(_try_get(ENDED) or '[null, ""]')
        if first == jax.process_index():
            return
        if first is not None:
            print(f"error: {text}", file=sys.stderr, flush=True)
            sys.stdout.flush()
            with contextlib.suppress(Exception):
                jax.distributed.shutdown()  # the process that called first waits for it
            os._exit(2)


def _on_all_values(value: Any, act: Callable[[list], Any]) -> Any:
    """Applies `act` to the values of all processes, in order; all of them return its result."""
    if _alone():
        return act([value])
    key = f"hocslm/all/{next(_calls)}"
    _set(f"{key}/{jax.process_index()}", json.dumps(value))
    every = (f"{key}/{number}" for number in range(jax.process_count()))
    return on_first(lambda: act([json.loads(_get(one)) for one in every]))


def _get(key: str) -> str:
    return distributed.global_state.client.blocking_key_value_get(key, WAIT_S * 1000)


def _set(key: str, value: str) -> None:
    distributed.global_state.client.key_value_set(key, value)


def _set_once(key: str, value: str) -> bool:
    """Sets a key unless it is set; returns whether it was unset."""
    try:
        _set(key, value)
    except RuntimeError as error:
        return "ALREADY_EXISTS" not in str(error)
    return True


def _try_get(key: str) -> str | None:
    try:
        return distributed.global_state.client.key_value_try_get(key)
    except RuntimeError:  # there is none
        return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def say(text: str) -> None:
    """Prints one line, on process 0 only."""
    if jax.process_index() == 0:
        if sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.write(text)
        else:
            print(text, flush=True)
