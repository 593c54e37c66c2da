"""Trains a small Qwen3 on captions, if you have no pretrained one (`lm.init=pretrain`).

In: (class name, caption) pairs, text only. Out: a folder in Hugging Face's format, like a
downloaded model: config.json, model.safetensors, tokenizer.json. Every example is
[summary ; prompt ; caption ; EOS]. The summary is one vector: the mean embedding of some words of
the class name and the caption, with noise. So the model learns to put a single vector before the
prompt into words, which large models can already do. Every sentence occurs with several sides,
numbers and sizes: otherwise the model would memorise the few sentences, and predict "left" from the
words before it instead of the vector.
"""

import dataclasses
import functools
import shutil
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hocslm_jax import losses
from hocslm_jax.data.caption_bank import bank
from hocslm_jax.data.captions import CAPTIONS, read_captions
from hocslm_jax.data.tokenizer import Tokenizer, encode_caption, save_tokenizer, train_tokenizer
from hocslm_jax.errors import UserError, few
from hocslm_jax.files.atomic import held, read_json, write_json
from hocslm_jax.files.checksums import seal
from hocslm_jax.hosts import say
from hocslm_jax.language.attributes import read_attributes, reword
from hocslm_jax.models.hocslm import caption_states, prefix_of
from hocslm_jax.models.lm import (
    DecoderLM,
    LMConfig,
    head_matrix,
    init_params,
    num_params,
    save_params,
)
from hocslm_jax.progress import Progress

NAME_TOKENS = 16  # tokens of a class name that are summarised
NOISE = 0.3  # norm of the noise, relative to that of the summary
REPORT = "pretrain.json"
VARIANTS = 8  # variants of each sentence, with other sides, numbers and sizes


@dataclasses.dataclass(frozen=True)
class PretrainSettings:
    """`config.lm.pretrain`: size and training of the small language model.

    With `unseen`, its text includes the sentences of the classes that `data.unseen` leaves out.
    """

    vocab_size: int = 1024
    hidden_size: int = 128
    num_layers: int = 2
    num_heads: int = 4
    num_kv_heads: int = 2
    intermediate_size: int = 384
    steps: int = 800
    batch_size: int = 64
    lr: float = 3e-3
    unseen: bool = False


def pretrain(lm, pairs: Sequence[tuple[str, str]], folder: Path, seed: int = 0) -> None:
    """Trains on `pairs` and writes `folder` atomically; does nothing if it exists.

    Args:
        lm: `config.lm`; its `pretrain` section gives sizes and steps.
        pairs: (class name, caption).

    Raises:
        UserError: another process trains the same folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held(folder.with_name(folder.name + ".lock"), f"pretrains the language model {folder}"):
        if not (folder / "config.json").is_file():
            _pretrain(lm, pairs, folder, seed)


def _pretrain(lm, pairs: Sequence[tuple[str, str]], folder: Path, seed: int) -> None:
    start, size = time.monotonic(), lm.pretrain
    rng = np.random.default_rng(seed)
    varied = [vary(name, text, rng) for name, text in pairs for _ in range(VARIANTS)]
    tokenizer = train_tokenizer([lm.prompt, *(text for p in varied for text in p)], size.vocab_size)
    config = lm_config(size, tokenizer)
    model = DecoderLM(config, dtype="float32", remat=False)
    data = encode_pairs(tokenizer, varied, lm.max_tokens)
    say(
        f"training a language model of {num_params(config):,} parameters first: {size.steps:,} "
        f"steps on {len(pairs):,} sentences"
    )
    params, numbers = fit(model, data, np.asarray(tokenizer.encode(lm.prompt)), size, seed)
    numbers |= {"sentences": len(pairs), "seconds": round(time.monotonic() - start, 1)}
    numbers["parameters"] = num_params(config)
    numbers["classes"] = list(dict.fromkeys(name for name, _ in pairs))
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_params(params, config, partial)
    save_tokenizer(tokenizer, partial)
    write_json(partial / REPORT, numbers)
    seal(partial, (path.name for path in partial.iterdir()))
    partial.rename(folder)
    say(
        f"language model trained in {numbers['seconds']} s: {numbers['caption_loss']:.3f} nats a "
        f"token; saved in {folder}"
    )


def vary(name: str, text: str, rng: np.random.Generator) -> tuple[str, str]:
    """The sentence with random attribute values, and the class name followed by these values.

    A summary always includes the words of the name, and so these values.
    """
    text = reword(text, rng)
    said = [value for value in read_attributes(text).values() if value in text]
    return " ".join([name, *said]), text


def corpus(
    store, protocol: str, source: str, unseen: Collection[str] = ()
) -> list[tuple[str, str]]:
    """(class name, caption) of the bank, and of training clips with their own captions.

    Args:
        source: `config.lm.captions`; "bank" excludes the clips' own.
        unseen: classes whose sentences are excluded.
    """
    texts = bank([name for name in store.classes if name not in unseen], store.name)
    pairs = [(name, sentence) for name, text in texts.items() for sentence in text.captions]
    path = store.path.parent / CAPTIONS
    if source != "bank" and path.is_file():
        own = read_captions(path)
        for row in store.rows(protocol, "train"):  # has no clip of an unseen class
            name = store.classes[store.labels[row]]
            pairs += [(name, caption.caption) for caption in own.get(store.ids[row], ())]
    return pairs


def check_unseen(folder: Path, unseen: Collection[str]) -> None:
    """Raises UserError if a language model was pretrained on sentences of unseen classes.

    Args:
        folder: folder of the language model, perhaps of another run.
        unseen: names of the classes.
    """
    if not unseen or not (folder / REPORT).is_file():  # not pretrained here
        return
    report = read_json(folder / REPORT, "pretrain it again, in another lm.folder")
    if known := [name for name in unseen if name in report.get("classes", unseen)]:
        raise UserError(
            f"{folder} was pretrained on sentences about {few(known, most=3)}, which data.unseen "
            "leaves out: name another lm.folder, or allow it with lm.pretrain.unseen=true"
        )


def lm_config(size, tokenizer: Tokenizer) -> LMConfig:
    return LMConfig(
        vocab_size=tokenizer.size,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
        num_kv_heads=size.num_kv_heads,
        head_dim=size.hidden_size // size.num_heads,
        tie_embeddings=True,
        max_positions=512,
        eos_token_ids=(tokenizer.eos_id,),
    )


def encode_pairs(tokenizer: Tokenizer, pairs, limit: int) -> dict[str, np.ndarray]:
    """names int32 [S, NAME_TOKENS], captions int32 [S, longest], both padded with -1."""
    names = np.full((len(pairs), NAME_TOKENS), -1, np.int32)
    captions = np.full((len(pairs), limit), -1, np.int32)
    for row, (name, text) in enumerate(pairs):
        ids = tokenizer.encode(" " + name)[:NAME_TOKENS]
        names[row, : len(ids)] = ids
        ids, _ = encode_caption(tokenizer, text, limit)
        captions[row, : len(ids)] = ids
    longest = int((captions >= 0).sum(axis=1).max())
    return {"names": names, "captions": captions[:, :longest]}


def fit(model: DecoderLM, data: dict[str, np.ndarray], prompt: np.ndarray, size, seed: int):
    """Trained parameters, and the training loss over the last tenth of the steps."""
    key, init = jax.random.split(jax.random.key(seed))
    params = init_params(model.config, init)
    schedule = optax.warmup_cosine_decay_schedule(0, size.lr, size.steps // 10 + 1, size.steps)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.01))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, opt_state, data, rows, key):
        batch = {name: values[rows] for name, values in data.items()}
        objective = functools.partial(example_loss, model, prompt, batch, key)
        loss, grads = jax.value_and_grad(objective)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    data = jax.tree.map(jnp.asarray, data)
    opt_state, recent = jax.jit(tx.init)(params), []
    rng = np.random.default_rng(seed)
    with Progress(size.steps) as progress:
        for step in range(size.steps):
            rows = rng.integers(len(data["captions"]), size=size.batch_size)
            draw = jax.random.fold_in(key, step)
            params, opt_state, loss = update(params, opt_state, data, rows, draw)
            progress.update(step + 1, loss=loss)
            if step >= size.steps * 9 // 10:
                recent.append(loss)
    return params, {"steps": size.steps, "caption_loss": float(np.mean(jax.device_get(recent)))}


def example_loss(model: DecoderLM, prompt: np.ndarray, batch: dict, key: jax.Array, params: dict):
    """Cross-entropy on the captions [B, L], each after a summary of its words and the prompt."""
    captions, table = batch["captions"], params["embed"]["embedding"]  # [B, L], [V, H]
    words = jnp.concatenate([batch["names"], captions], axis=1)  # [B, S]
    choose, shake, share = jax.random.split(key, 3)
    # The share of the words to keep is small for most, so that the name and its values count.
    kept = jax.random.uniform(share, (len(words), 1)) ** 6
    kept = jax.random.uniform(choose, words.shape) < kept  # [B, S]
    kept = (kept | (jnp.arange(words.shape[1]) < NAME_TOKENS)) & (words >= 0)
    # [B, H], the mean of the kept words, with the norm of an embedding
    summary = jnp.einsum("bsh,bs->bh", table[jnp.maximum(words, 0)], kept.astype(jnp.float32))
    summary *= jax.lax.rsqrt(jnp.mean(summary**2, axis=1, keepdims=True) + 1e-8)
    summary += NOISE * jax.random.normal(shake, summary.shape)
    summary *= jnp.sqrt(jnp.mean(table**2))
    prefix = prefix_of(summary, table[prompt])  # [B, 1 + P, H]
    tokens, mask = jnp.maximum(captions, 0), (captions >= 0).astype(jnp.float32)
    hidden = caption_states(model, params, prefix, tokens)  # [B, L, H]
    return losses.caption(hidden, head_matrix(params), tokens, mask, tokens.shape[1])[0]
