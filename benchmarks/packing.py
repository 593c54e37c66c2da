"""Caption tokens a second of the language model's part of the joint step, packed and unpacked.

    python -m benchmarks.packing --json results/benchmarks/packing.json [--lm 4B --dtype bfloat16]

In: a language model of random weights, and captions whose lengths are drawn around a mean. Out: for
the caption loss and its gradient in the prefix, real caption tokens a second with a row for each
example and with several in a row (`models/packing.py`), the repetitions of both interleaved; and
the share of positions that the packed rows compute. Either way the loss is the same.
"""

import argparse
import dataclasses
import functools
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks.record import measured_here, write_result
from hocslm_jax.models.packing import choose_grid
from hocslm_jax.models.qwen3 import SIZES, Qwen3, Qwen3Config, attention_for, init_params
from hocslm_jax.train.step import caption_loss

PROMPT = 8  # "Describe the action performed by the person:"
LMS = {
    **SIZES,
    "tiny": Qwen3Config(512, 64, 128, 2, 4, 2, 16),
    "small": Qwen3Config(8192, 256, 768, 4, 4, 2, 64),
}


def make_batch(args: argparse.Namespace, config: Qwen3Config) -> tuple[dict, np.ndarray]:
    """Prefixes and captions of one batch, and the lengths of all there are to be drawn."""
    rng = np.random.default_rng(args.seed)
    corpus = rng.normal(args.mean, args.spread, size=4096).round()
    corpus = np.clip(corpus, 2, args.tokens).astype(np.int32)
    corpus[0] = args.tokens  # the longest says how wide a row for each is
    prefix = rng.normal(size=(args.batch, 1 + PROMPT, config.hidden_size)) * 0.02
    batch = {
        "prefix": prefix.astype(np.float32),
        "tokens": rng.integers(config.vocab_size, size=(args.batch, args.tokens), dtype=np.int32),
        "lengths": rng.choice(corpus, size=args.batch),
        "mask": np.ones(args.batch, np.float32),
    }
    return batch, corpus


def measure(args: argparse.Namespace) -> dict:
    config = LMS[args.lm]
    batch, corpus = make_batch(args, config)
    whole = PROMPT + args.tokens
    grid = choose_grid(PROMPT + corpus, np.ones(len(corpus)), args.batch, 1, whole)
    params = init_params(config, jax.random.key(args.seed), dtype=args.dtype)
    attention = attention_for(jax.default_backend(), config, args.dtype)
    lm, batch = Qwen3(config, args.dtype, args.remat, attention), jax.device_put(batch)
    steps = {}
    for name, where in (("unpacked", None), ("packed", grid)):
        if name == "packed" and grid is None:
            break  # nothing to win: these captions are too even

        def loss(prefix, params, batch, where=where):
            return caption_loss(lm, params, prefix, batch, args.chunk, where)[0]

        step = jax.jit(jax.value_and_grad(loss)).lower(batch["prefix"], params, batch).compile()
        steps[name] = functools.partial(step, batch["prefix"], params, batch)
    seconds, losses = interleaved(steps, args.repetitions)
    tokens = int(np.asarray(batch["lengths"]).sum())
    rates = {name: tokens / statistics.median(times) for name, times in seconds.items()}
    return {
        "tokens_per_s": rates,
        "ratio": rates["packed"] / rates["unpacked"] if grid else None,
        "seconds": seconds,
        "loss": losses,
        "grid": dataclasses.asdict(grid) if grid else None,
        "positions": {"real": tokens + PROMPT * args.batch, "unpacked": whole * args.batch}
        | ({"packed": grid.size} if grid else {}),
    }


def interleaved(steps: dict, repetitions: int) -> tuple[dict, dict]:
    """Seconds of each step's repetitions after a first one, and its loss."""
    losses = {name: float(step()[0]) for name, step in steps.items()}
    seconds = {name: [] for name in steps}
    for _ in range(repetitions):
        for name, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step())
            seconds[name].append(time.perf_counter() - start)
    return seconds, losses


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packing")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--lm", choices=LMS, default="small")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--remat", action="store_true", help="recompute layers, as a large one must"
    )
    parser.add_argument("--batch", type=int, default=64, help="clips")
    parser.add_argument("--tokens", type=int, default=64, help="of the longest caption")
    parser.add_argument("--mean", type=float, default=32, help="tokens of a caption")
    parser.add_argument("--spread", type=float, default=12, help="its standard deviation")
    parser.add_argument(
        "--chunk", type=int, default=16, help="positions whose logits exist at once"
    )
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    result = {
        "benchmark": "packing",
        "unit": "caption tokens/s",
        "settings": {key: value for key, value in vars(args).items() if key != "json"},
        **measure(args),
        **measured_here("packing", arguments=argv),
    }
    for name, rate in result["tokens_per_s"].items():
        print(f"{name:<9} {rate:12,.0f} caption tokens/s, loss {result['loss'][name]:.5f}")
    if result["ratio"]:
        share = result["positions"]["packed"] / result["positions"]["unpacked"]
        print(f"packed: {result['ratio']:.2f} times as fast, in {share:.0%} of the positions")
    write_result(args.json, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
