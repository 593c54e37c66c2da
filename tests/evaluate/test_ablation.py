"""Ablation tables: means, spreads and significant gains."""

import json

import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.ablation import ablation_table, gain, read_rows


def row(name, *correct, total=464, published=None, epochs=(3,)):
    seeds = list(range(len(correct)))
    counts = {"seeds": seeds, "correct": list(correct), "total": total}
    return {"row": name, "published": published, "epochs": list(epochs), **counts}


def test_a_gain_within_the_spread_is_not_significant():
    reference, near, far = row("a", 440, 444, 442), row("b", 441, 445, 443), row("c", 455, 457, 456)
    points, (low, high) = gain(near, reference)
    assert points == pytest.approx(100 / 464) and low < 0 < high
    points, (low, high) = gain(far, reference)
    assert 0 < low < points < high
    assert ablation_table([reference, near, far, row("d", 420, 421, 419)])[3].endswith("| no |")
    lines = ablation_table([reference, far, row("d", 420, 421, 419)])
    assert lines[3].endswith("| yes |") and lines[4].endswith("| yes |")  # a loss counts too


def test_one_seed_has_no_significance():
    assert gain(row("b", 450), row("a", 440, 441))[1] is None
    assert gain(row("b", 450, 450), row("a", 440, 440))[1] is None  # no spread at all


def test_paired_seeds_are_compared_one_by_one():
    reference, better = row("a", 400, 430, 415), row("b", 404, 433, 420)
    assert gain(better, reference)[1][0] < 0 < gain(better, reference, paired=True)[1][0]
    assert gain(row("b", 404, 433), reference, paired=True)[1] is None  # other seeds
    text = "\n".join(ablation_table([reference, better], paired=True))
    assert "paired by seed" in text and "NTU60" not in text


def test_the_text_has_the_papers_numbers():
    rows = [row("a", 440, 444, published=90.0), row("b", 455, 456, published=90.5), row("c")]
    lines = ablation_table(rows)
    assert "| a | 440, 444 / 464 = **95.26 ± 0.61** | – | – | 90.00 |" in lines
    assert lines[3].startswith("| b | 455, 456 / 464 = **98.17 ± 0.15** | +2.91 [")
    assert lines[3].endswith("| 90.50 |") and lines[4] == "| c | – | – | – | – |"
    assert "paper" not in ablation_table(rows[2:])[0]


def test_rows_of_unlike_length_or_clips_say_so():
    lines = ablation_table([row("a", 440), row("b", 9, 8, total=10, epochs=(3, 85))])
    assert lines[3] == "| b | 9, 8 / 10 = **85.00 ± 7.07** | – | – | 3, 85 |"


def test_seeds_of_other_totals_are_no_row(tmp_path):
    texts = dict.fromkeys(("dataset", "protocol", "encoder", "stream", "strategy"), "a")
    for seed, total in ((0, 2), (1, 3)):
        result = texts | {"seed": seed, "epochs": 1, "correct": 1, "total": total}
        path = tmp_path / f"a_seed{seed}/result.json"
        path.parent.mkdir()
        path.write_text(json.dumps(result))
    with pytest.raises(UserError, match="remove some"):
        read_rows(["a"], {}, "", tmp_path)


def test_rows_with_descriptions_show_what_these_say(tmp_path):
    texts = dict.fromkeys(("dataset", "protocol", "encoder", "stream", "strategy"), "a")
    scores = {"mention_total": 4, "likelihood_correct": 1, "likelihood_total": 4}
    for name, seed, captions in (("a", 0, None), ("b", 0, 3), ("b", 1, 2)):
        result = texts | {"seed": seed, "epochs": 1, "correct": 5, "total": 10}
        if captions:
            result["captions"] = scores | {"mention_correct": captions}
        path = tmp_path / f"{name}_seed{seed}/result.json"
        path.parent.mkdir()
        path.write_text(json.dumps(result))
    plain, described = read_rows(["a", "b"], {}, "", tmp_path)
    assert "told" not in plain and described["told"]["mention"] == {"correct": [3, 2], "total": 4}
    header, _, first, second = ablation_table([plain, described])[:4]
    assert "| names the class | class by likelihood |" in header and first.endswith("| – | – |")
    assert second.endswith("| 3, 2 / 4 = **62.50 ± 17.68** | 1, 1 / 4 = **25.00 ± 0.00** |")
