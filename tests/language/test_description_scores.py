"""Scores of descriptions match a manual calculation; classes are found by likelihood."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hocslm_jax.data.caption_bank import ClassText, named_class
from hocslm_jax.errors import UserError
from hocslm_jax.language.description_scores import (
    class_from_likelihood,
    read_descriptions,
    score_descriptions,
    write_descriptions,
)

BANK = {
    "wave": ClassText(("waves", "waving"), ("A person waves the right hand.",)),
    "throw": ClassText(("throws",), ("A person throws a ball with the right arm.",)),
}
TRUE = {"a": "wave", "b": "throw", "c": "throw"}
REFERENCES = {
    "a": ["A person waves the right hand.", "Someone is waving with one raised arm."],
    "b": ["A person throws a ball with the right arm."],
    "c": ["A person throws a ball with the right arm."],
}
ROW = {"id": "a", "truth": "wave", "generated": "x", "reference": "y", "named": None}


def score(generated, references=REFERENCES):
    rows = [
        ROW | {"id": clip, "truth": TRUE[clip], "generated": text, "named": named_class(text, BANK)}
        for clip, text in generated.items()
    ]
    return score_descriptions(rows, [references[clip] for clip in generated])


def test_the_reference_itself_has_perfect_scores():
    got = score({clip: texts[-1] for clip, texts in REFERENCES.items()})
    assert got == {
        "clips": 3,
        "mention_correct": 3,
        "mention_total": 3,
        "mention": 1.0,
        "bleu": pytest.approx(100),
        "chrf": pytest.approx(100),
        "rouge_l": 1.0,
    }


def test_only_the_true_class_counts_as_a_mention():
    got = score({"a": "A person throws.", "b": "A person THROWS.", "c": "A person moves."})
    assert (got["mention_correct"], got["mention_total"], got["mention"]) == (1, 3, 1 / 3)


def test_bleu_and_rouge_match_a_manual_calculation():
    got = score({"a": "the cat sat on the mat"}, {"a": ["the cat is on the mat"]})
    # 1- to 4-grams in common: 5 of 6, 3 of 5, 1 of 4, 0 of 3, the last smoothed to a half.
    assert got["bleu"] == pytest.approx(100 * (5 / 6 * 3 / 5 * 1 / 4 * 0.5 / 3) ** 0.25)
    assert got["rouge_l"] == pytest.approx(5 / 6)


def test_the_best_of_several_references_counts():
    one = {"a": "Someone is waving with one raised arm.", "b": REFERENCES["b"][0]}
    got = score(one)
    assert got["rouge_l"] == 1 and got["bleu"] == pytest.approx(100)
    poorer = score(one, REFERENCES | {"a": REFERENCES["a"][:1]})
    assert all(poorer[key] < got[key] for key in ("bleu", "chrf", "rouge_l"))


def test_rouge_is_a_mean_over_clips():
    got = score({"a": REFERENCES["a"][0], "b": "nothing alike", "c": ""})
    assert got["rouge_l"] == pytest.approx(1 / 3)


def test_predicted_class_has_the_likeliest_sentences_on_average():
    loglik = np.array([
        [[-1.0, -5.0], [-2.0, -2.5]],  # one lucky sentence is not enough
        [[-1.0, -1.0], [-2.0, -0.5]],
        [[-1.0, -3.0], [-2.0, -2.0]],  # equal: the first
    ])  # fmt: skip
    assert class_from_likelihood(loglik).tolist() == [1, 0, 0]


@given(arrays.arrays(np.float32, (5, 4, 3), elements=st.floats(-20, 0, width=32)))
@settings(deadline=None, max_examples=40)
def test_missing_sentences_of_a_class_are_ignored(loglik):
    padded = np.concatenate([loglik, np.full((5, 4, 2), np.nan, np.float32)], axis=2)
    assert (class_from_likelihood(padded) == class_from_likelihood(loglik)).all()


def test_invalid_likelihoods_are_refused():
    with pytest.raises(ValueError, match="class 1 "):
        class_from_likelihood(np.array([[[-1.0], [np.nan]]]))
    with pytest.raises(ValueError, match="shape"):
        class_from_likelihood(np.zeros((3, 2)))


def test_rows_are_read_back_from_the_file(tmp_path):
    rows = [ROW, ROW | {"generated": "A person waves\u2028, naïvely.", "named": "wave"}]
    path = tmp_path / "new/descriptions.jsonl"
    write_descriptions(path, rows)
    assert read_descriptions(path) == rows
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", json.dumps(ROW | {"named": 3}), json.dumps(ROW | {"truth": None})]
)
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "descriptions.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n{line}\n")
    with pytest.raises(UserError, match=r"descriptions\.jsonl:2"):
        read_descriptions(path)
    with pytest.raises(UserError, match="no such file"):
        read_descriptions(tmp_path / "absent.jsonl")
