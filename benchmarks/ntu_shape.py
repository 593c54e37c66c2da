"""Clips of NTU RGB+D's shape that hold noise, prepared as any dataset, and the feed's rate on them.

In: nothing. Out: clips/s by wall clock and by CPU second for each stream, cache and number of
prefetching threads, batches of 64 clips [2, 64, 25, 3]. Frames and persons are drawn as in the
samples of NTU RGB+D 120; the protocol's training rows are as many as those of NTU60 X-Sub, over and
over the same records, so that shuffling costs what it costs there.
"""

import argparse
import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from configs import ntu60_xsub
from hocslm_jax.data.clip import Clip
from hocslm_jax.data.pipeline import Feed
from hocslm_jax.data.prepare.build import prepare
from hocslm_jax.data.prepare.writer import Recipe
from hocslm_jax.data.store import CACHES, Store, open_store
from hocslm_jax.graph import NTU25

NAME = "ntu_shape"
TARGET = 6000  # clips/s on two cores
STREAMS = ("joint", "bone_motion")  # the cheapest and about the dearest
TRAIN_ROWS = 40_091
MEAN_FRAMES, SPREAD, TWO_PERSONS = 80, 0.26, 0.15


def measure(args: argparse.Namespace, rate: Callable, summary: Callable) -> dict:
    """The JSON result but for what every benchmark has.

    Args:
      rate: `feed.clips_per_second`.
      summary: `feed.summary`.
    """
    config = ntu60_xsub.get_config()
    feed, batch_size = Feed.from_config(config.data), config.train.batch_size
    with tempfile.TemporaryDirectory() as folder:
        stores = build(Path(folder), args.stored)
        found = {key: [] for key in itertools.product(STREAMS, CACHES, args.threads)}
        for repetition in range(args.repetitions):
            for (stream, cache, threads), rates in found.items():
                options = {"batch_size": batch_size, "threads": threads, "clips": args.clips}
                view = dataclasses.replace(feed, stream=stream)
                rates.append(rate(stores[cache], "xsub", view, seed=repetition, **options))
    rows = [
        {"stream": stream, "cache": cache} | summary(threads, rates)
        for (stream, cache, threads), rates in found.items()
    ]
    return {
        "shape": "ntu",
        "records": args.stored,
        "mean_frames": float(stores[""].columns["num_frames"].mean()),
        "settings": dataclasses.asdict(feed),
        "batch_size": batch_size,
        "target": TARGET,
        "feed_rates": rows,
    }


def build(folder: Path, count: int) -> dict[str, Store]:
    """The prepared set, opened once for each cache."""
    recipe = Recipe(
        name=NAME,
        graph=NTU25,
        classes=tuple(f"class {label}" for label in range(60)),
        shards=[lambda: clips(count)],
        protocols=lambda columns: {"xsub": {"train": np.resize(np.arange(count), TRAIN_ROWS)}},
        source={"noise": count},
    )
    prepare(recipe, folder, [])
    return {cache: open_store(NAME, folder, cache) for cache in CACHES}


def clips(count: int) -> Iterator[Clip]:
    """Random walks of 25 joints, their lengths log-normal."""
    rng = np.random.default_rng(0)
    for row in range(count):
        frames = rng.lognormal(np.log(MEAN_FRAMES) - SPREAD**2 / 2, SPREAD)
        shape = (int(np.clip(frames, 20, 300)), 1 + int(rng.random() < TWO_PERSONS), 25, 3)
        steps = rng.normal(scale=0.01, size=shape).cumsum(axis=0)
        joints = steps + rng.normal(scale=0.4, size=(1, *shape[1:]))
        yield Clip(id=f"{row:06}", joints=joints.astype(np.float32), label=row % 60)


def report(result: dict) -> str:
    """A line per setting."""
    lines = [f"NTU shape, {result['records']} records, clips/s by the wall clock:"]
    for row in result["feed_rates"]:
        spread = f"{row['min']:.0f}-{row['max']:.0f}"
        cpu = f"{row['median_per_cpu_second']:.0f} per CPU second"
        what = f"{row['stream']:12} {row['cache'] or 'disk':5} {row['threads']} threads"
        lines.append(f"  {what}: {row['median']:6.0f} ({spread}), {cpu}")
    lines.append(f"  target {result['target']}")
    return "\n".join(lines)
