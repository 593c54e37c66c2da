"""Progress of a long loop: a bar on a terminal, otherwise a line from time to time.

In: a loop's total and, after each of its steps, how many are done and some numbers. Out: a tqdm bar
with the time left on a terminal; otherwise a line every `every_s` seconds, or after each step that
takes longer:

    step 1,200/3,000  loss 0.5123  68.1 clips/s  1:12 left

In a run of several processes, process 0 alone prints.
"""

import sys
import time
from typing import Any

from tqdm import tqdm

REFRESH_S = 0.5  # of the bar


class Progress:
    """Reports a loop's progress; a context manager.

        with Progress(total=3000, unit="step") as progress:
            for step in range(1, 3001):
                loss = train_step(...)
                progress.update(step, loss=loss, clips_per_s=rate)

    Args:
        total: steps of the whole loop.
        start: steps done by an earlier run, which this one continues.
        unit: one step's name.
        every_s: longest time between two lines if the output is not a terminal.
        leave: False removes the bar from the terminal at the end.
    """

    def __init__(
        self,
        total: int,
        start: int = 0,
        unit: str = "step",
        every_s: float = 30.0,
        leave: bool = True,
    ):
        self._total, self._unit, self._done = total, unit, start
        self._silent = not _prints()
        self._bar, self._interval = None, every_s
        if not self._silent and sys.stderr.isatty():
            self._bar = tqdm(total=total, initial=start, unit=unit, dynamic_ncols=True, leave=leave)
            self._interval = REFRESH_S
        # The first step includes compiling, so the rate is measured from its end.
        self._first: tuple[int, float] | None = None
        self._last = time.monotonic()

    def update(self, step: int, **numbers: Any) -> None:
        """Records that `step` steps of the whole loop are done; reports progress if it is time.

        Args:
            numbers: what to show. One whose name ends in `_per_s` is shown as a rate: `68.1
                clips/s` for `clips_per_s`. Scalars on a device are only fetched when they are
                shown, so other steps do not wait for them.
        """
        now = time.monotonic()
        self._done = step
        self._first = self._first or (step, now)
        if not self._silent and now - self._last >= self._interval:
            self._last = now
            self._report({name: float(number) for name, number in numbers.items()})

    def close(self) -> None:
        """Ends the bar, so that other output may follow."""
        if self._bar is not None:
            self._bar.update(self._done - self._bar.n)
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _report(self, numbers: dict[str, float]) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str("  ".join(_shown(*item) for item in numbers.items()), False)
            self._bar.update(self._done - self._bar.n)
            return
        first, since = self._first
        seconds = time.monotonic() - since
        rate = (self._done - first) / seconds if seconds else 0.0  # steps a second
        if rate and not any(name.endswith("_per_s") for name in numbers):
            numbers |= {f"{self._unit}s_per_s": rate}
        parts = [f"{self._unit} {self._done:,}/{self._total:,}"]
        parts += [_shown(*item) for item in numbers.items()]
        if rate:
            parts.append(f"{tqdm.format_interval((self._total - self._done) / rate)} left")
        print("  ".join(parts), flush=True)


def _prints() -> bool:
    """Whether this is process 0; a program that has not imported JAX has one process."""
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0


def _shown(name: str, number: float) -> str:
    if name.endswith("_per_s"):
        return f"{number:,.1f} {name.removesuffix('_per_s')}/s"
    return f"{name} {number:.4g}"
