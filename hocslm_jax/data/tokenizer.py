"""Text to token ids and back, with a language model's vocabulary or one trained here.

In: a folder with `tokenizer.json` and `tokenizer_config.json` as Hugging Face models carry them,
or sentences to train a byte-level BPE from. Out: a Tokenizer, and captions as ids that end in EOS
within a limit. Only the `tokenizers` library is used.
"""

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import replaced, write_json
from hocslm_jax.files.text import read_json

VOCABULARY = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
END, PAD = "<|endoftext|>", "<|pad|>"  # ids 0 and 1 of a tokenizer trained here
SMALLEST = 2 + 256  # the two above and every byte


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Ids of a text.

    Attributes:
      eos_id: what ends a caption.
      pad_id: what fills a row after its end; may be `eos_id`.
      size: largest id + 1. A language model's vocabulary may be larger, padded to a round number.
      backend: the `tokenizers` object behind it.
    """

    eos_id: int
    pad_id: int
    size: int
    backend: tokenizers.Tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone: no EOS, no special tokens.

        A special token spelled out in the text, such as `<|im_end|>`, is ordinary text, so a
        caption cannot end itself. If the tokenizer normalises text (Qwen's: NFC), decoding gives
        the normalised text.
        """
        self.backend.encode_special_tokens = True  # set on every call, because pickling loses it
        return self.backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text up to the first EOS; special tokens and unknown ids are left out."""
        ids = [int(token) for token in ids]
        if self.eos_id in ids:
            ids = ids[: ids.index(self.eos_id)]
        return self.backend.decode(ids, skip_special_tokens=True)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Reads `tokenizer.json` and the EOS and padding token that `tokenizer_config.json` names.

    Without a padding token, EOS is used for padding.

    Raises:
      UserError: a file is absent or damaged, or there is no EOS token.
    """
    folder = Path(folder).expanduser()
    for name in (VOCABULARY, SETTINGS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} has no {name}; use a folder with the model's tokenizer")
    try:
        backend = tokenizers.Tokenizer.from_file(str(folder / VOCABULARY))
    except Exception as error:  # the library raises it for a damaged file
        raise UserError(f"{folder / VOCABULARY} is damaged ({error}); fetch it again") from None
    try:
        settings = read_json(folder / SETTINGS)
        names = [_token_text(settings.get(key)) for key in ("eos_token", "pad_token")]
    except (UserError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{folder / SETTINGS} is damaged ({error}); fetch it again") from None
    backend.no_truncation()  # this module limits the length of captions itself
    backend.no_padding()
    return _tokenizer(backend, names[0], names[1] or names[0], folder)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE learned from `texts`; it decodes any Unicode text to itself.

    The same texts give the same tokenizer. Few texts may fill less than `vocab_size` ids.

    Raises:
      UserError: `vocab_size` has no room for the 256 bytes and two special tokens.
    """
    if vocab_size < SMALLEST:
        raise UserError(f"a vocabulary of {vocab_size} is too small; {SMALLEST} is the smallest")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return _tokenizer(backend, END, PAD, "the trained tokenizer")


def save_tokenizer(tokenizer: Tokenizer, folder: str | Path) -> None:
    """Writes the two files that `load_tokenizer` and transformers' AutoTokenizer read."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replaced(folder / VOCABULARY) as partial:
        tokenizer.backend.save(str(partial))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": tokenizer.backend.id_to_token(tokenizer.eos_id),
        "pad_token": tokenizer.backend.id_to_token(tokenizer.pad_id),
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / SETTINGS, settings)


def check_pair(
    tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Sequence[int] | None, name: str
) -> None:
    """Refuses a tokenizer that does not belong to the language model.

    Args:
      vocab_size: rows of the model's embedding.
      eos_token_ids: the end tokens that the model's config.json names, if any.
      name: of the language model, for the message.

    Raises:
      UserError: the tokenizer has an id that the model lacks, or no end token of the model is among
        the tokenizer's special tokens. They need not be its EOS token, because base models are
        published with the tokenizer of the chat models.
    """
    if tokenizer.size > vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.size:,} ids but {name} knows {vocab_size:,}; "
            "use the tokenizer of the same model"
        )
    added = tokenizer.backend.get_added_tokens_decoder()
    special = [number for number, token in added.items() if token.special]
    if eos_token_ids and not {tokenizer.eos_id, *special}.intersection(eos_token_ids):
        ends = ", ".join(map(str, eos_token_ids))
        raise UserError(
            f"the tokenizer ends a text with id {tokenizer.eos_id} but {name} with {ends}; "
            "use the tokenizer of the same model"
        )


def encode_caption(tokenizer: Tokenizer, text: str, limit: int) -> tuple[list[int], bool]:
    """Ids of a caption with EOS, at most `limit` of them, and whether it was cut.

    The caption is cut after the last word that fits. If the first word is too long, for example in
    a script without spaces, it is cut after the last character that fits.

    Raises:
      UserError: a limit without room for a token and EOS.
    """
    if limit < 2:
        raise UserError(f"a caption limit of {limit} has no room for a token and its end")
    ids = tokenizer.encode(text)
    cut = len(ids) > limit - 1
    if cut:
        kept = _fitting(tokenizer, text, [word.end() for word in re.finditer(r"\S+", text)], limit)
        kept = kept or _fitting(tokenizer, text, range(1, len(text)), limit)
        ids = tokenizer.encode(kept)
    return [*ids, tokenizer.eos_id], cut


def _fitting(tokenizer: Tokenizer, text: str, ends: Sequence[int], limit: int) -> str:
    """The longest beginning of `text` up to one of `ends` that leaves room for EOS, or ""."""
    count = bisect.bisect_right(ends, limit - 1, key=lambda end: len(tokenizer.encode(text[:end])))
    return text[: ends[count - 1]] if count else ""


def _token_text(token: str | dict | None) -> str | None:
    """A special token's text; tokenizer_config.json holds it plain or in a mapping."""
    text = token["content"] if isinstance(token, dict) else token
    if not isinstance(text, str | None):
        raise ValueError(f"a token that is {text!r}")
    return text


def _tokenizer(backend: tokenizers.Tokenizer, eos: str, pad: str, where) -> Tokenizer:
    if not eos:
        raise UserError(f"{where}: {SETTINGS} names no eos_token; a caption could not end")
    ids = backend.get_vocab()
    for token in (eos, pad):
        if token not in ids:
            raise UserError(f"{where}: {token!r} of {SETTINGS} is not in {VOCABULARY}")
    return Tokenizer(ids[eos], ids[pad], max(ids.values()) + 1, backend)
