"""SIGTERM and Ctrl-C, noted instead of obeyed, so that a run can save before it leaves."""

import contextlib
import signal
from collections.abc import Iterable, Iterator

import jax


class Interrupted(Exception):
    """A signal arrived during evaluation."""


@contextlib.contextmanager
def catch_signals() -> Iterator[list]:
    """Collects SIGTERM and SIGINT instead of dying; a second Ctrl-C interrupts at once.

    With several hosts nothing is caught: JAX's preemption service tells all of them the same step.
    """
    received: list = []
    if jax.process_count() > 1:
        yield received
        return

    def note(signum, frame):
        del frame
        received.append(signum)
        signal.signal(signum, old[signum])

    old = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for signum, handler in old.items():
            signal.signal(signum, handler)


def until_signal(batches: Iterable, received: list) -> Iterator:
    """`batches`, until a signal is received. Raises Interrupted then."""
    for batch in batches:
        if received:
            raise Interrupted
        yield batch
