"""The captions of a dataset's clips, as token ids for training.

In: `captions.jsonl` of a prepared dataset (one JSON object a line: id, caption, model, prompt,
time) and, for clips without a caption, the caption bank. Out: a CaptionTable of token ids that is
indexed by the rows of a Store.
"""

import dataclasses
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hocslm_jax.data.caption_bank import bank
from hocslm_jax.data.store import Store
from hocslm_jax.data.streams import check_choice
from hocslm_jax.data.tokenizer import Tokenizer, encode_caption
from hocslm_jax.errors import UserError
from hocslm_jax.files.text import parse_json, read_lines

CAPTIONS = "captions.jsonl"
SOURCES = ("auto", "bank", "clips")
_SIDES = re.compile(r"\b(left|right|Left|Right)\b(?! (after|away|before|above|below|next|there))")
_OTHER = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
MAX_BYTES = 1 << 30  # four captions of each clip of NTU120, prompts included, have 0.3 GB


@dataclasses.dataclass(frozen=True, slots=True)
class Caption:
    """One sentence about one clip, and its origin."""

    id: str
    caption: str
    model: str
    prompt: str
    time: str


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionTable:
    """Sentences as ids, and the sentences of each row of the store.

    Row r of N has the sentences `start[r]` to `start[r] + count[r]` of all S; rows that share their
    sentences, such as those of a class in the bank, have the same start.

    Attributes:
      tokens: int32 [S, L], L the longest; `pad_id` after the end.
      lengths: int32 [S], with EOS.
      mirror: int32 [S], the sentence about the mirrored clip; `arange(S)` if none is needed.
      start, count: int32 [N]; count is 0 for a row without a sentence.
      texts: the whole sentences, [S].
      num_cut: sentences longer than the limit.
      num_from_bank: rows, among those requested, that use the bank.
      num_stray: entries of captions.jsonl for ids that the store does not have.
      template_classes: classes that are in no bank file, described by one stock sentence.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    mirror: np.ndarray
    start: np.ndarray
    count: np.ndarray
    texts: tuple[str, ...]
    num_cut: int
    num_from_bank: int
    num_stray: int
    template_classes: tuple[str, ...]

    def draw(
        self, row, rng: np.random.Generator, mirrored: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """A random sentence of a row: ids [L] and length; of rows [B]: ids [B, L], lengths [B]."""
        chosen = self.start[row] + rng.integers(self.count[row])
        chosen = self.mirror[chosen] if mirrored else chosen
        return self.tokens[chosen], self.lengths[chosen]

    def sentences(self, row: int) -> tuple[str, ...]:
        """Every sentence of that row."""
        return self.texts[self.start[row] : self.start[row] + self.count[row]]


def mirrored_sentence(text: str) -> str:
    """The sentence with left and right exchanged, but for a "right" as in "right away"."""
    return _SIDES.sub(lambda found: _OTHER[found[0]], text)


def read_captions(path: str | Path) -> dict[str, list[Caption]]:
    """The captions of every clip id, in the file's order; runs of white space become one blank.

    Other keys and blank lines are ignored.

    Raises:
      UserError: the file does not exist, or a line (given by its number) is not a caption.
    """
    captions: dict[str, list[Caption]] = {}
    for number, line in read_lines(path, limit=MAX_BYTES):
        try:
            caption = _caption(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: {error}; fix or remove the line") from None
        captions.setdefault(caption.id, []).append(caption)
    return captions


def caption_table(
    store: Store,
    tokenizer: Tokenizer,
    limit: int,
    source: str = "auto",
    shuffled_seed: int | None = None,
    rows: np.ndarray | None = None,
    mirrored: bool = False,
) -> CaptionTable:
    """Tokenizes the sentences of a dataset and assigns them to its clips.

    Args:
      limit: the most ids of a sentence, including EOS; longer ones are cut after a word.
      source: "clips" for the dataset's captions.jsonl, "bank" for the shipped sentences of each
        class, "auto" for the clip's own sentences if it has any, otherwise those of its class.
      shuffled_seed: if not None, each row gets the sentences of another row, by a permutation of
        `rows` that the seed fixes (a control experiment). About one in C rows keeps its class.
      rows: those that need a sentence, e.g. the training split; default all.
      mirrored: True adds the sentences about mirrored clips.

    Raises:
      UserError: the source is unknown; captions.jsonl is damaged, absent though required, or
        belongs to other clips; or, with "clips", a row of `rows` has no caption.
    """
    check_choice("caption source", source, SOURCES)
    rows = np.arange(len(store)) if rows is None else np.asarray(rows)
    own, num_stray = own_captions(store, source)
    missing = rows[~np.isin(rows, list(own))]
    if source == "clips":
        _check_complete(store, rows, missing)
    texts = {} if source == "clips" else bank(store.classes, store.name)
    of_class = [texts[name].captions if texts else () for name in store.classes]
    of_row = [own.get(row, of_class[label]) for row, label in enumerate(store.labels.tolist())]
    groups: dict[tuple[str, ...], int] = {}  # rows with the same sentences are one group
    group = np.array([groups.setdefault(sentences, len(groups)) for sentences in of_row])  # [N]
    if shuffled_seed is not None:
        group[rows] = group[np.random.default_rng(shuffled_seed).permutation(rows)]
    stock = {store.classes[label] for label in np.unique(store.labels[missing])}
    return CaptionTable(
        **_tokenized(groups, group, tokenizer, limit, mirrored),
        num_from_bank=missing.size,
        num_stray=num_stray,
        template_classes=tuple(name for name in texts if name in stock and texts[name].template),
    )


def own_captions(store: Store, source: str) -> tuple[dict[int, tuple[str, ...]], int]:
    """Row -> its clip's own sentences, each once, and the number of entries for other ids.

    Raises UserError as `caption_table`, but not for a clip without a caption.
    """
    path = store.path.parent / CAPTIONS
    if source == "bank" or (source == "auto" and not path.is_file()):
        return {}, 0
    if not path.is_file():
        raise UserError(f"{path} does not exist: caption the clips or use lm.captions=auto")
    captions = read_captions(path)
    row_of = {clip: row for row, clip in enumerate(store.ids)}
    own = {
        row_of[clip]: tuple(dict.fromkeys(caption.caption for caption in entries))
        for clip, entries in captions.items()
        if clip in row_of
    }
    num_stray = sum(len(entries) for clip, entries in captions.items() if clip not in row_of)
    if not own:
        raise UserError(
            f"{path} describes none of the {len(store):,} clips of {store.name}; "
            "it is empty or belongs to another dataset: replace or remove it"
        )
    return own, num_stray


def _check_complete(store: Store, rows: np.ndarray, missing: np.ndarray) -> None:
    if missing.size:
        raise UserError(
            f"{store.path.parent / CAPTIONS}: {missing.size:,} of {len(rows):,} clips have no "
            f"caption, {store.ids[missing[0]]} for example; caption them or use lm.captions=auto"
        )


def _tokenized(
    groups: Iterable[tuple[str, ...]],
    group: np.ndarray,
    tokenizer: Tokenizer,
    limit: int,
    mirrored: bool,
) -> dict:
    """The fields of the table, from the groups of sentences and the group of each row [N]."""
    groups = list(groups)
    texts = tuple(sentence for sentences in groups for sentence in sentences)
    mirror = np.arange(len(texts), dtype=np.int32)
    if mirrored:
        others = tuple(map(mirrored_sentence, texts))
        mirror, texts = mirror + np.int32(len(texts)), texts + others
        mirror = np.concatenate([mirror, mirror - np.int32(len(others))])
    encoded = {text: encode_caption(tokenizer, text, limit) for text in dict.fromkeys(texts)}
    lengths = np.array([len(encoded[text][0]) for text in texts], np.int32)
    tokens = np.full((len(texts), lengths.max()), tokenizer.pad_id, np.int32)
    real = np.arange(tokens.shape[1]) < lengths[:, None]  # [S, L]
    tokens[real] = np.concatenate([encoded[text][0] for text in texts])
    sizes = np.array([len(sentences) for sentences in groups], np.int32)
    return {
        "tokens": tokens,
        "lengths": lengths,
        "mirror": mirror,
        "start": (np.cumsum(sizes, dtype=np.int32) - sizes)[group],
        "count": sizes[group],
        "texts": texts,
        "num_cut": sum(encoded[text][1] for text in texts),
    }


def _caption(line: str) -> Caption:
    """Raises ValueError, with the reason, if the line is not a caption."""
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise ValueError(f"damaged JSON ({error})") from None
    if not isinstance(entry, dict):
        raise ValueError("damaged JSON (not an object)")
    keys = [field.name for field in dataclasses.fields(Caption)]
    if wrong := [key for key in keys if not isinstance(entry.get(key), str)]:
        raise ValueError(f"{', '.join(wrong)} missing or not text")
    sentence = " ".join(entry["caption"].split())
    if not sentence or not entry["id"]:
        raise ValueError("an empty id or caption")
    if any("\ud800" <= letter <= "\udfff" for letter in sentence):
        raise ValueError("a caption that is not valid Unicode")
    # Model and prompt are usually the same in all lines, so one copy of each is kept.
    model, prompt = sys.intern(entry["model"]), sys.intern(entry["prompt"])
    return Caption(entry["id"], sentence, model, prompt, entry["time"])
