"""Counts of clips whose class a run finds among classes that it was never trained on.

In: a `TrainedModel` with its language model, and a store of `hold_out`. Out: plain dicts of counts,
by method and by control. The arithmetic is in `evaluate/class_ranking.py`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hocslm_jax import sharding
from hocslm_jax.data import pipeline
from hocslm_jax.data.caption_bank import bank
from hocslm_jax.evaluate import class_ranking
from hocslm_jax.language.describe import class_sentences, log_likelihoods, sentence_embeddings
from hocslm_jax.language.description_scores import class_likelihoods
from hocslm_jax.language.open import Language
from hocslm_jax.models.encoder import with_feature
from hocslm_jax.models.hocslm import prefix_of
from hocslm_jax.models.lm import DecoderLM, init_params
from hocslm_jax.predict.predictor import BATCH_SIZE, usual_batch
from hocslm_jax.predict.trained_model import TrainedModel

TRAINING = 4096  # training clips, evenly spaced, that the network reads


@dataclasses.dataclass(frozen=True)
class Options:
    """How clips are ranked.

    Attributes:
      sentences: of each class, the first ones of the bank.
      clips: test clips of unseen and of seen classes, evenly spaced; -1 is all.
      calibration_clips: training clips whose mean likelihood of a sentence is taken off.
      draws: of one example a class, where none is published.
      seed: of the draws and of the untrained language model.
      untrained: False leaves that control out.
    """

    sentences: int = 3
    clips: int = -1
    calibration_clips: int = 128
    draws: int = 20
    seed: int = 0
    untrained: bool = True


@dataclasses.dataclass(frozen=True)
class Clips:
    """What the network makes of N clips."""

    labels: np.ndarray  # int [N]
    visual: np.ndarray  # the visual tokens, float32 [N, H]
    features: np.ndarray  # pooled, of the encoder, float32 [N, D]


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked: clips of unseen and of seen classes, and who the unseen are."""

    unseen: Clips
    seen: Clips
    classes: tuple[int, ...]  # labels of the unseen classes
    num_classes: int

    def alone(self, scores: np.ndarray) -> dict:
        """Counts of the unseen classes' clips, by scores [N, C] among these classes."""
        correct = class_ranking.num_right(scores, self.unseen.labels, self.classes)
        return {"correct": correct, "total": len(scores)}

    def counts(self, unseen: np.ndarray, seen: np.ndarray) -> dict:
        """`alone`, and in `generalised` the counts among all classes; scores [N, C] of either."""
        found, every = {}, range(self.num_classes)
        for name, scores, clips in (("unseen", unseen, self.unseen), ("seen", seen, self.seen)):
            found[f"{name}_correct"] = class_ranking.num_right(scores, clips.labels, every)
            found[f"{name}_total"] = len(scores)
        return self.alone(unseen) | {"generalised": found}


def rank(model: TrainedModel, store, options: Options) -> dict:
    """{"methods", "controls"}: counts by method, and by control.

    Raises:
        UserError: as `TrainedModel.language`, or a damaged clip.
    """
    language, read = model.language, make_reader(model, store)
    tested = read("unseen", options.clips), read("test", options.clips)
    question = Question(*tested, store.unseen, len(store.classes))
    training, examples = read("train", TRAINING), read("examples", -1)
    visual = [clips.visual for clips in tested]
    texts = bank(store.classes, store.name)
    limit = model.config.lm.max_tokens
    sentences = class_sentences(language, texts, options.sentences, limit)
    few = spaced(len(training.labels), options.calibration_clips)
    prompt = np.asarray(model.variables["params"]["prompt"])  # [P, H]
    rest = (training.visual[few], prompt, sentences, model.fusion.leading)
    raw, calibrated = language_scores(language.model, language.params, visual, *rest)
    embedded, fit = class_embeddings(language, sentences), (training.visual, training.labels)
    embedding = [class_ranking.embedding_scores(*fit, v, embedded) for v in visual]
    methods = {
        "likelihood": question.counts(*raw),
        "calibrated": question.counts(*calibrated),
        "embedding": question.counts(*embedding),
        "example": by_example(question, training, examples, options),
    }
    controls = {"shuffled": question.alone(shuffled(calibrated[0], store.unseen))}
    if options.untrained:
        network, params = untrained(language, options.seed)
        raw, calibrated = language_scores(network, params, visual[:1], *rest)
        controls["untrained"] = question.alone(raw[0])
        controls["untrained_calibrated"] = question.alone(calibrated[0])
    return {"methods": methods, "controls": controls}


def make_reader(model: TrainedModel, store) -> Callable[[str, int], Clips]:
    """(split, limit) -> what the network makes of its clips, of all of them or so many."""
    protocol, size = model.config.data.protocol, model.batch_size(BATCH_SIZE)

    @jax.jit
    def outputs(variables, x):
        x = sharding.spread(model.mesh, x)
        (_, prefix), feature = with_feature(model.model, variables, x)
        return prefix[:, model.fusion.leading], feature

    def read(split: str, limit: int) -> Clips:
        rows, found = [], []
        for batch in pipeline.eval_batches(
            store, protocol, split, model.feed, batch_size=size, limit=limit
        ):
            real = batch["row"] >= 0
            arrays = jax.device_get(outputs(model.variables, model.placed(batch["x"])))
            found.append([np.asarray(array, np.float32)[real] for array in arrays])
            rows.append(batch["row"][real])
        visual, features = map(np.concatenate, zip(*found, strict=True))
        return Clips(store.labels[np.concatenate(rows)], visual, features)

    return read


def spaced(count: int, wanted: int) -> np.ndarray:
    """At most so many of `count` places, evenly spaced, int."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).round().astype(int))


def language_scores(
    network,
    params: dict,
    visual: Sequence[np.ndarray],
    reference: np.ndarray,
    prompt: np.ndarray,
    sentences: tuple[np.ndarray, np.ndarray],
    leading: int = 0,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Scores [N, C] of each set of visual tokens [N, H], raw and calibrated by the reference."""
    rest = (prompt, sentences, leading)
    base = sentence_likelihoods(network, params, reference, *rest)  # [M, C, K]
    raw = [sentence_likelihoods(network, params, tokens, *rest) for tokens in visual]
    less = [class_ranking.calibrated(found, base) for found in raw]
    return list(map(class_likelihoods, raw)), list(map(class_likelihoods, less))


def sentence_likelihoods(
    network,
    params: dict,
    visual: np.ndarray,
    prompt: np.ndarray,
    sentences: tuple[np.ndarray, np.ndarray],
    leading: int = 0,
) -> np.ndarray:
    """Log-likelihoods of `class_sentences` behind each visual token [N, H]: [N, C, K].

    Args:
        network, params: the language model.
        prompt: [P, H], between visual token and sentence, but for `leading` vectors before it.
    """
    tokens, lengths = sentences
    flat = (tokens.reshape(-1, tokens.shape[-1]), lengths.reshape(-1))
    size, found = usual_batch(len(visual)), []
    for start in range(0, len(visual), size):
        part = visual[start : start + size]
        rows = np.resize(part, (size, part.shape[1]))  # the last batch is filled up
        prefix = prefix_of(jnp.asarray(rows), jnp.asarray(prompt), leading)
        scored = log_likelihoods(network, params, prefix, *flat)  # [size, C K]
        found.append(np.asarray(scored)[: len(part)])
    return np.concatenate(found).reshape(len(visual), *lengths.shape)


def class_embeddings(language: Language, sentences: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The mean embedding of each class's sentences, float64 [C, H]."""
    tokens, lengths = sentences
    flat = (tokens.reshape(-1, tokens.shape[-1]), lengths.reshape(-1))
    found = sentence_embeddings(language.model, language.params, *flat)
    return np.nanmean(np.asarray(found, np.float64).reshape(*lengths.shape, -1), axis=1)


def by_example(question: Question, training: Clips, examples: Clips, options: Options) -> dict:
    """Counts with the first draw of examples; `draws` are the accuracies of all of them."""
    found, shares = [], []
    published = len(examples.labels) == len(question.classes)
    for draw in range(1 if published else options.draws):
        places = class_ranking.draw_examples(examples.labels, question.classes, options.seed + draw)
        shown = (examples.features[places], question.classes, question.num_classes)
        fit = (training.features, training.labels)
        scores = [
            class_ranking.example_scores(*fit, clips.features, *shown)
            for clips in (question.unseen, question.seen)
        ]
        found.append(question.counts(*scores))
        shares.append(found[-1]["correct"] / found[-1]["total"])
    return found[0] | {"draws": shares}


def shuffled(scores: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Scores [N, C] with the sentences of each unseen class given to the next one."""
    changed, order = scores.copy(), list(classes)
    changed[:, order] = scores[:, order[1:] + order[:1]]
    return changed


def untrained(language: Language, seed: int) -> tuple[DecoderLM, dict]:
    """A language model of the same architecture with random weights."""
    config, dtype = language.model.config, language.model.dtype
    network = DecoderLM(config, dtype, remat=False, attention=language.model.attention)
    return network, init_params(config, jax.random.key(seed), dtype)
