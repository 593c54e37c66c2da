"""Token costs of captioning: estimated before the first answer, then counted by the server.

In: the settings of a run, and the replies of servers. Out: numbers of tokens and lines to print.
"""

import dataclasses
import math
from collections.abc import Sequence

PIXELS = 32 * 32  # per token of Qwen3-VL; similar for other models
LETTERS = 4  # per token of English text
ANSWER = 40  # tokens per sentence
SHAPE = 9 / 16  # of a picture, shorter to longer side


@dataclasses.dataclass
class Tokens:
    """Tokens of a number of answers.

    Attributes:
      prompt, completion: tokens, as counted by the servers.
      answers: number of answers with a count.
      uncounted: number of answers without.
    """

    prompt: int = 0
    completion: int = 0
    answers: int = 0
    uncounted: int = 0

    def add(self, reply: object) -> None:
        """Adds a chat completion; a server may reply with anything."""
        usage = reply.get("usage") if isinstance(reply, dict) else None
        usage = usage if isinstance(usage, dict) else {}
        found = [usage.get(f"{kind}_tokens") for kind in ("prompt", "completion")]
        if all(type(number) is int and 0 <= number < 1 << 40 for number in found):
            self.prompt, self.completion = self.prompt + found[0], self.completion + found[1]
            self.answers += 1
        else:
            self.uncounted += 1

    def total(self, prices: Sequence[float] | None = None) -> str:
        """One line with the tokens of the answers; "" without answers."""
        if not self.answers + self.uncounted:
            return ""
        if not self.answers:
            return "tokens: the server does not count them"
        without = f"; answers without a count: {self.uncounted:,}" if self.uncounted else ""
        return f"tokens: {_spelt(self.prompt, self.completion, prices)}{without}"

    def estimate(self, requests: int, prices: Sequence[float] | None = None) -> str:
        """One line with the estimate for `requests`, from the answers so far (at least one)."""
        prompt, completion = (n / self.answers for n in (self.prompt, self.completion))
        spelt = _spelt(round(requests * prompt), round(requests * completion), prices)
        return f"about {spelt} for {requests:,} requests, by the first answer"


def guess(
    requests: int, frames: int, size: int, prompt: str, prices: Sequence[float] | None = None
) -> str:
    """One line with the estimate for `requests`, before the first answer.

    Args:
      frames: pictures per request, or pairs of frames of a video.
      size: their longer side, in pixels.
    """
    picture = math.ceil(size * size * SHAPE / PIXELS)
    each = frames * picture + math.ceil(len(prompt) / LETTERS)
    spelt = _spelt(requests * each, requests * ANSWER, prices)
    return (
        f"about {spelt} for {requests:,} requests, at 32 x 32 pixels per token as in Qwen3-VL "
        f"({frames} pictures of {picture} tokens)"
    )


def _spelt(prompt: int, completion: int, prices: Sequence[float] | None) -> str:
    cost = ""
    if prices:
        money = (prompt * prices[0] + completion * prices[1]) / 1e6
        cost = f", {money:,.2f} by --prices"
    return f"{prompt:,} prompt and {completion:,} completion tokens{cost}"
