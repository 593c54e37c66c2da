"""Captions pass the check; refusals, noise and descriptions of a scene do not."""

import json
from pathlib import Path

import pytest

import hocslm_jax.data
from hocslm_jax.language.caption.accept import clean, problem

BANK = Path(hocslm_jax.data.__file__).parent / "bank"


@pytest.mark.parametrize(
    "text",
    [
        "A person is drinking water from a cup raised to the mouth.",
        "A person brushes their hair with a comb, moving the right hand up and down.",
        "A man stands up from a chair.",
        "A person is sitting down slowly onto a chair.",
        "A person sits back down.",
        "Two people shake hands.",
        "A man makes a phone call with the left hand.",
        "A person holds a phone up to the ear.",
        "The person goes over to the table and picks up a box.",
        "Someone clasps both palms, then bows.",
        "A person is carrying a bag while walking around.",
        "A person checks the time on the watch.",
        "A person hands a cup to the other person.",
        "A person falls to the floor.",
        "Two people drink and cheer.",
        "A person begins to type on a keyboard.",
        "A person’s arm swings back and forth.",
        "A person apologises and pats the other's shoulder.",
    ],
)
def test_sentences_about_a_motion_pass(text):
    assert problem(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "A man is standing in a room with his hands on a table.",
        "A person stands in the middle of an office, wearing a black jacket and blue jeans.",
        "A person is sitting at a desk looking at the camera.",
        "The image shows a person in a white shirt next to a chair.",
        "Two people are facing each other in a classroom.",
        "A woman holding a cup of coffee.",
        "A man with a beard is in front of a closed door with his arms crossed.",
        "A person wearing headphones is in a well-lit room with a painted wall.",
        "The video features a man in a laboratory with shelves and equipment.",
        "A person standing still with folded arms.",
        "There is a chair on the left and a drink on the right.",
        "A person lies on the floor in a striped shirt with buttons.",
    ],
)
def test_descriptions_of_a_scene_do_not(text):
    assert problem(text) == "no verb of motion or action"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with identifying people who wave.",
        "I’m sorry, I cannot tell what the person is doing.",
        "I cannot determine who is throwing the ball.",
        "As an AI language model, I do not watch people jump.",
        "Unfortunately, the person who walks is not visible.",
        "Sorry, I can only see a person sitting down.",
        "No frames were provided, so nobody is seen walking.",
        "Please upload the video of the person who is running.",
        "It is not possible to determine what the person throws.",
        "I am unable to see a person who picks up something.",
    ],
)
def test_refusals_do_not_even_if_they_name_a_motion(text):
    assert problem(text) == "refusal"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        (None, "empty"),
        (["A person walks."], "empty"),
        ("Walking.", "not a sentence"),
        ("walks !!!! #### 0000 ---- //// ++++ a b", "not a sentence"),
        ("a person \ufffd walks", "not a sentence"),
    ],
)
def test_what_is_no_text(text, reason):
    assert problem(text) == reason


def test_an_answer_that_was_cut_off():
    text = "A person walks to the table, takes the cup with the right"
    assert problem(text) is None
    assert problem(text, finished=False) == "cut off at the limit of tokens"


@pytest.mark.parametrize(
    "raw",
    [
        ' "A person waves." ',
        "**A person waves.**",
        "A person\n  waves.",
        "Caption: A person waves.",
        "**Description:** A person waves.",
        "A person waves.<|im_end|>",
        "<think>Is he waving?\nYes.</think>\n\nA person waves.",
    ],
)
def test_wrappings_are_taken_off(raw):
    assert clean(raw) == "A person waves."


def test_half_characters_do_not_reach_a_file():
    assert clean("A person waves\ud83d now.").encode().decode() == "A person waves? now."


def test_quotes_inside_stay():
    assert clean('A person says "stop" and waves.') == 'A person says "stop" and waves.'


def test_the_shipped_captions_pass():
    entries = [json.loads(path.read_text(encoding="utf-8")) for path in BANK.glob("*.json")]
    texts = [text for bank in entries for entry in bank.values() for text in entry["captions"]]
    if not texts:
        pytest.skip("no caption bank")
    dropped = [text for text in texts if problem(text)]
    assert len(dropped) <= 0.02 * len(texts), dropped[:20]
