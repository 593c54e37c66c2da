"""The caption bank: sentences about known classes, for clips that have no caption of their own.

In: class names. Out: for each class the sentences that describe it (`bank/*.json`: class name ->
mentions, captions), and for a sentence the class that it names.
"""

import dataclasses
import functools
import importlib.resources
import json
import re
from collections.abc import Iterable, Mapping

TEMPLATE = "A person is performing the action: {}."


@dataclasses.dataclass(frozen=True)
class ClassText:
    """What the bank says about a class.

    Attributes:
      mentions: lower-case phrases; a text that holds one names the class.
      captions: sentences, each of which holds a mention.
      template: the class is in no bank file, and this is the one stock sentence.
    """

    mentions: tuple[str, ...]
    captions: tuple[str, ...]
    template: bool = False


def bank(classes: Iterable[str] | None = None) -> dict[str, ClassText]:
    """The bank's text for each class name, in that order; None for all that is shipped.

    Names are compared without regard to case and the kind of apostrophe. Entries of one name in
    several files are joined. A class that no file has gets a stock sentence and `template=True`.
    """
    shipped = _shipped()
    if classes is None:
        return dict(shipped.values())
    texts = {}
    for name in classes:
        stock = ClassText((name.lower(),), (TEMPLATE.format(name),), template=True)
        texts[name] = shipped.get(_key(name), (name, stock))[1]
    return texts


def named_class(text: str, bank: Mapping[str, ClassText]) -> str | None:
    """The class whose mention occurs in the text as whole words, or None.

    Case, hyphens and punctuation do not count. Where mentions of several classes occur the longest
    wins, then the earliest in the text, then the first class.
    """
    padded = f" {_words(text)} "
    best, winner = (0, 0), None
    for name, entry in bank.items():
        for mention in map(_words, entry.mentions):
            at = padded.find(f" {mention} ")
            if at >= 0 and (len(mention), -at) > best:
                best, winner = (len(mention), -at), name
    return winner


@functools.cache
def _shipped() -> dict[str, tuple[str, ClassText]]:
    """Key -> class name and its text, over all bank files."""
    shipped: dict[str, tuple[str, ClassText]] = {}
    folder = importlib.resources.files("hocslm_jax.data") / "bank"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".json"):
            for name, entry in json.loads(file.read_text(encoding="utf-8")).items():
                name, known = shipped.get(_key(name), (name, ClassText((), ())))
                mentions = dict.fromkeys([*known.mentions, *entry["mentions"]])
                captions = dict.fromkeys([*known.captions, *entry["captions"]])
                shipped[_key(name)] = name, ClassText(tuple(mentions), tuple(captions))
    return shipped


def _key(name: str) -> str:
    return name.strip().casefold().replace("’", "'")


@functools.lru_cache(1 << 14)
def _words(text: str) -> str:
    """Lower-case words with a space between; hyphens and punctuation are gaps."""
    return " ".join(re.findall(r"\w+", text.lower()))
