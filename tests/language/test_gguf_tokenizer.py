"""The tokenizer of a GGUF file equals the one from which it was converted."""

import json

import pytest

from hocslm_jax.data.caption_bank import bank
from hocslm_jax.data.tokenizer import load_tokenizer
from hocslm_jax.errors import UserError
from hocslm_jax.language.gguf_tokenizer import gguf_tokenizer

TEXTS = [
    "It's 12345 boxes,  don't\n\n go!\tΣ naïve é 你好 🙂 <|im_end|>",
    " leading and trailing ",
    *[
        sentence
        for text in bank(["walk", "throw"], "nw_ucla").values()
        for sentence in text.captions
    ],
]
SMALL = {"model": "gpt2", "pre": "gpt-2", "tokens": ["a", "b", "ab", "<e>"], "merges": ["a b"]}
SMALL |= {"eos_token_id": 3, "token_type": [1, 1, 1, 3]}


def metadata(values):
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


def test_merges_and_special_tokens():
    tokenizer = gguf_tokenizer(metadata(SMALL), "model.gguf")
    assert tokenizer.encode("abba") == [2, 1, 0]
    assert tokenizer.decode([2, 1, 3, 0]) == "abb"
    assert (tokenizer.eos_id, tokenizer.pad_id, tokenizer.size) == (3, 3, 4)


@pytest.mark.parametrize(
    "change",
    [
        *({"model": "llama"}, {"pre": "tekken"}, {"pre": ["gpt-2"]}),
        *({"merges": None}, {"merges": ["ab"]}, {"merges": ["a c"]}, {"merges": [1]}),
        *({"eos_token_id": 4}, {"eos_token_id": "3"}, {"padding_token_id": -1}),
        *({"tokens": []}, {"tokens": 5}, {"tokens": [1, 2, 3, 4]}, {"token_type": 1}),
    ],
)
def test_other_tokenizers_are_refused(change):
    with pytest.raises(UserError, match=r"model\.gguf") as caught:
        gguf_tokenizer(metadata(SMALL | change), "model.gguf")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_qwen_ids_equal_those_of_its_tokenizer_json(shared):
    folder = shared / "data/qwen3_tokenizer"
    own = load_tokenizer(folder)
    stored = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = stored["model"]["vocab"]
    kinds = dict.fromkeys(vocabulary.values(), 1)
    for token in stored["added_tokens"]:
        vocabulary[token["content"]] = token["id"]
        kinds[token["id"]] = 3 if token["special"] else 4
    merges = [m if isinstance(m, str) else " ".join(m) for m in stored["model"]["merges"]]
    values = {
        "model": "gpt2",
        "pre": "qwen2",
        "tokens": sorted(vocabulary, key=vocabulary.get),
        "token_type": [kinds[number] for number in sorted(kinds)],
        "merges": merges,
        "eos_token_id": own.eos_id,
    }
    tokenizer = gguf_tokenizer(metadata(values), "model.gguf")
    for text in TEXTS:
        ids = own.encode(text)
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == own.decode(ids)
