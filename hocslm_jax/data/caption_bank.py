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
_NTU = ("ntu_a001_a060", "ntu_a061_a120")
FILES = {  # of each dataset, in bank/
    "ntu60": _NTU,
    "ntu120": _NTU,
    "ntu120_mini": _NTU,
    "nw_ucla": ("nw_ucla",),
    "quickstart": ("quickstart",),
}


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


def bank(classes: Iterable[str] | None = None, dataset: str = "") -> dict[str, ClassText]:
    """The bank's text for each class name, in that order; None for all that is shipped.

    Each dataset has files of its own. A class is looked for there first, then in the others in
    alphabetical order; the first file that has it gives all its sentences. Names are compared
    without regard to case and the kind of apostrophe. A class that no file has gets a stock
    sentence and `template=True`.

    Args:
      dataset: as `prepare` calls it, e.g. "nw_ucla"; other names have no files of their own.
    """
    own = FILES.get(dataset, ())
    files = _shipped()
    found: dict[str, tuple[str, ClassText]] = {}
    for name in (*own, *(name for name in files if name not in own)):
        found = {**files[name], **found}
    if classes is None:
        return dict(found.values())
    texts = {}
    for name in classes:
        stock = ClassText((name.lower(),), (TEMPLATE.format(name),), template=True)
        texts[name] = found.get(_key(name), (name, stock))[1]
    return texts


def named_class(text: str, bank: Mapping[str, ClassText]) -> str | None:
    """The class whose mention occurs in the text as whole words, or None.

    Case, hyphens and punctuation do not count. Where mentions of several classes occur the longest
    wins, then the earliest in the text, then the first class.
    """
    padded = f" {words(text)} "
    best, winner = (0, 0), None
    for name, entry in bank.items():
        for mention in map(words, entry.mentions):
            at = padded.find(f" {mention} ")
            if at >= 0 and (len(mention), -at) > best:
                best, winner = (len(mention), -at), name
    return winner


@functools.lru_cache(1 << 14)
def words(text: str) -> str:
    """Lower-case words with a space between; hyphens and punctuation are gaps."""
    return " ".join(re.findall(r"\w+", text.lower()))


@functools.cache
def _shipped() -> dict[str, dict[str, tuple[str, ClassText]]]:
    """File name -> key -> class name and its text, of all bank files in alphabetical order."""
    folder = importlib.resources.files("hocslm_jax.data") / "bank"
    shipped = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".json"):
            entries = json.loads(file.read_text(encoding="utf-8")).items()
            shipped[file.name.removesuffix(".json")] = {
                _key(name): (name, ClassText(tuple(entry["mentions"]), tuple(entry["captions"])))
                for name, entry in entries
            }
    return shipped


def _key(name: str) -> str:
    return name.strip().casefold().replace("’", "'")
