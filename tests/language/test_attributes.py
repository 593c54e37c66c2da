"""Attributes in sentences are read, counted and compared as in a manual evaluation."""

import itertools
import re

import numpy as np
import pytest

from hocslm_jax.data.caption_bank import bank
from hocslm_jax.data.prepare import quickstart
from hocslm_jax.data.prepare.quickstart import sentences
from hocslm_jax.language.attributes import (
    ATTRIBUTES,
    linear_probe,
    read_attributes,
    read_facts,
    reword,
    score_attributes,
    summary_line,
)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("A person waves the RIGHT hand twice.", {"side": "right", "count": "twice"}),
        ("Someone kicks with the left lower leg.", {"side": "left", "body": "whole"}),
        ("Two people join right hands.", {"side": "right", "body": "upper"}),
        ("The left-hand side of a road, right in front.", {}),
        ("A person sways the left hand left and right.", {"side": "left", "body": "upper"}),
        ("Someone lifts the left and right arms.", {"body": "upper"}),
        ("Someone lifts the left or the right arm.", {"body": "upper"}),
        ("The right hand meets the left shoulder.", {"body": "upper"}),  # both: neither
        ("She claps two times with a small motion.", {"count": "twice", "size": "small"}),
        ("A small cup at the head, right away.", {"body": "upper"}),  # not a small motion
        ("A seated person stands up, hands falling.", {"body": "whole"}),
        ("A standing person nods slowly.", {}),
        ("", {}),
    ],
)
def test_a_sentence_names_attribute_values(text, named):
    got = read_attributes(text)
    assert {key: got[key] for key in got if key in named or key != "body"} == named


def every_quickstart_sentence():
    """(class, template, facts, sentence), with the first wording of each free word."""
    facts = {"side": ("left", "right"), "size": ("small", "moderate", "big")}
    facts |= {"times": tuple(sentences.COUNTS.values())}
    for name, templates in sentences.TEMPLATES.items():
        for template, *values in itertools.product(templates, *facts.values()):
            said = dict(zip(facts, values, strict=True))
            fill = {**{word: forms[0] for word, forms in sentences.WORDS.items()}, **said}
            yield name, template, said, re.sub(r"\{(\w+)\}", lambda m, f=fill: f[m[1]], template)


def test_quickstart_facts_are_read_from_its_captions():
    keys = {"side": "side", "size": "size", "count": "times"}
    bodies = {}
    for name, template, said, text in every_quickstart_sentence():
        got = read_attributes(text)
        for attribute, slot in keys.items():
            if f"{{{slot}}}" in template:
                assert got[attribute] == said[slot], text
            elif (name, attribute) != ("shake hands", "side"):  # always the right hand
                assert attribute not in got, text
        bodies.setdefault(name, set()).add(got["body"])
    assert all(len(values) == 1 for values in bodies.values()), bodies
    assert {value for values in bodies.values() for value in values} == {"whole", "upper"}


def test_no_quickstart_caption_mentions_the_pace():
    texts = [text for *_, text in every_quickstart_sentence()]
    for entry in bank(quickstart.CLASSES, "quickstart").values():
        texts += entry.captions
    spoken = [text for text in texts if re.search(r"(?i)\b(quick|slow|stead|fast|brisk)", text)]
    assert not spoken


def test_a_reworded_sentence_changes_only_the_values():
    rng, text = np.random.default_rng(0), "Someone waves the left hand twice, with a small motion."
    variants = {reword(text, rng) for _ in range(500)}
    assert len(variants) == 2 * 5 * 3 and text in variants
    bare = {re.sub(r"left|right|once|twice|\w+ times|small|moderate|big", "_", v) for v in variants}
    assert bare == {"Someone waves the _ hand _, with a _ motion."}


@pytest.mark.parametrize(
    "text",
    [
        "Someone sways the left hand to the left.",  # the second is a direction
        "The upper body tips forward.",
        "Left hand up, a person greets.",
        "The left and right arms rise.",
        "A person greets, right away.",
    ],
)
def test_a_reworded_sentence_names_one_value(text):
    rng, before = np.random.default_rng(0), read_attributes(text)
    for _ in range(20):
        after = read_attributes(reword(text, rng))
        assert set(after) == set(before) and after.get("body") == before.get("body")


def test_a_fact_is_a_value_that_all_captions_of_a_clip_share():
    facts = read_facts({
        3: ["Someone waves the left hand twice.", "A left arm sways.", "A person greets."],
        4: ["Someone waves the left hand twice.", "The right arm is up and sways twice."],
        5: [],
    })  # fmt: skip
    assert facts[3] == {"side": "left", "count": "twice", "body": "upper"}
    assert facts[4] == {"count": "twice", "body": "upper"}
    assert facts[5] == {}


def hand_case():
    said = {
        10: "A person lifts the left hand.",
        11: "A person lifts the left hand.",
        12: "A person greets.",
        13: "The left hand meets the right hand.",
        14: "A person lifts the right hand.",
    }
    sides = dict(zip(said, ("left", "right", "right", "left", "right"), strict=True))
    train = dict(zip(range(8), ["right"] * 5 + ["left"] * 3, strict=True))
    facts = {row: {"side": side, "body": "upper"} for row, side in (sides | train).items()}
    # The first number of a token is the side; clip 14's says left.
    tokens = {row: np.array([side == "left", row % 3]) * 1.0 for row, side in train.items()}
    tokens |= {row: np.array([side == "left", row % 3]) * 1.0 for row, side in sides.items()}
    tokens[14] = np.array([1.0, 0.0])
    return said, facts, tokens, list(train)


def test_counts_match_a_manual_count():
    assert score_attributes(*hand_case()) == {
        "side": {
            "correct": 2,
            "wrong": 1,
            "unnamed": 2,
            "total": 5,
            "majority": 3,
            "probe": 4,
        }
    }  # body has only one value among the training clips


def test_clips_without_facts_are_not_counted():
    said, facts, tokens, train = hand_case()
    facts = {row: known for row, known in facts.items() if row not in (11, 13)}
    facts[12] = {}
    got = score_attributes(said, facts, tokens, train)["side"]
    assert (got["correct"], got["total"], got["majority"], got["probe"]) == (2, 2, 1, 1)
    assert score_attributes(said, {}, tokens, train) == {}
    assert score_attributes({}, facts, tokens, train) == {}


def test_baselines_are_fitted_on_training_clips_only():
    """With the described clips included, the majority would be the other side."""
    said, facts, tokens, train = hand_case()
    for row in said:
        facts[row] = {"side": "left"}
    got = score_attributes(said, facts, tokens, train)["side"]
    assert got["majority"] == 0


def test_the_summary_line_has_every_count():
    line = summary_line(score_attributes(*hand_case()))
    assert line == "side 2 of 5 right, 1 wrong, 2 not named (majority 3, probe 4)"


@pytest.mark.parametrize(("clips", "least"), [(60, 0.7), (300, 0.9)])  # of 128 features
def test_the_probe_finds_linear_directions_only(clips, least):
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=clips + 500)
    labels[:3] = range(3)
    features = rng.normal(size=(clips + 500, 128)) * 10.0 ** rng.integers(-3, 3, 128) + 5
    noise = features.copy()
    features[:, :3] += 5 * features.std(axis=0)[:3] * np.eye(3)[labels]
    right = [
        float((linear_probe(x[:clips], labels[:clips], x[clips:]) == labels[clips:]).mean())
        for x in (features, noise)
    ]
    assert right[0] > least and 0.2 < right[1] < 0.45


def test_the_probe_accepts_equal_tokens():
    same = np.ones((6, 4))
    assert linear_probe(same, np.array([0, 1, 1, 1, 0, 1]), same[:2]).tolist() == [1, 1]


def test_every_attribute_has_several_values():
    assert set(ATTRIBUTES) == {"side", "count", "size", "body"}
    assert all(len(values) > 1 for values in ATTRIBUTES.values())
