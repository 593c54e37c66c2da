"""Describes what is unusual about a usable dataset, one line each.

In: the index of a dataset and the measurements of its clips (`prepare.measure`). Out: sentences,
which `prepare`, `prepare --check` and the start of a training print. Nothing here is an error.
"""

import collections
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hocslm_jax.data.channels import USUAL, coordinates_of
from hocslm_jax.graph import resolve_graph

SIZES = (0.02, 5.0)  # metres; outside of this range the unit is probably wrong
OTHER = 4  # times larger or smaller than the training clips: another unit
LEAST_ABOVE = 0.3, 0.15  # skeleton sizes by which the head is above the feet, the hips
CROWD = 8  # persons of one clip
NAMED = 3  # names of a longer list that are shown


def notices(index: Mapping, measured: Mapping) -> Iterator[str]:
    """Everything unusual about a dataset, from its `index.json` and a `Census.summary`."""
    classes, labels = index["classes"], np.asarray(index["columns"]["label"], int)
    yield from _alike(classes)
    if len(classes) == 1:
        yield f"{named(classes, 'class')} is the only one, so there is nothing to tell apart"
    elif len(classes) == len(labels):
        yield "each clip has a class of its own: is the column label right?"
    none = [name for label, name in enumerate(classes) if not (labels == label).any()]
    if none:
        yield f"{named(none, 'class')} {_have(none)} no clip at all"
    for protocol, splits in index["protocols"].items():
        yield from _splits(protocol, splits, classes, labels, set(none))
    yield from shared_clips(index, measured)
    yield from _same(index, measured["equal"])
    yield from _never(index, measured)
    yield from _numbers(index, measured)
    yield from _odd(index, measured)


def shared_clips(index: Mapping, measured: Mapping) -> Iterator[str]:
    """A line for each pair of splits of a protocol that share clips with equal joints."""
    for protocol, splits in index["protocols"].items():
        yield from _shared(protocol, splits, index["columns"]["id"], measured["equal"])


def measures(index: Mapping, measured: Mapping) -> str:
    """The numbers of a dataset in one line: sizes, coordinates, persons, unusual channels."""
    low, median, high = measured["size"]
    counts = collections.Counter(measured["persons"])
    persons = ", ".join(f"{count:,} of {people}" for people, count in sorted(counts.items()))
    return (
        f"clips by persons: {persons}; median skeleton size {median:g} ({low:g} to {high:g}), "
        f"coordinates {measured['range'][0]:g} to {measured['range'][1]:g}"
        + (f", channels {index['channels']}" if "channels" in index else "")
    )


def persons_left_out(store, rows: Sequence[int], num_persons: int) -> str:
    """A note on the persons of these clips that a network does not see; "" if it sees all."""
    if store.num_persons <= num_persons:
        return ""
    if not store.measured:  # prepared before the index recorded it
        return f"data.num_persons={num_persons} of up to {store.num_persons} persons are used"
    persons = np.asarray(store.measured["persons"])[np.asarray(rows, int)]
    more, left = int((persons > num_persons).sum()), int((persons - num_persons).clip(0).sum())
    if not more:
        return ""
    return (
        f"data.num_persons={num_persons} leaves out {left:,} persons of {more:,} of {len(rows):,} "
        f"clips, which have up to {persons.max()}"
    )


def odd_size(size: float, usual: float = 0.0) -> str:
    """A note on an unusual size of a skeleton, or "".

    Args:
      usual: the median over the clips that a network was trained on; 0 = unknown, assumes metres.
    """
    low, high = (usual / OTHER, usual * OTHER) if usual else SIZES
    if low <= size <= high:
        return ""
    expected = f"{usual:.3g} in the training clips" if usual else "some 0.2 to 2 in metres"
    if not size:
        return f"all joints of a pose are at one place; a skeleton's size is {expected}"
    unit = "millimetres, centimetres or pixels" if size > high else "another unit"
    return f"the skeleton's size is {size:.4g}, {expected}: is it in {unit}?"


def named(names: Sequence[str], what: str) -> str:
    """`class 'a'`, `2 classes ('a', 'b')`, or the first few of more."""
    shown = ", ".join(repr(name[:40]) for name in names[:NAMED])
    if len(names) == 1:
        return f"{what} {shown}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} {what}{'es' if what.endswith('s') else 's'} ({shown}{more})"


def _have(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def _alike(classes: Sequence[str]) -> Iterator[str]:
    """Names that are probably the same: they differ in case, blanks, or leading zeros."""
    groups = collections.defaultdict(list)
    for name in classes:
        groups[_folded(name)].append(name)
    for names in groups.values():
        if len(names) > 1:
            yield (
                f"{named(names, 'class')} differ only in case, blanks or spelling of a number, "
                "but are different classes"
            )


def _folded(name: str) -> str:
    folded = "".join(unicodedata.normalize("NFKC", name).casefold().split())
    return folded.lstrip("0") or "0" if folded.isdecimal() else folded


def _splits(protocol, splits, classes, labels, none: set) -> Iterator[str]:
    """Splits and classes of a protocol without clips."""
    for split in splits:
        if not len(splits[split]) and split != "val":
            yield f"{protocol}: no {split} clips at all; training needs some"
    for split, kind in (("train", "training"), ("test", "test")):
        rows = np.asarray(splits.get(split, []), int)
        there = set(labels[rows].tolist())
        lacking = [n for at, n in enumerate(classes) if at not in there and n not in none]
        if len(rows) and lacking:
            yield f"{protocol}: {named(lacking, 'class')} {_have(lacking)} no {kind} clips"
    if len(splits.get("val", [])):
        yield f"{protocol}: the {len(splits['val']):,} clips of val choose the best epoch"


def _shared(protocol, splits, ids, equal: Sequence[Sequence[int]]) -> Iterator[str]:
    """Clips of equal joints in two splits of a protocol."""
    side = {row: split for split, rows in splits.items() for row in rows}
    pairs = collections.defaultdict(list)
    for rows in equal:
        found = collections.defaultdict(list)
        for row in rows:
            if row in side:
                found[side[row]].append(row)
        if len(found) > 1:
            pairs[tuple(found)].append([rows[0] for rows in found.values()])
    for between, rows in pairs.items():
        first = " = ".join(ids[row] for row in rows[0])
        yield (
            f"{protocol}: {len(rows)} {'clip is' if len(rows) == 1 else 'clips are'} equal in "
            f"{' and '.join(between)} ({first[:100]}): the same joints on both sides"
        )


def _same(index: Mapping, equal: Sequence[Sequence[int]]) -> Iterator[str]:
    """Clips with equal joints in two classes."""
    ids, labels = index["columns"]["id"], index["columns"]["label"]
    mixed = [rows for rows in equal if len({labels[row] for row in rows}) > 1]
    if mixed:
        first = " = ".join(ids[row] for row in mixed[0])
        yield (
            f"{sum(map(len, mixed))} clips have the joints of a clip of another class "
            f"({first[:100]}): one of the labels is wrong"
        )


def _never(index: Mapping, measured: Mapping) -> Iterator[str]:
    """Joints that some clips lack throughout."""
    clips, joints = len(index["columns"]["id"]), index["graph"]["joints"]
    groups = collections.defaultdict(list)
    for joint, count in measured.get("never", {}).items():
        groups[count].append(joints[int(joint)])
    for count, names in sorted(groups.items(), reverse=True):
        which = "all clips" if count == clips else f"{count:,} of {clips:,} clips"
        yield f"{named(names, 'joint')} {_have(names)} no place in {which}: missing joints are 0"


def _numbers(index: Mapping, measured: Mapping) -> Iterator[str]:
    clips, frames = measured["empty"]
    if clips:
        yield f"{frames:,} frames of {clips:,} clips hold nobody; feeders leave them out"
    most = max(measured["persons"], default=0)
    if most > CROWD:
        yield f"a clip has {most} persons; are its axes [T, M, V, 3]? (data.num_persons uses fewer)"
    flat = coordinates_of(index.get("channels", USUAL)) == 2  # pixels, or shares of an image
    if not flat and (odd := odd_size(measured["size"][1])):
        yield f"{odd} (feeder=ntu expects metres, feeder=nw_ucla takes any unit)"


def _odd(index: Mapping, measured: Mapping) -> Iterator[str]:
    """Clips unlike the others, and a dataset whose persons do not stand upright."""
    ids, odd = index["columns"]["id"], measured.get("odd", {})
    if rows := odd.get("still"):
        yield f"{_clips(rows, ids)} without motion: one frame, or equal ones"
    if rows := odd.get("exchanged"):
        yield (
            f"in {named([ids[row] for row in rows], 'clip')} two persons change places from one "
            "frame to the next: tracks would keep them apart"
        )
    if rows := odd.get("size"):
        yield f"{_clips(rows, ids)} 10 times larger or smaller than most: another unit?"
    above = zip(("feet", "hips"), measured.get("upright", ()), LEAST_ABOVE, strict=False)
    if low := [what for what, share, least in above if share is not None and share < least]:
        up = index["graph"].get("up") or resolve_graph(index["graph"]).up
        yield (
            f"in most clips the head is not above the {low[0]} along {up}, which the graph says is "
            "up: check the axes, the order of the joints (--layout), and up in graph.json"
        )
    elif rows := odd.get("overturned"):
        yield (
            f"{_clips(rows, ids)} upside down compared with the others: is y up in some, down in "
            "others?"
        )


def _clips(rows: Sequence[int], ids: Sequence[str]) -> str:
    """`clip 'a' is`, or `2 clips ('a', 'b') are`."""
    return f"{named([ids[row] for row in rows], 'clip')} {'is' if len(rows) == 1 else 'are'}"
