"""A raw set of NTU RGB+D 60's exact size and names, for want of the real one.

In: real `.skeleton` files, a few hundred. Out: one zip, named and packed like the official one,
with all 56,880 names, the 302 without a usable skeleton among them; in each the bytes of a real
file. Files of one person and of two are drawn for the classes of one and of two, so their lengths
and the share of second bodies are those of the samples. Which setup films whom is made up where the
list of missing files does not tell, but as often as in the real set.
"""

import dataclasses
import itertools
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.prepare.archive import read_members
from hocslm_jax.data.prepare.ntu.bodies import COMPAT
from hocslm_jax.data.prepare.ntu.missing import missing_ids
from hocslm_jax.data.prepare.ntu.reader import LAST
from hocslm_jax.data.prepare.ntu.skeleton import parse_name
from hocslm_jax.data.prepare.ntu.sources import SUFFIX
from hocslm_jax.data.prepare.ntu.worker import clip
from hocslm_jax.data.protocols import NTU60_SUBJECTS
from hocslm_jax.errors import UserError

FOLDER = "nturgb+d_skeletons"
MUTUAL = (*range(50, 61), *range(106, 121))  # actions of two persons
# Setup-performer pairs: 112 of the subjects that train and 46 of the others give, with 3 cameras,
# 2 replications, 60 actions and without the missing files, the published sizes of both protocols.
NUM_PAIRS = {True: 112, False: 46}
_HEADERS = 2 * (30 + 16 + len(f"{FOLDER}/S001C001P001R001A001{SUFFIX}")) + 32  # of a zip member


@dataclasses.dataclass(frozen=True)
class Sample:
    """A real file, deflated, and the shape [T, M] of the clip in it."""

    packed: bytes
    crc: int
    size: int
    frames: int
    persons: int


def all_names() -> list[str]:
    """The 56,880 names without suffix, sorted."""
    last = LAST["ntu60"]
    takes = itertools.product(
        _pairs(),
        range(1, last.camera + 1),
        range(1, last.replication + 1),
        range(1, last.action + 1),
    )
    return sorted(
        f"S{setup:03}C{camera:03}P{performer:03}R{replication:03}A{action:03}"
        for (setup, performer), camera, replication, action in takes
    )


def some_names(count: int, seed: int) -> list[str]:
    """All names, or so many of them by chance, sorted."""
    names = all_names()
    if count >= len(names):
        return names
    rows = np.random.default_rng(seed).choice(len(names), count, replace=False)
    return [names[row] for row in np.sort(rows)]


def read_samples(source: Path) -> dict[bool, list[Sample]]:
    """The usable files of a folder or archive, by whether their action is one of two persons.

    Raises:
      UserError: unreadable, or none of either kind.
    """
    found = {False: [], True: []}
    for name, data in read_members(source, (SUFFIX,)):
        stem = Path(name).stem
        try:
            frames, persons = clip(stem, data, COMPAT["ntu60"]).joints.shape[:2]
        except ValueError:
            continue
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = deflate.compress(data) + deflate.flush()
        sample = Sample(packed, zlib.crc32(data), len(data), frames, persons)
        found[parse_name(stem).action in MUTUAL].append(sample)
    if not all(found.values()):
        raise UserError(f"{source}: no usable files of one-person and of two-person actions")
    return found


def draw(
    names: Sequence[str], samples: dict[bool, list[Sample]], seed: int
) -> list[tuple[str, Sample]]:
    """A sample for every name."""
    rng = np.random.default_rng(seed)
    pools = (samples[parse_name(name).action in MUTUAL] for name in names)
    return [(name, pool[rng.integers(len(pool))]) for name, pool in zip(names, pools, strict=True)]


def zip_bytes(members: Iterable[tuple[str, Sample]]) -> int:
    """How large `write_zip` makes them, at most."""
    return sum(len(sample.packed) + _HEADERS for _, sample in members)


def write_zip(path: Path, members: Iterable[tuple[str, Sample]]) -> None:
    """Streams the members, deflated already, to a zip that is at `path` only once it is whole."""
    partial = path.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w") as archive:
        for name, sample in members:
            info = zipfile.ZipInfo(f"{FOLDER}/{name}{SUFFIX}")
            info.compress_type, info.CRC = zipfile.ZIP_DEFLATED, sample.crc
            info.compress_size, info.file_size = len(sample.packed), sample.size
            info.header_offset = archive.fp.tell()
            archive.fp.write(info.FileHeader() + sample.packed)
            # What ZipFile keeps for its directory; it has no way to add packed bytes as they are.
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
            archive.start_dir = archive.fp.tell()
    partial.replace(path)


def _pairs() -> list[tuple[int, int]]:
    """158 pairs (setup, performer): those of the missing files, then all performers in turn."""
    missing = [parse_name(name) for name in sorted(missing_ids(60))]
    setups, performers = LAST["ntu60"].setup, range(1, LAST["ntu60"].performer + 1)
    chosen = []
    for trains, count in NUM_PAIRS.items():
        listed = [(name.setup, name.performer) for name in missing]
        others = (
            (1 + (performer + turn) % setups, performer)
            for turn in range(setups)
            for performer in performers
        )
        side = dict.fromkeys(
            pair
            for pair in itertools.chain(listed, others)
            if (pair[1] in NTU60_SUBJECTS) == trains
        )
        chosen += itertools.islice(side, count)
    return chosen
