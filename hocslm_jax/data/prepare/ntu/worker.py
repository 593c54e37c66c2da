"""Worker processes turn files into clips. This module imports little, so that they start fast.

In: a batch of members, with their bytes if only the parent can read them. Out: for each file a
Clip, or (file, reason) if it is bad.
"""

import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing import parent_process
from multiprocessing.connection import wait

from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.ntu.bodies import Compat, actors
from hocslm_jax.data.prepare.ntu.skeleton import parse_name, parse_skeleton
from hocslm_jax.data.prepare.ntu.sources import Member, read_member

Batch = Sequence[tuple[Member, bytes | None]]


def start() -> None:
    """Ignores Ctrl-C, which the parent handles, and ends when the parent ends or is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent_process().sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def read_batch(batch: Batch, compat: Compat) -> list[Clip | tuple[str, str]]:
    """One result for each file, in order."""
    return [_read(member, data, compat) for member, data in batch]


def _read(member: Member, data: bytes | None, compat: Compat) -> Clip | tuple[str, str]:
    try:
        return clip(member.stem, read_member(member) if data is None else data, compat)
    except ValueError as error:
        return member.name, str(error)


def clip(name: str, data: bytes, compat: Compat) -> Clip:
    """The Clip in the bytes of a file of that name; joints [T, M, 25, 3] with M of 1 or 2.

    Raises:
      ValueError: the name is wrong, or the file is damaged; with the line if known.
    """
    fields = parse_name(name)
    return Clip(
        id=name,
        joints=actors(parse_skeleton(data), compat),
        label=fields.action - 1,
        subject=fields.performer,
        camera=fields.camera,
        setup=fields.setup,
        replication=fields.replication,
    )
