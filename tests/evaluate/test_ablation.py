"""Ablation tables: means, spreads, and gains that are told from noise."""

import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ablation_table import gain, make_rows, markdown


def row(name, *correct, published=None):
    runs = [{"seed": seed, "correct": count, "total": 464} for seed, count in enumerate(correct)]
    return make_rows({name: runs}, {name: published} if published else {})[0]


def test_a_gain_within_the_spread_is_noise_and_one_beyond_it_is_not():
    reference = row("a", 440, 444, 442)
    near, far = row("b", 441, 445, 443), row("c", 455, 457, 456)
    assert gain(near, reference)["points"] == pytest.approx(100 / 464)
    assert gain(near, reference)["beyond_noise"] is False
    found = gain(far, reference)
    assert found["beyond_noise"] is True and found["interval"][0] > 0
    assert gain(row("d", 420, 421, 419), reference)["beyond_noise"] is True  # a loss counts too


def test_one_seed_says_nothing_of_noise():
    assert gain(row("b", 450), row("a", 440, 441))["beyond_noise"] is None
    assert gain(row("b", 450, 450), row("a", 440, 440))["interval"] is None  # no spread at all
    assert gain(row("b"), row("a", 440)) is None


def test_rows_of_other_clips_have_no_gain():
    puzzle = make_rows({"b": [{"seed": 0, "correct": 9, "total": 10}]}, {})[0]
    assert gain(puzzle, row("a", 440)) is None
    lines = markdown({"rows": [row("a", 440), puzzle]})
    assert lines[3] == "| b | 0 | 9 / 10 | **90.00** | – | – |"


def test_seeds_that_belong_together_are_compared_one_by_one():
    reference, better = row("a", 400, 430, 415), row("b", 404, 433, 420)
    assert gain(better, reference)["beyond_noise"] is False
    found = gain(better, reference, paired=True)
    assert found["beyond_noise"] is True and found["interval"][0] > 0
    assert gain(row("b", 404, 433), reference, paired=True)["interval"] is None  # other seeds
    text = "\n".join(markdown({"rows": [reference, better], "paired": True}))
    assert "seed by seed" in text and "NTU60" not in text


def test_the_text_has_both_gains():
    rows = [row("a", 440, 444, published=90.0), row("b", 455, 456, published=90.5), row("c")]
    lines = markdown({"rows": rows})
    assert "| a | 0, 1 | 440, 444 / 464 | **95.26 ± 0.61** | – | – | 90.00 | – |" in lines
    assert lines[3].startswith("| b | 0, 1 | 455, 456 / 464 | **98.17 ± 0.15** | +2.91 [")
    assert lines[3].endswith("| 90.50 | +0.50 |")
    assert "not run yet" in lines[4]
    assert "paper" not in markdown({"rows": rows[2:]})[0]


def test_rows_of_unlike_length_say_so():
    runs = {name: [{"seed": 0, "correct": 1, "total": 2, "epochs": 3}] for name in "ab"}
    assert "epochs" not in markdown({"rows": make_rows(runs, {})})[0]
    runs["b"].append({"seed": 1, "correct": 1, "total": 2, "epochs": 85})
    lines = markdown({"rows": make_rows(runs, {})})
    assert lines[0].endswith("| epochs, last stage |") and lines[3].endswith("| 3, 85 |")


def test_seeds_of_other_totals_are_no_row():
    runs = [{"seed": seed, "correct": 1, "total": total} for seed, total in ((0, 2), (1, 3))]
    with pytest.raises(UserError, match="seeds of"):
        make_rows({"a": runs}, {})
