"""Scores of generated descriptions, and the file that stores them.

In: one row per clip with its generated sentence, and reference sentences. Out: counts and scores as
plain numbers; the rows as JSON lines, for figures and reports. BLEU and chrF are from sacrebleu,
ROUGE-L from rouge-score; both are imported on first use.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import write_text
from hocslm_jax.files.text import parse_json, read_lines

DESCRIPTIONS = "descriptions.jsonl"  # in the workdir of a run with language
# Keys of a row: the clip, its class, the sentence, the first reference, and the class that the
# sentence names, or None.
KEYS = ("id", "truth", "generated", "reference", "named")


def score_descriptions(
    rows: Sequence[Mapping], references: Sequence[Sequence[str]]
) -> dict[str, int | float]:
    """Compares the sentence of each clip with its class and its reference sentences.

    Args:
      rows: dicts of `KEYS`, at least one.
      references: one or more for each row.

    Returns:
      clips; mention_correct of mention_total sentences that name the clip's class, and their share
      `mention` in [0, 1]; corpus `bleu` (13a tokens, exponential smoothing) and `chrf` (chrF2), 0
      to 100; `rouge_l` in [0, 1], the mean over clips of the F1 with the best reference.
    """
    correct = sum(row["named"] == row["truth"] for row in rows)
    texts = [row["generated"] for row in rows]
    per_clip = [tuple(sentences) for sentences in references]
    return {
        "clips": len(texts),
        "mention_correct": correct,
        "mention_total": len(texts),
        "mention": correct / len(texts),
        **_sacrebleu(texts, per_clip),
        "rouge_l": _rouge_l(texts, per_clip),
    }


def class_from_likelihood(loglik: np.ndarray) -> np.ndarray:
    """The class whose sentences are likeliest to the language model.

    Args and errors as in `class_likelihoods`.

    Returns:
      int64 [N]: the class with the greatest mean over its sentences; the first of equal ones.
    """
    return class_likelihoods(loglik).argmax(axis=1)


def class_likelihoods(loglik: np.ndarray) -> np.ndarray:
    """How likely the sentences of each class are for each clip.

    Args:
      loglik: [N, C, K], for every clip, class and sentence of the class, the mean log-likelihood of
        the sentence's tokens with EOS (a mean, so that long sentences are not penalised); NaN if a
        class has fewer than K sentences.

    Returns:
      float64 [N, C]: the mean over the sentences of a class.

    Raises:
      ValueError: another shape, or a clip and class without any sentence.
    """
    loglik = np.asarray(loglik, np.float64)
    if loglik.ndim != 3:
        raise ValueError(f"loglik has shape {loglik.shape}, expected [clips, classes, sentences]")
    given = ~np.isnan(loglik)
    count = given.sum(axis=2)  # [N, C]
    if not count.all():
        clip, label = np.argwhere(count == 0)[0]
        raise ValueError(f"class {label} has no likelihood for clip {clip}")
    return np.where(given, loglik, 0).sum(axis=2) / count


def write_descriptions(path: str | Path, rows: Iterable[Mapping]) -> None:
    """Writes rows as JSON lines, all or nothing."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({key: row[key] for key in KEYS}, ensure_ascii=False) for row in rows)
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_descriptions(path: str | Path) -> list[dict]:
    """Reads what `write_descriptions` wrote.

    Raises:
      UserError: the file is missing, or a line is damaged (gives its number).
    """
    rows = []
    for number, line in read_lines(path, "a run with language writes it (strategy=T3)"):
        try:
            row = parse_json(line)
            texts = [row[key] for key in KEYS[:-1]] + [row["named"] or ""]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a value that is not text")
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{path}:{number} is not a description; rerun with --mode=eval to write it again"
            ) from None
        rows.append(row)
    return rows


def _sacrebleu(texts: list[str], references: list[tuple[str, ...]]) -> dict[str, float]:
    from sacrebleu.metrics import BLEU, CHRF

    most = max(map(len, references))
    # sacrebleu takes the k-th references of all clips together; None if a clip has fewer.
    streams = [[each[k] if k < len(each) else None for each in references] for k in range(most)]
    return {
        "bleu": BLEU(force=True).corpus_score(texts, streams).score,
        "chrf": CHRF().corpus_score(texts, streams).score,
    }


def _rouge_l(texts: list[str], references: list[tuple[str, ...]]) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])

    @functools.cache  # greedy sentences about one class are often equal
    def best(text: str, candidates: tuple[str, ...]) -> float:
        return scorer.score_multi(candidates, text)["rougeL"].fmeasure

    return float(np.mean([best(*pair) for pair in zip(texts, references, strict=True)]))
