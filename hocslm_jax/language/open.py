"""Opens the frozen language model of a run, and the captions that it is trained with.

In: `config.lm`, a mesh, and for training the captions of the dataset. Out: a `Language` with its
weights on the devices, in bfloat16 or float32, and matrices optionally in 8 or 4 bits. The weights
are an argument of the train step without gradients, optimiser state or checkpoints.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hocslm_jax import sharding
from hocslm_jax.data.captions import CaptionTable, caption_table
from hocslm_jax.data.tokenizer import Tokenizer, check_pair, load_tokenizer
from hocslm_jax.errors import UserError
from hocslm_jax.files.checksums import check_seal
from hocslm_jax.hosts import say
from hocslm_jax.language.gguf_tokenizer import gguf_tokenizer
from hocslm_jax.models import FusionConfig
from hocslm_jax.models.hocslm import READS
from hocslm_jax.models.lm import (
    DecoderLM,
    LMConfig,
    attention_for,
    is_gguf,
    load_params,
    param_shapes,
    read_config,
    read_metadata,
    resolve,
)
from hocslm_jax.models.lm.quantise import KINDS, check_sizes
from hocslm_jax.models.packing import Grid, choose_grid


@dataclasses.dataclass(frozen=True)
class LanguageSettings:
    """`config.lm`.

    Attributes:
      name: folder, GGUF file or hub id of a checkpoint, for init="load".
      init: "load", or "pretrain" a small one on the captions.
      folder: folder of the pretrained one; "" = `lm/` in the workdir.
      dtype: "" = bfloat16 for a loaded model, float32 for one that is pretrained here.
      weights: "" = in dtype; "int8" or "int4" quantises the layers' matrices of a loaded model,
        see `models.lm.quantise`: less memory, more arithmetic.
      remat: recompute activations in the backward pass: less memory, more arithmetic.
      fsdp: True splits the weights over the `data` devices too.
      chunk: caption positions whose logits are in memory at the same time.
      pack: True puts several examples into one row instead of padding each.
      max_tokens: limit of a caption with its EOS; longer ones are cut at a word.
      captions: "auto" (the clips' own, otherwise the bank of the classes), "clips" or "bank".
      prompt: the sentence between the visual token and the caption.
      prompt_mode: "soft" (trained, initialised with that sentence) or "text" (fixed).
      bos: True puts the model's BOS token before the visual token. Pretrained models attend to the
        first vector of a sequence whatever it contains, and hardly read a visual token there.
      projector_reads: its input, "feature" (eq. 12) or "joints", see `models.FusionConfig`.
      projector_width: hidden width of the projector.
      projector_init: "random", or "captions": see `language.align`; needs a trained encoder.
      ln_gain: initial scale of the visual token: "embed_rms" (as word embeddings) or "one".
      describe: number of test clips to describe at the end; 0 = none, -1 = all.
    """

    name: str = ""
    init: str = "pretrain"
    folder: str = ""
    dtype: str = ""
    weights: str = ""
    remat: bool = True
    fsdp: bool = False
    chunk: int = 16
    pack: bool = False
    max_tokens: int = 48
    captions: str = "auto"
    prompt: str = "Describe the action performed by the person:"
    prompt_mode: str = "soft"
    bos: bool = False
    projector_reads: str = "feature"
    projector_width: int = 1024
    projector_init: str = "random"
    ln_gain: str = "embed_rms"
    describe: int = 256


@dataclasses.dataclass(frozen=True, eq=False)
class Language:
    """A frozen language model.

    Attributes:
      name: folder or hub id.
      model: architecture.
      params: weights, placed on the mesh.
      tokenizer: tokenizer of its vocabulary.
      prompt: float32 [P, H], the embeddings of the prompt sentence.
      gain: RMS of its embedding table.
    """

    name: str
    model: DecoderLM
    params: dict
    tokenizer: Tokenizer
    prompt: np.ndarray
    gain: float


def open_language(lm, mesh: jax.sharding.Mesh, folder: str | Path) -> Language:
    """Loads the model of `config.lm` from an HF folder or hub id onto the mesh.

    Args:
        lm: `config.lm`.
        folder: `config.lm.name`, or the folder of a model that was pretrained here.

    Raises:
        UserError: no such model, an unsupported architecture or tokenizer, or an invalid option.
    """
    language = open_without_weights(lm, folder)
    config, dtype = language.model.config, language.model.dtype
    platform = mesh.devices.flat[0].platform
    model = language.model.clone(attention=attention_for(platform, config, dtype))
    shapes = param_shapes(config, dtype, model.weights)
    placed = sharding.tree_shardings(shapes, mesh, sharding.lm_rules(lm.fsdp))
    params = load_params(resolve(folder), config, placed, dtype, model.weights)
    words = np.asarray(prompt_ids(lm, config, language.tokenizer))  # [P]

    # Jitted and replicated, because a host need not hold the whole table.
    @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def prompt_and_gain(table):  # [V, H]
        table = table.astype(jnp.float32)
        return table[words], jnp.sqrt(jnp.mean(jnp.square(table)))

    prompt, gain = jax.device_get(prompt_and_gain(params["embed"]["embedding"]))
    return dataclasses.replace(
        language, model=model, params=params, prompt=prompt, gain=float(gain)
    )


def open_without_weights(lm, folder: str | Path) -> Language:
    """A language model without weights, which suffices to classify. Raises UserError as above.

    Its prompt is zeros and its gain 1; the values that they initialise are in the checkpoint.
    """
    check_language(lm)
    config, tokenizer = read_language(resolve(folder))
    dtype = lm.dtype or ("bfloat16" if lm.init == "load" else "float32")
    words = prompt_ids(lm, config, tokenizer)
    prompt = np.zeros((len(words), config.hidden_size), np.float32)
    model = DecoderLM(config, dtype=dtype, remat=lm.remat, weights=lm.weights)
    check_sizes(config, model.weights)
    return Language(str(folder), model, {}, tokenizer, prompt, 1.0)


def prompt_ids(lm, config: LMConfig, tokenizer: Tokenizer) -> list[int]:
    """The tokens of the prompt [P], of which `leading_vectors` precede the visual token."""
    words = tokenizer.encode(lm.prompt)
    if not words:
        raise UserError("lm.prompt is empty: give it a sentence")
    if not leading_vectors(lm):
        return words
    if config.bos_token_id not in range(config.vocab_size):
        raise UserError("lm.bos=true, but this language model has no BOS token: set lm.bos=false")
    return [config.bos_token_id, *words]


def leading_vectors(lm) -> int:
    """How many vectors precede the visual token: a BOS token or, in the paper, none."""
    return int(lm.bos)


def read_language(folder: Path) -> tuple[LMConfig, Tokenizer]:
    """Sizes and tokenizer of a model's folder or GGUF file; any of `eos_token_ids` ends a text.

    Raises:
        UserError: they do not fit each other, or a file has a wrong checksum.
    """
    if is_gguf(folder):
        config, tokenizer = read_config(folder), gguf_tokenizer(read_metadata(folder), folder)
    else:
        check_seal(folder, None, "remove the folder to pretrain it again, or fetch it again")
        config, tokenizer = read_config(folder), load_tokenizer(folder)
    ends = config.eos_token_ids
    check_pair(tokenizer, config.vocab_size, ends, str(folder))
    if ends and tokenizer.eos_id not in ends:  # captions end as the model's own texts do
        config = dataclasses.replace(config, eos_token_ids=(*ends, tokenizer.eos_id))
        tokenizer = dataclasses.replace(tokenizer, eos_id=ends[0])
    return config, tokenizer


def fusion_config(lm, language: Language, classify_on: str) -> FusionConfig:
    """The sizes that a model needs to feed this language model."""
    return FusionConfig(
        lm_width=language.model.config.hidden_size,
        prompt_length=len(language.prompt),
        width=lm.projector_width,
        gain=language.gain if lm.ln_gain == "embed_rms" else 1.0,
        reads=lm.projector_reads,
        classify_on=classify_on,
        leading=leading_vectors(lm),
    )


def training_captions(config, store, language: Language, shuffled: bool) -> CaptionTable:
    """The captions of a stage; prints their source and how many were cut."""
    lm = config.lm
    seed = config.seed if shuffled else None
    rows = store.rows(config.data.protocol, "train")
    mirrored = config.data.mirror > 0
    table = caption_table(
        store, language.tokenizer, lm.max_tokens, lm.captions, seed, rows, mirrored
    )
    notes = [f"{table.num_from_bank:,} of {len(rows):,} training clips use the caption bank"]
    if mirrored:
        notes.append("half of them are about mirrored clips")
    if table.num_cut:
        notes.append(f"{table.num_cut:,} were longer than {lm.max_tokens} tokens and cut")
    if table.num_stray:
        notes.append(f"{table.num_stray:,} lines are about clips not in {store.name}")
    if table.template_classes:
        names = ", ".join(table.template_classes[:3])
        notes.append(f"{len(table.template_classes)} classes have only a stock sentence ({names})")
    say("; ".join([f"captions: {len(table.texts):,} sentences", *notes, *["shuffled"][:shuffled]]))
    return table


def packing_grid(config, store, language: Language, table: CaptionTable, mesh) -> Grid | None:
    """The grid for packed captions (`lm.pack`), chosen by their lengths; prints the saving.

    None if packing is off, or would save too little.
    """
    if not config.lm.pack:
        return None
    rows = store.rows(config.data.protocol, "train")
    counts, first = table.count[rows], table.start[rows]
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    weights = np.zeros(len(table.lengths))  # relative frequency of each sentence
    np.add.at(weights, np.repeat(first, counts) + place, np.repeat(1 / counts, counts))
    before, shards = len(language.prompt), mesh.shape["data"]
    examples, whole = config.train.batch_size // shards, before + table.tokens.shape[1]
    grid = choose_grid(before + table.lengths, weights, examples, shards, whole)
    if grid is None:
        say("captions are not packed: their lengths are too similar, or too few are on a device")
    else:
        share = grid.size / (examples * whole)
        say(f"captions are packed into {share:.0%} of the positions of separate rows")
    return grid


def check_language(lm) -> None:
    """Raises UserError for a value of `config.lm` that is unknown or out of range."""
    for name, known in (
        ("init", ("load", "pretrain")),
        ("dtype", ("", "bfloat16", "float32")),
        ("captions", ("auto", "clips", "bank")),
        ("prompt_mode", ("soft", "text")),
        ("projector_reads", READS),
        ("projector_init", ("random", "captions")),
        ("ln_gain", ("embed_rms", "one")),
    ):
        if lm[name] not in known:
            raise UserError(f"lm.{name} is {lm[name]!r}: use one of {', '.join(known)}")
    if lm.weights not in ("", *KINDS):
        known = ", ".join(KINDS)
        raise UserError(f"lm.weights is {lm.weights!r}: use one of {known}, or leave it empty")
    if lm.weights and lm.init != "load":
        raise UserError(
            f"lm.weights={lm.weights} is for a language model that is loaded: name one with "
            "llm=…, or leave lm.weights empty for the small one that is trained here"
        )
    if lm.init == "load" and not lm.name:
        raise UserError("lm.name is empty: name a folder or hub id, or set lm.init to pretrain")
    for name in ("chunk", "max_tokens", "projector_width"):
        if lm[name] < 2:
            raise UserError(f"lm.{name} is {lm[name]}: it must be at least 2")
