"""How far a long loop is: a bar on a terminal, elsewhere a line now and then.

In: a loop's total and, after each of its steps, how many are done and some numbers. Out: on a
terminal a tqdm bar with the time left; else a line at least every `every_s` seconds, as long as
single steps are shorter than that:

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
        start: steps done before, by an earlier run that this one continues.
        unit: one step's name.
        every_s: longest time between two lines where the output is not a terminal.
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
        # The first step compiles, so the rate is counted from its end.
        self._first: tuple[int, float] | None = None
        self._last = time.monotonic()

    def update(self, step: int, **numbers: Any) -> None:
        """Notes that `step` steps of the whole loop are done, and reports them if it is time.

        Args:
            numbers: what to show. One whose name ends in `_per_s` is shown as a rate: `68.1
                clips/s` for `clips_per_s`. Scalars on a device are fetched when they are shown
                only, so they cost the other steps nothing.
        """
        now = time.monotonic()
        self._done = step
        self._first = self._first or (step, now)
        if not self._silent and now - self._last >= self._interval:
            self._last = now
            self._report({name: float(number) for name, number in numbers.items()})

    def close(self) -> None:
        """Leaves the bar as it is; the output is free for others."""
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
    """Whether this is process 0; a program without JAX has one process, and keeps off the GPU."""
    jax = sys.modules.get("jax")
    return jax is None or jax.process_index() == 0


def _shown(name: str, number: float) -> str:
    if name.endswith("_per_s"):
        return f"{number:,.1f} {name.removesuffix('_per_s')}/s"
    return f"{name} {number:.4g}"
