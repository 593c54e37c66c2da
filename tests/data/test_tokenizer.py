"""Text is encoded and decoded without loss; limits and mismatched models are reported."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hocslm_jax.data import caption_bank, tokenizer
from hocslm_jax.data.tokenizer import (
    check_pair,
    encode_caption,
    load_tokenizer,
    save_tokenizer,
    train_tokenizer,
)
from hocslm_jax.errors import UserError

SENTENCES = [
    "A person is drinking water from a cup raised to the mouth.",
    "Someone lifts the right hand to the ear and answers a phone.",
    "Two people shake hands, naïve café — 你好, 世界 🙂.",
]
SPECIAL = "<|im_end|>, <|endoftext|> and <|pad|> are words here."
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)  # no lone surrogates


@pytest.fixture(scope="session")
def qwen(shared):
    return load_tokenizer(shared / "data/qwen3_tokenizer")


@pytest.fixture(scope="module")
def small():
    return train_tokenizer(SENTENCES * 3, 350)


def test_the_published_tokenizer_of_qwen3(qwen):
    assert (qwen.eos_id, qwen.pad_id, qwen.size) == (151645, 151643, 151669)


@pytest.mark.parametrize("text", [*SENTENCES, SPECIAL, "", " ", "  two\n\tlines ", "e\u0301tude"])
def test_qwen3_round_trip(qwen, text):
    ids = qwen.encode(text)
    assert qwen.decode(ids) == unicodedata.normalize("NFC", text)
    assert qwen.eos_id not in ids and qwen.pad_id not in ids


def test_qwen3_round_trip_of_every_bank_caption(qwen):
    texts = [text for entry in caption_bank.bank().values() for text in entry.captions]
    assert texts
    changed = [text for text in texts if qwen.decode(qwen.encode(text)) != text]
    assert not changed


def test_qwen3_ids_are_those_of_transformers(qwen, shared):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(shared / "data/qwen3_tokenizer")
    bank = [text for entry in caption_bank.bank().values() for text in entry.captions]
    for text in [*SENTENCES, "  two\n\tlines ", "e\u0301tude", *bank]:
        assert qwen.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert (qwen.eos_id, qwen.pad_id) == (theirs.eos_token_id, theirs.pad_token_id)
    assert qwen.size == len(theirs)


@given(ANY_TEXT)
@settings(deadline=None, max_examples=60)
def test_a_trained_tokenizer_gives_any_text_back(small, text):
    ids = small.encode(text)
    assert small.decode([*ids, small.eos_id, *ids]) == text
    assert all(1 < token < small.size for token in ids)


def test_decoding_skips_padding_and_unknown_ids(small):
    ids = np.array([small.pad_id, *small.encode("a hand"), small.size + 7, small.eos_id, 5])
    assert small.decode(ids) == "a hand"
    assert small.decode([]) == ""


def test_training_is_deterministic_and_learns_words(small):
    again = train_tokenizer(iter(SENTENCES * 3), 350)
    assert again.backend.to_str() == small.backend.to_str()
    assert small.size == 350
    assert len(small.encode(SENTENCES[0])) < len(SENTENCES[0]) / 2


def test_vocabulary_needs_at_least_all_bytes():
    assert train_tokenizer(["a"], 4000).size == tokenizer.SMALLEST
    assert train_tokenizer([], tokenizer.SMALLEST).size == tokenizer.SMALLEST
    with pytest.raises(UserError, match="257 is too small; 258"):
        train_tokenizer(SENTENCES, 257)


def test_saved_and_loaded_again(small, tmp_path):
    save_tokenizer(small, tmp_path / "run/tokenizer")
    loaded = load_tokenizer(tmp_path / "run/tokenizer")
    for text in [*SENTENCES, SPECIAL]:
        assert loaded.encode(text) == small.encode(text)
        assert loaded.decode(loaded.encode(text)) == text
    assert (loaded.eos_id, loaded.pad_id, loaded.size) == (small.eos_id, small.pad_id, small.size)


def test_transformers_reads_a_saved_one(small, tmp_path):
    transformers = pytest.importorskip("transformers")
    save_tokenizer(small, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in SENTENCES:
        assert theirs(text, add_special_tokens=False)["input_ids"] == small.encode(text)
        assert theirs.decode(small.encode(text)) == text
    assert (theirs.eos_token_id, theirs.pad_token_id) == (small.eos_id, small.pad_id)


def test_special_tokens_may_be_mappings_and_padding_may_be_missing(small, tmp_path):
    save_tokenizer(small, tmp_path)
    settings_file = tmp_path / tokenizer.SETTINGS
    settings_file.write_text(json.dumps({"eos_token": {"content": tokenizer.END, "lstrip": False}}))
    loaded = load_tokenizer(tmp_path)
    assert (loaded.eos_id, loaded.pad_id) == (small.eos_id, small.eos_id)


def test_a_stored_truncation_is_not_applied(small, tmp_path):
    save_tokenizer(small, tmp_path)
    file = tmp_path / tokenizer.VOCABULARY
    cut = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"truncation": cut}))
    assert load_tokenizer(tmp_path).encode(SENTENCES[0]) == small.encode(SENTENCES[0])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer_config.json", None, "has no tokenizer_config.json"),
        ("tokenizer.json", '{"model": ', "tokenizer.json is damaged"),
        ("tokenizer_config.json", "[1]", "tokenizer_config.json is damaged"),
        ("tokenizer_config.json", '{"eos_token": {}}', "tokenizer_config.json is damaged"),
        ("tokenizer_config.json", '{"pad_token": "<|pad|>"}', "names no eos_token"),
        ("tokenizer_config.json", '{"eos_token": "</s>"}', "'</s>' of .* is not in tokenizer.json"),
        ("tokenizer_config.json", '{"eos_token": ["<|pad|>"]}', "tokenizer_config.json is damaged"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(small, tmp_path, name, content, message):
    save_tokenizer(small, tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_pairs_that_fit(qwen, small):
    check_pair(qwen, 151936, (151645, 151643), "Qwen3-4B")
    check_pair(small, small.size, (small.eos_id,), "tiny")
    check_pair(qwen, 151936, (151643,), "Qwen3-4B-Base")  # published with the chat's tokenizer
    check_pair(small, 512, None, "tiny")  # a model that does not say how it ends


@pytest.mark.parametrize(
    ("vocab_size", "ends", "message"),
    [
        (151668, (151645,), "151,669 ids but Qwen3-9B knows 151,668; use the tokenizer of"),
        (151936, (2,), "id 151645 but Qwen3-9B with 2; use the tokenizer of"),
        (151936, (0, 1), "id 151645 but Qwen3-9B with 0, 1; "),
    ],
)
def test_wrong_pairs_are_refused(qwen, vocab_size, ends, message):
    with pytest.raises(UserError, match=message):
        check_pair(qwen, vocab_size, ends, "Qwen3-9B")


def test_a_caption_within_the_limit_is_whole(qwen):
    ids, cut = encode_caption(qwen, SENTENCES[0], 14)
    assert (ids, cut) == ([*qwen.encode(SENTENCES[0]), qwen.eos_id], False)
    assert len(ids) == 14  # to the last id, so that one less must cut


def test_a_longer_caption_is_cut_behind_a_word(qwen):
    ids, cut = encode_caption(qwen, SENTENCES[0], 13)
    assert cut and ids[-1] == qwen.eos_id and len(ids) <= 13
    assert qwen.decode(ids) == "A person is drinking water from a cup raised to the"


@given(st.lists(st.text("abcdef,.é", min_size=1, max_size=12), max_size=12), st.integers(2, 24))
@settings(deadline=None, max_examples=80)
def test_a_cut_keeps_as_many_whole_words_as_fit(small, words, limit):
    text = " ".join(words)
    ids, cut = encode_caption(small, text, limit)
    kept = small.decode(ids)
    assert len(ids) <= limit and ids[-1] == small.eos_id
    assert cut == (len(small.encode(text)) > limit - 1)
    assert kept == text if not cut else text.startswith(kept)
    if cut and len(small.encode(words[0])) <= limit - 1:
        count = len(kept.split(" "))
        assert kept.split(" ") == words[:count]
        assert len(small.encode(" ".join(words[: count + 1]))) > limit - 1


def test_a_first_word_that_is_too_long_is_cut_behind_a_character(small):
    ids, cut = encode_caption(small, "一个人正在喝水", 8)
    kept = small.decode(ids)
    assert cut and kept and "一个人正在喝水".startswith(kept)


@pytest.mark.parametrize("limit", [1, 0, -3])
def test_a_limit_without_room_is_refused(small, limit):
    with pytest.raises(UserError, match="no room"):
        encode_caption(small, "", limit)
