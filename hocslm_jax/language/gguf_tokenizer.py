"""The tokenizer in a GGUF file: byte-level BPE, with the word splitter that the file names.

In: the file's metadata. Out: a `Tokenizer` with the ids of the model that was converted.
"""

from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from hocslm_jax.data.tokenizer import Tokenizer
from hocslm_jax.errors import UserError

_SPECIAL, _ADDED = 3, 4  # token types of the format: control, user defined
# As in the models' tokenizer.json; {} is the number of digits that stay together.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _split(pattern: str) -> list:
    words = pre_tokenizers.Split(Regex(pattern), "isolated")
    return [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def _by_gpt2() -> list:
    return [pre_tokenizers.ByteLevel(add_prefix_space=False)]


_SPLITTERS = {  # `tokenizer.ggml.pre`: pattern that splits text before the merges
    "gpt-2": _by_gpt2,
    "smollm": lambda: [pre_tokenizers.Digits(individual_digits=True), *_by_gpt2()],
    "qwen2": lambda: _split(_WORDS % ""),
    "llama-bpe": lambda: _split(_WORDS % "{1,3}"),
}


def gguf_tokenizer(metadata: dict[str, Any], name: object) -> Tokenizer:
    """The tokenizer of a GGUF file's metadata.

    Args:
        name: name of the file, for messages.

    Raises:
        UserError: an unsupported or incomplete tokenizer.
    """

    def stated(key: str):
        return metadata.get(f"tokenizer.ggml.{key}")

    model, pre = stated("model"), stated("pre")
    if model != "gpt2" or not isinstance(pre, str) or pre not in _SPLITTERS:
        raise UserError(
            f"{name}: its tokenizer ({model!s:.40}, {pre!s:.40}) is not supported (gpt2, "
            f"{', '.join(_SPLITTERS)} are): use the model as safetensors"
        )
    tokens, merges, eos = stated("tokens"), stated("merges"), stated("eos_token_id")
    pad = eos if stated("padding_token_id") is None else stated("padding_token_id")
    kinds = stated("token_type") or []
    if not all(isinstance(each, list) and each for each in (tokens, merges, kinds or [0])):
        raise UserError(f"{name} has no tokens or merges: use another conversion")
    if not all(isinstance(each, int) and 0 <= each < len(tokens) for each in (eos, pad)):
        raise UserError(f"{name}: eos_token_id or padding_token_id is not the number of a token")
    try:
        backend = _backend(pre, tokens, merges, kinds)
    except Exception as error:  # the package raises no narrower type
        line = " ".join(str(error).split())
        raise UserError(f"{name}: its tokenizer is damaged ({line:.100})") from None
    return Tokenizer(eos, pad, len(tokens), backend)


def _backend(pre: str, tokens: list, merges: list, kinds: list) -> tokenizers.Tokenizer:
    vocab = {token: number for number, token in enumerate(tokens)}
    pairs = [tuple(merge.split(" ", 1)) for merge in merges]
    backend = tokenizers.Tokenizer(models.BPE(vocab, pairs, ignore_merges=pre == "llama-bpe"))
    if pre == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(_SPLITTERS[pre]())
    backend.decoder = decoders.ByteLevel()
    for wanted, special in ((_SPECIAL, True), (_ADDED, False)):
        found = zip(tokens, kinds, strict=False)
        added = [AddedToken(t, special=special, normalized=False) for t, k in found if k == wanted]
        (backend.add_special_tokens if special else backend.add_tokens)(added)
    return backend
