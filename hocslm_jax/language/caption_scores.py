"""Scores of generated descriptions, and the file that keeps them.

In: {clip id: generated sentence}, the reference sentences and the true class of those clips, and
the caption bank of the dataset. Out: counts and scores as plain numbers; one JSON line a clip for
figures and reports. BLEU and chrF are sacrebleu's, ROUGE-L is rouge-score's; both are imported
only where they are needed.
"""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.captions import ClassText, named_class
from hocslm_jax.errors import UserError
from hocslm_jax.files.atomic import replaced

DESCRIPTIONS = "descriptions.jsonl"  # in the workdir of a run with language
KEYS = ("id", "truth", "generated", "reference", "named")  # of one line; named may be null


def caption_scores(
    generated: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    true_class: Mapping[str, str],
    bank: Mapping[str, ClassText],
) -> dict[str, int | float]:
    """Compares what was generated for each clip with its class and its references.

    Args:
      generated: clip id -> sentence; these are the clips that are scored.
      references: clip id -> one or more sentences.
      true_class: clip id -> class name.
      bank: class name -> its mentions, for all classes of the dataset.

    Returns:
      clips; mention_correct of mention_total sentences that name the clip's class (and, by the
      longest mention, no other) and their share `mention` in [0, 1]; corpus `bleu` (13a tokens,
      exponential smoothing) and `chrf` (chrF2), 0 to 100; `rouge_l` in [0, 1], the mean over clips
      of the F1 with the best reference.

    Raises:
      UserError: nothing generated, or a clip without reference or class.
    """
    if not generated:
        raise UserError("no descriptions to score; generate some first")
    for clip in generated:
        if not references.get(clip) or clip not in true_class:
            raise UserError(f"clip {clip} was described but has no reference sentence or class")
    name = functools.cache(lambda text: named_class(text, bank))  # many clips, few sentences
    correct = sum(name(text) == true_class[clip] for clip, text in generated.items())
    texts = list(generated.values())
    per_clip = [tuple(references[clip]) for clip in generated]
    return {
        "clips": len(texts),
        "mention_correct": correct,
        "mention_total": len(texts),
        "mention": correct / len(texts),
        **_sacrebleu(texts, per_clip),
        "rouge_l": _rouge_l(texts, per_clip),
    }


def class_from_likelihood(loglik: np.ndarray) -> np.ndarray:
    """Reads the class off the language model: whose sentences it finds likeliest for the clip.

    Args:
      loglik: [N, C, K], for every clip, class and sentence of the class the mean log-likelihood of
        the sentence's tokens with EOS, so that long sentences are not punished; NaN where a class
        has fewer than K sentences.

    Returns:
      int64 [N]: the class with the greatest mean over its sentences; of equals the first.

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
    return (np.where(given, loglik, 0).sum(axis=2) / count).argmax(axis=1)


def caption_rows(
    generated: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    true_class: Mapping[str, str],
    bank: Mapping[str, ClassText],
) -> list[dict]:
    """One row a clip for `write_captions`, with its first reference and the class it names."""
    return [
        {
            "id": clip,
            "truth": true_class[clip],
            "generated": text,
            "reference": references[clip][0],
            "named": named_class(text, bank),
        }
        for clip, text in generated.items()
    ]


def write_captions(path: str | Path, rows: Iterable[Mapping]) -> None:
    """Writes JSON lines of id, truth, generated, reference and named (a class or null)."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as partial, partial.open("w", encoding="utf-8") as file:
        for row in rows:
            line = json.dumps({key: row[key] for key in KEYS}, ensure_ascii=False)
            file.write(line + "\n")


def load_captions(path: str | Path) -> list[dict]:
    """Reads what `write_captions` wrote.

    Raises:
      UserError: the file is absent, or a line of it damaged, by its number.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; a run with language writes it (strategy=T3)")
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = json.loads(line)
            texts = [row[key] for key in KEYS if key != "named"] + [row["named"] or ""]
            if not all(isinstance(text, str) for text in texts):
                raise ValueError("a value that is no text")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise UserError(
                f"{path}:{number} is no description; make the file anew with --mode=eval"
            ) from None
        rows.append(row)
    return rows


def _sacrebleu(texts: list[str], references: list[tuple[str, ...]]) -> dict[str, float]:
    from sacrebleu.metrics import BLEU, CHRF

    most = max(map(len, references))
    # sacrebleu wants the k-th references of all clips together; None where a clip has fewer.
    streams = [[each[k] if k < len(each) else None for each in references] for k in range(most)]
    return {
        "bleu": BLEU(force=True).corpus_score(texts, streams).score,
        "chrf": CHRF().corpus_score(texts, streams).score,
    }


def _rouge_l(texts: list[str], references: list[tuple[str, ...]]) -> float:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])

    @functools.cache  # greedy sentences about one class repeat themselves
    def best(text: str, candidates: tuple[str, ...]) -> float:
        return scorer.score_multi(candidates, text)["rougeL"].fmeasure

    return float(np.mean([best(*pair) for pair in zip(texts, references, strict=True)]))
