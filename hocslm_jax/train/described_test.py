"""Describes test clips at the end of a run with language.

In: a `Run` and its last weights. Out: `descriptions.jsonl`, the scores for `result.json`, and a
few lines on the terminal.
"""

from collections.abc import Callable

from hocslm_jax import hosts
from hocslm_jax.data.caption_bank import bank
from hocslm_jax.data.captions import caption_table, own_captions
from hocslm_jax.evaluate.results import accuracy_text
from hocslm_jax.hosts import say
from hocslm_jax.language.attributes import PROBED, read_facts, score_attributes, summary_line
from hocslm_jax.language.describe import (
    Decoding,
    by_row,
    class_sentences,
    describe_clips,
    summarise,
)
from hocslm_jax.language.description_scores import DESCRIPTIONS, write_descriptions
from hocslm_jax.language.open import Language, leading_vectors
from hocslm_jax.train.jitted import make_likelihoods
from hocslm_jax.train.setup import Run

SENTENCES = 3  # sentences of each class, whose likelihoods give the class
SHOWN = 6


def describe(run: Run, language: Language, variables: dict) -> dict:
    """Describes `config.lm.describe` test clips, evenly spaced; returns the scores."""
    lm, store = run.config.lm, run.store
    say("describing test clips")
    prefixes = run.outputs(lambda v, x: run.model.apply(v, x, train=False)[1], variables)
    said, likelihood = describe_clips(
        language,
        prefixes,
        run.test_batches(lm.describe),
        Decoding(max_new_tokens=lm.max_tokens),
        class_sentences(language, bank(store.classes, store.name), SENTENCES, lm.max_tokens),
        make_likelihoods(language),
    )
    table = caption_table(store, language.tokenizer, lm.max_tokens, lm.captions)
    rows, scores = summarise(store, said, likelihood, table.sentences)
    hosts.on_first(lambda: write_descriptions(run.workdir / DESCRIPTIONS, rows))
    scores["attributes"] = attributes(run, prefixes, said)
    show(rows, scores)
    return {"captions": scores}


def attributes(run: Run, prefixes: Callable, said: dict[int, str]) -> dict[str, dict[str, int]]:
    """`score_attributes` by the clips' own captions; {} where they have none.

    A bank's sentence is about the class, and not true of each clip.
    """
    data, lm = run.config.data, run.config.lm
    facts = read_facts(own_captions(run.store, lm.captions)[0])
    if not any(facts.get(row) for row in said):
        return {}
    place, tokens = leading_vectors(lm), {}
    for split, limit in (("test", lm.describe), ("train", PROBED)):
        read = by_row(prefixes, run.test_batches(limit, split=split))
        tokens |= {row: prefix[place] for row, prefix in read.items()}
    train = [row for row in run.store.rows(data.protocol, "train").tolist() if row in tokens]
    return score_attributes(said, facts, tokens, train)


def show(rows: list[dict], scores: dict) -> None:
    """Prints a few sentences with the true class, and the counts."""
    step = max(1, len(rows) // SHOWN)
    for row in rows[::step][:SHOWN]:
        wrong = "" if row["named"] == row["truth"] else f" (names {row['named'] or 'no class'})"
        say(f"  {row['truth']}: {row['generated']}{wrong}")
    named = accuracy_text(scores["mention_correct"], scores["mention_total"])
    likely = accuracy_text(scores["likelihood_correct"], scores["likelihood_total"])
    say(
        f"sentences naming their class {named}; class by likelihood {likely}; "
        f"BLEU {scores['bleu']:.1f}, chrF {scores['chrf']:.1f}, ROUGE-L {scores['rouge_l']:.3f}"
    )
    if scores["attributes"]:
        say(f"said of the clip: {summary_line(scores['attributes'])}")
