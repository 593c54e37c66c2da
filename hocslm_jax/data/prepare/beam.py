"""Shards written by Apache Beam's workers, on this machine or a cluster.

In: a Recipe whose shards are portable, and a folder that all workers see under the same path. Out:
the shards and notes that `writer.write_records` would write there itself, byte for byte; it then
finds and uses them. TFDS also supports Beam, but sorts the lengths of shards as text, 10 before 2,
so it is not used. Existing shards are not written again.
"""

import functools
import json
import shlex
from pathlib import Path

from hocslm_jax.data.prepare.ntu.reader import read_task
from hocslm_jax.data.prepare.writer import BadFile, Recipe, bad_file, write_shard
from hocslm_jax.errors import UserError
from hocslm_jax.files.text import MAX_BYTES, read_json

_TASK = ".task"  # beside a shard: the task that makes it


def write_shards(recipe: Recipe, folder: Path, options: str) -> None:
    """Writes every shard of `recipe` that `folder` lacks, each as one element of the pipeline.

    Args:
      options: Beam's options, as on a command line, e.g. "--runner=DirectRunner
        --direct_num_workers=4".

    Raises:
      UserError: Beam is not installed. Errors of the pipeline are raised unchanged.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError("--beam needs Apache Beam: pip install apache-beam") from None
    write_tasks(recipe, folder)
    work = functools.partial(write_task, folder.absolute(), recipe.point)
    with beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
        numbers = pipeline | beam.Create(range(len(recipe.portable))) | beam.Reshuffle()
        _ = numbers | beam.Map(work)


def write_tasks(recipe: Recipe, folder: Path) -> None:
    """Writes into `folder`, for each shard, the task that a worker needs."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, shard in enumerate(recipe.portable):
        (folder / f"{number:05}{_TASK}").write_text(json.dumps(shard), encoding="utf-8")


def write_task(folder: Path, point: tuple[int, int], number: int) -> None:
    """Writes one shard of `folder` with its note; called in a worker."""
    task = read_json(folder / f"{number:05}{_TASK}", limit=MAX_BYTES)
    bad: list[BadFile] = []
    clips = functools.partial(read_task, task, lambda *what: bad.append(bad_file(*what)))
    note = functools.partial(dict, bad=bad, captions=[])
    write_shard(clips, point, folder, number, note)
