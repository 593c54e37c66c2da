"""Records SIGTERM and Ctrl-C, so that a run can save before it stops."""

import contextlib
import dataclasses
import signal
from collections.abc import Iterable, Iterator

from hocslm_jax import hosts


class Interrupted(Exception):
    """The run was asked to stop during evaluation."""


class Stop:
    """Whether a run was asked to stop; with several processes, a signal to one stops them all.

    Attributes:
      received: signals that this process received.
      agreed: whether `ask` has returned True, which it does on all processes at the same call.
    """

    def __init__(self):
        self.received: list[int] = []
        self.agreed = False

    def ask(self) -> bool:
        self.agreed = self.agreed or hosts.agree_to_stop(bool(self.received))
        return self.agreed

    @property
    def status(self) -> int:
        """The exit status of a process that stops: 130 after Ctrl-C."""
        return 130 if signal.SIGINT in self.received else 0


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a run ended; equal on all processes except for `status`.

    Attributes:
      finished: the last step is done and its result written.
      stopped: a signal was received, so nothing more should be started.
      status: the exit status of a process that stops here, 130 after Ctrl-C.
    """

    finished: bool
    stopped: bool = False
    status: int = 0


@contextlib.contextmanager
def catch_signals() -> Iterator[Stop]:
    """Records SIGTERM and SIGINT; a second Ctrl-C interrupts at once."""
    stop = Stop()

    def note(signum, frame):
        del frame
        stop.received.append(signum)
        signal.signal(signum, old[signum])

    old = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def until_stopped(batches: Iterable, stop: Stop) -> Iterator:
    """Yields `batches`; raises Interrupted when the run is asked to stop."""
    for batch in batches:
        if stop.ask():
            raise Interrupted
        yield batch
