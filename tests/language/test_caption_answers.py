"""Sentences are accepted; refusals, noise and truncated answers are rejected."""

import json
from pathlib import Path

import pytest

import hocslm_jax.data
from hocslm_jax.language.caption.answers import MAX_CHARACTERS, clean, problem, read_answer

BANK = Path(hocslm_jax.data.__file__).parent / "bank"


def test_all_shipped_captions_pass():
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in BANK.glob("*.json")]
    texts = [text for bank in entries for entry in bank.values() for text in entry["captions"]]
    assert len(texts) > 1000
    assert not [text for text in texts if problem(text)]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with identifying people who wave.",
        "I’m sorry, I cannot tell what the person is doing.",
        "I cannot determine who is throwing the ball.",
        "As an AI language model, I do not watch people jump.",
        "Unfortunately, the person who walks is not visible.",
        "No frames were provided, so nobody is seen walking.",
        "Please upload the video of the person who is running.",
        "It is not possible to determine what the person throws.",
        "I am unable to see a person who picks up something.",
    ],
)
def test_refusals_that_mention_a_motion_are_detected(text):
    assert problem(text) == "refusal"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("Walking.", "not a sentence"),
        ("walks !!!! #### 0000 ---- //// ++++ a b", "not a sentence"),
        ("a person \ufffd walks", "not a sentence"),
        ("A person apologises and pats the other's shoulder.", None),
        ("Eine Person hebt den rechten Arm und winkt.", None),
    ],
)
def test_noise_is_not_a_caption(text, reason):
    assert problem(text) == reason


def test_incomplete_answers_are_rejected():
    text = "A person walks to the table, takes the cup with the right"

    def reply(text, finish):
        return {"choices": [{"message": {"content": text}, "finish_reason": finish}]}

    assert read_answer(reply(text, "stop")) == (text, None)
    assert read_answer(reply(text, "length")) == (text, "cut off at --max-tokens")
    long, reason = read_answer(reply("A person walks. " * 1000, "stop"))
    assert len(long) <= MAX_CHARACTERS and reason == "too long"


@pytest.mark.parametrize(
    "raw",
    [
        ' "A person waves." ',
        "**A person waves.**",
        "A person\n  waves.",
        "A person\x1b\u202e waves.",
        "**Description:** A person waves.",
        "A person waves.<|im_end|>",
        "<think>Is he waving?\nYes.</think>\n\nA person waves.",
    ],
)
def test_wrappers_around_the_sentence_are_removed(raw):
    assert clean(raw) == "A person waves."


def test_parts_of_a_sentence_are_kept():
    assert clean('A person says "stop" and waves.') == 'A person says "stop" and waves.'
    assert clean("A person waves\ud83d now.").encode().decode() == "A person waves? now."
