"""`caption --audit`: compares captions with the classes of their clips, before training.

In: a captions file, and the class of each clip. Out: a table with one row per class, the classes
with the least agreement first, and the same as JSON. It needs no server.

A caption names a class if it contains one of the bank's phrases for it. In addition, each caption
is compared with the bank's sentences by TF-IDF: it is most like the class with the most similar
sentences.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from hocslm_jax.data.caption_bank import ClassText, bank, named_class, words
from hocslm_jax.data.captions import read_captions
from hocslm_jax.data.prepare.ntu.classes import NTU120
from hocslm_jax.data.prepare.ntu.skeleton import parse_name
from hocslm_jax.data.store import INDEX, open_store
from hocslm_jax.errors import UserError, few
from hocslm_jax.files.atomic import make_folder, write_json
from hocslm_jax.files.text import parse_json, read_lines, read_table
from hocslm_jax.language.caption.answers import problem
from hocslm_jax.language.caption.caption_files import rejected_file


@dataclasses.dataclass
class ClassAudit:
    """Counts of one class.

    Attributes:
      clips: clips of the class with a caption.
      captions: captions of these clips.
      named: captions that name the class.
      named_other: captions that name another class of the dataset.
      alike: captions whose words are most like the bank's sentences of the class.
      taken_for: the other class that most captions are most like; "" if there is none.
      taken: number of these captions.
      repeated: captions that another clip also has, word for word.
      doubtful: captions that are refusals, noise or too short, which `--no-check` allows.
      refused: clips without a caption because all of their answers were rejected.
    """

    clips: int = 0
    captions: int = 0
    named: int = 0
    named_other: int = 0
    alike: int = 0
    taken_for: str = ""
    taken: int = 0
    repeated: int = 0
    doubtful: int = 0
    refused: int = 0

    @property
    def agreement(self) -> float:
        """Share of the captions that name the class; 0 without captions."""
        return self.named / self.captions if self.captions else 0.0


def run(path: str, labels: str | None, out: str | None) -> int:
    """Audits the file `path`, prints the table, and writes JSON to `out`; returns the exit status.

    Raises:
      UserError: the file is missing or damaged, no class is known, or `out` would replace captions.
    """
    if out and (Path(out).suffix == ".jsonl" or Path(out).resolve() == Path(path).resolve()):
        raise UserError(f"--out {out} of an audit is one JSON object; name a file like audit.json")
    captions = {clip: [c.caption for c in found] for clip, found in read_captions(path).items()}
    rejected = rejected_file(path)
    refused = set(_ids(rejected)) - set(captions) if rejected.is_file() else set()
    class_of, texts = _classes(Path(path), labels, {*captions, *refused})
    unknown = sorted((set(captions) | refused) - set(class_of))
    if not captions:
        raise UserError(f"{path} has no captions; name the file that a captioning run wrote")
    if not set(captions) - set(unknown):
        advice = f"{labels} has none of their ids" if labels else "name it with --labels"
        raise UserError(f"{path}: none of its clips has a known class; {advice}")
    rows = audit(captions, class_of, texts, refused)
    print("\n".join(table(rows)))
    if unknown:
        print(f"left out, of unknown class: {len(unknown):,} ({few(unknown, most=3)})")
    if out:
        found = [{"class": name, "agreement": r.agreement, **vars(r)} for name, r in rows.items()]
        make_folder("--out", Path(out).parent)
        write_json(Path(out), {"captions": str(path), "unknown": len(unknown), "classes": found})
    return 0


def audit(
    captions: Mapping[str, list[str]],
    class_of: Mapping[str, str],
    texts: Mapping[str, ClassText],
    refused: Iterable[str] = (),
) -> dict[str, ClassAudit]:
    """Class name -> its counts, the classes with the least agreement first.

    Args:
      captions: clip id -> sentences.
      class_of: clip id -> class name; other clips are ignored.
      texts: the bank's texts of each class of the dataset.
      refused: ids of clips without a caption.
    """
    times = collections.Counter(itertools.chain.from_iterable(map(set, captions.values())))
    likeness = Likeness(texts)
    rows = {name: ClassAudit() for name in texts}
    taken = {name: collections.Counter() for name in texts}
    for clip, sentences in captions.items():
        if clip not in class_of:
            continue
        name = class_of[clip]
        row = rows[name]
        row.clips += 1
        for sentence in sentences:
            named, like = named_class(sentence, texts), likeness.nearest(sentence)
            row.captions += 1
            row.named += named == name
            row.named_other += named not in (name, None)
            row.alike += like == name
            row.repeated += times[sentence] > 1
            row.doubtful += problem(sentence) is not None
            if like not in (name, None):
                taken[name][like] += 1
    for clip in refused:
        if clip in class_of:
            rows[class_of[clip]].refused += 1
    for name, others in taken.items():
        if others:
            (rows[name].taken_for, rows[name].taken) = others.most_common(1)[0]
    seen = {name: row for name, row in rows.items() if row.captions or row.refused}
    return dict(sorted(seen.items(), key=lambda item: (item[1].agreement, -item[1].captions)))


class Likeness:
    """Finds the class whose sentences in the bank are most similar to a text.

    Similarity is the cosine of the TF-IDF vectors of the words.
    """

    def __init__(self, texts: Mapping[str, ClassText]):
        self.names = list(texts)
        counts = [
            collections.Counter(words(" ".join(text.captions)).split()) for text in texts.values()
        ]
        spread = collections.Counter(itertools.chain.from_iterable(counts))
        self.rarity = {word: math.log(len(counts) / n) for word, n in spread.items()}
        self.shares = {word: np.zeros(len(counts)) for word in spread}
        for number, count in enumerate(counts):
            weights = {word: n * self.rarity[word] for word, n in count.items()}
            length = math.hypot(*weights.values()) or 1.0
            for word, weight in weights.items():
                self.shares[word][number] = weight / length

    def nearest(self, text: str) -> str | None:
        """The class that a text is most like, or None if it shares no informative word with any."""
        found = [word for word in words(text).split() if self.rarity.get(word)]
        if not found:
            return None
        scores = sum(self.rarity[word] * self.shares[word] for word in found)
        return self.names[int(np.argmax(scores))]


def table(rows: Mapping[str, ClassAudit]) -> list[str]:
    """Lines of the table: a heading, a row for each class, and the total."""
    width = max(len("all classes"), *map(len, rows))
    heading = ("captions", "named", "share", "other", "alike", "repeated", "doubtful", "refused")
    lines = ["  ".join([f"{'class':<{width}}", *(f"{h:>8}" for h in heading), "most taken for"])]
    for name, row in [*rows.items(), ("all classes", _all(rows.values()))]:
        cells = [row.captions, row.named, f"{row.agreement:.0%}", row.named_other, row.alike]
        cells += [row.repeated, row.doubtful, row.refused]
        taken = f"{row.taken_for} ({row.taken})" if row.taken else ""
        shown = (f"{c:>8,}" if isinstance(c, int) else f"{c:>8}" for c in cells)
        lines.append("  ".join([f"{name:<{width}}", *shown, taken]).rstrip())
    return lines


def _all(rows: Iterable[ClassAudit]) -> ClassAudit:
    """The sums over the classes."""
    rows = list(rows)
    names = [f.name for f in dataclasses.fields(ClassAudit) if f.name not in ("taken_for", "taken")]
    return ClassAudit(**{name: sum(getattr(row, name) for row in rows) for name in names})


def _classes(
    path: Path, labels: str | None, clips: Iterable[str]
) -> tuple[dict[str, str], dict[str, ClassText]]:
    """Clip id -> class, and the bank's texts of all classes.

    Classes are from `labels`, otherwise from the prepared dataset in the folder of the file,
    otherwise from the file names of NTU.
    """
    folder = path.resolve().parent
    if labels:
        rows = read_table(labels, ("id", "label"))
        class_of = {cells["id"]: cells["label"] for _, cells in rows if cells["label"]}
        return class_of, bank(dict.fromkeys(class_of.values()))
    if (folder / INDEX).is_file():
        store = open_store(folder.name, folder.parent)
        names = [store.classes[label] for label in store.labels]
        return dict(zip(store.ids, names, strict=True)), bank(store.classes, store.name)
    class_of = {}
    for clip in clips:
        try:
            class_of[clip] = NTU120[parse_name(clip).action - 1]
        except (ValueError, IndexError):
            continue
    return class_of, bank(NTU120, "ntu120")


def _ids(path: Path) -> Iterable[str]:
    """The ids in a file of rejected answers; other lines are ignored."""
    for _, line in read_lines(path):
        try:
            record = parse_json(line)
            yield str(record["id"])
        except (ValueError, KeyError, TypeError):
            continue
