"""NTU RGB+D 60 and 120 as a Recipe: from folders, zips and tars of raw files to clips.

In: one or several sources, which need not be complete. Out: shards of Clips, sorted by id (clips of
tars keep the order of the tar), independent of the number of processes that parse them. Only a few
clips are in memory. Files that published numbers exclude are left out; for NTU60, also the rest of
NTU120.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hocslm_jax.data import protocols
from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.ntu.bodies import COMPAT, Compat
from hocslm_jax.data.prepare.ntu.classes import CLASSES, MINI, NTU60, NTU120
from hocslm_jax.data.prepare.ntu.missing import missing_ids
from hocslm_jax.data.prepare.ntu.skeleton import Name, parse_name
from hocslm_jax.data.prepare.ntu.sources import Member, OnBad, list_members, open_tar
from hocslm_jax.data.prepare.ntu.worker import read_batch, start
from hocslm_jax.data.prepare.writer import SHARD_CLIPS, Recipe, Shard
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25

BATCH = 16  # files given to a worker at a time, some 3 MB of text

# The largest setup, camera, performer, replication and action.
LAST = {"ntu60": Name(17, 3, 40, 2, 60), "ntu120": Name(32, 3, 106, 2, 120)}
# Setup, camera, performer and replication of ntu120_mini's clips.
MINI_TAKES = ((18, 1, 8, 2), (18, 1, 45, 1), (32, 3, 106, 1))


def recipe(
    dataset: str,
    sources: Sequence[Path],
    on_bad: OnBad,
    *,
    workers: int = 1,
    compat: Compat | None = None,
    keep: Callable[[Name], bool] | None = None,
) -> Recipe:
    """The Recipe of "ntu60" or "ntu120".

    Args:
      on_bad: called with (file, reason) for every file that is skipped though it belongs to the
        set.
      workers: processes that parse; 1 parses in this one.
      compat: how the files are read; by default as in the reference.
      keep: selects files by their names; by default all.

    Raises:
      UserError: a source does not exist or is unreadable.
    """
    compat = compat or COMPAT[dataset]
    listings = [list_members(Path(source).absolute(), on_bad) for source in sources]
    files = itertools.chain.from_iterable(members for members, _ in listings)
    members = select(dataset, files, on_bad, keep)
    chunks = [members[at : at + SHARD_CLIPS] for at in range(0, len(members), SHARD_CLIPS)]
    read = functools.partial(_clips, compat, _Parent(workers), on_bad)
    return Recipe(
        name=dataset,
        graph=NTU25,
        classes=CLASSES[dataset],
        shards=[functools.partial(read, chunk) for chunk in chunks],
        protocols=functools.partial(protocols.public, dataset),
        source={
            "sources": [mark for _, mark in listings],
            "compat": dataclasses.asdict(compat),
        },
        expected=protocols.COMPLETE[dataset][0],
        feeder="ntu",
        portable=[{"compat": dataclasses.asdict(compat), "members": c} for c in chunks],
    )


def mini_recipe(sources: Sequence[Path], on_bad: OnBad, *, workers: int = 1) -> Recipe:
    """The Recipe of a small benchmark inside NTU120: three subjects, the classes A061 to A120.

    120 clips train and 60 test, labels 0 to 59, by the official cross-subject rule. The test
    subject is also in another setup, seen by another camera.

    Raises:
      UserError: as `recipe`.
    """
    whole = recipe("ntu120", sources, on_bad, workers=workers, keep=_is_mini)
    return dataclasses.replace(
        whole,
        name=MINI,
        classes=NTU120[len(NTU60) :],
        shards=[functools.partial(_relabelled, shard) for shard in whole.shards],
        protocols=functools.partial(protocols.public, MINI),
        expected=protocols.COMPLETE[MINI][0],
        portable=(),
    )


def _is_mini(name: Name) -> bool:
    return name[:4] in MINI_TAKES and name.action > len(NTU60)


def _relabelled(shard: Shard) -> Iterator[Clip]:
    for clip in shard():
        yield dataclasses.replace(clip, label=clip.label - len(NTU60))


def read_task(task: dict, on_bad: OnBad) -> Iterator[Clip]:
    """The clips of a shard, from its entry in a recipe's `portable`, read back from JSON.

    Raises:
      UserError: the task is invalid.
    """
    try:
        members = [Member(*member) for member in task["members"]]
        compat = Compat(**task["compat"])
    except (KeyError, TypeError, ValueError):
        raise UserError("a task of a worker is damaged: run prepare again") from None
    return _clips(compat, _Parent(1), on_bad, members)


def select(
    dataset: str,
    members: Iterable[Member],
    on_bad: OnBad,
    keep: Callable[[Name], bool] | None = None,
) -> list[Member]:
    """The members that belong to the dataset, sorted by id, tars last; the first of each id."""
    last, missing, chosen = LAST[dataset], missing_ids(LAST[dataset].action), {}
    for member in members:
        try:
            fields = parse_name(member.stem)
            if fields.action > last.action and dataset == "ntu60":
                continue  # the rest of NTU120
            for what, number, most in zip(Name._fields, fields, last, strict=True):
                if number > most:
                    raise ValueError(f"{what} {number}, but {dataset} has {most}")
            if member.stem in missing or (keep and not keep(fields)):
                continue
            if first := chosen.get(member.stem):
                raise ValueError(f"a second file of this name; that in {first.source} is used")
            chosen[member.stem] = member
        except ValueError as error:
            on_bad(member.name, str(error))
    anywhere = sorted(key for key, member in chosen.items() if not isinstance(member.place, int))
    in_tars = [member for member in chosen.values() if isinstance(member.place, int)]
    return [*map(chosen.__getitem__, anywhere), *in_tars]


@dataclasses.dataclass
class _Parent:
    """Shared by the shards: the worker processes, started when needed, and the open tars."""

    workers: int
    tars: dict[str, Iterator[tuple[int, bytes]]] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def pool(self) -> concurrent.futures.Executor:
        context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
        return concurrent.futures.ProcessPoolExecutor(self.workers, context, initializer=start)

    def load(self, member: Member) -> tuple[Member, bytes | None]:
        """The member, with its bytes if it is in a tar, whose members must be read in order."""
        if not isinstance(member.place, int):
            return member, None
        files = self.tars.setdefault(member.source, enumerate(open_tar(member.source)))
        return member, next(data for number, data in files if number == member.place)


def _clips(compat: Compat, parent: _Parent, on_bad: OnBad, members: Sequence[Member]):
    loaded = map(parent.load, members)
    batches = iter(lambda: list(itertools.islice(loaded, BATCH)), [])
    work = functools.partial(read_batch, compat=compat)
    found = map(work, batches) if parent.workers < 2 else _in_order(parent, work, batches)
    for result in itertools.chain.from_iterable(found):
        if isinstance(result, Clip):
            yield result
        else:
            on_bad(*result)


def _in_order(parent: _Parent, work: Callable, batches: Iterator) -> Iterator:
    """`map` over the pool, never more than a few batches ahead."""
    waiting = collections.deque()
    try:
        for batch in itertools.chain(batches, itertools.repeat(None, 3 * parent.workers)):
            if batch is not None:
                waiting.append(parent.pool.submit(work, batch))
            if waiting and (batch is None or len(waiting) >= 3 * parent.workers):
                yield waiting.popleft().result()
    except concurrent.futures.process.BrokenProcessPool:
        raise UserError(
            "a worker process was killed, perhaps for lack of memory; use fewer --workers"
        ) from None
