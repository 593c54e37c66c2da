"""How many tokens captioning takes: guessed before the first answer, then counted by the server.

In: the settings of a run, and the replies of servers. Out: numbers of tokens and lines to print.
"""

import dataclasses
import math
from collections.abc import Sequence

PIXELS = 32 * 32  # that one token shows to Qwen3-VL; other models differ by a small factor
LETTERS = 4  # of a token of English text
ANSWER = 40  # tokens of a sentence
SHAPE = 9 / 16  # of a picture, shorter to longer side


@dataclasses.dataclass
class Tokens:
    """Tokens of some answers.

    Attributes:
      prompt, completion: as the servers count them.
      answers: those with a count.
      uncounted: those without.
    """

    prompt: int = 0
    completion: int = 0
    answers: int = 0
    uncounted: int = 0

    def add(self, reply: object) -> None:
        """Counts a chat completion in; a server may reply with anything."""
        usage = reply.get("usage") if isinstance(reply, dict) else None
        usage = usage if isinstance(usage, dict) else {}
        found = [usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")]
        if all(type(number) is int and 0 <= number < 1 << 40 for number in found):
            self.prompt, self.completion = self.prompt + found[0], self.completion + found[1]
            self.answers += 1
        else:
            self.uncounted += 1

    def total(self, prices: Sequence[float] | None = None) -> str:
        """A line that says what the answers took, "" where there was none."""
        if not self.answers + self.uncounted:
            return ""
        if not self.answers:
            return "tokens: the server does not count them"
        without = f"; answers without a count: {self.uncounted:,}" if self.uncounted else ""
        return f"tokens: {_spelt(self.prompt, self.completion, prices)}{without}"

    def estimate(self, requests: int, prices: Sequence[float] | None = None) -> str:
        """A line that says what so many requests take, by the answers so far (at least one)."""
        prompt, completion = (n / self.answers for n in (self.prompt, self.completion))
        spelt = _spelt(round(requests * prompt), round(requests * completion), prices)
        return f"about {spelt} for {requests:,} requests, by the first answer"


def guess(
    requests: int, frames: int, size: int, prompt: str, prices: Sequence[float] | None = None
) -> str:
    """A line that says what so many requests may take, before any answer is there.

    Args:
      frames: pictures of a request, or pairs of frames of a video.
      size: their longer side, pixels.
    """
    picture = math.ceil(size * size * SHAPE / PIXELS)
    each = frames * picture + math.ceil(len(prompt) / LETTERS)
    spelt = _spelt(requests * each, requests * ANSWER, prices)
    return (
        f"about {spelt} for {requests:,} requests, if a token shows 32 x 32 pixels as in Qwen3-VL "
        f"({frames} pictures of {picture} tokens)"
    )


def _spelt(prompt: int, completion: int, prices: Sequence[float] | None) -> str:
    cost = ""
    if prices:
        money = (prompt * prices[0] + completion * prices[1]) / 1e6
        cost = f", {money:,.2f} by --prices"
    return f"{prompt:,} prompt and {completion:,} completion tokens{cost}"
