"""Reads scores of several models on the same clips and matches them by clip id.

In: run folders, `scores.npz` files, and score pickles of CTR-GCN and its descendants (name ->
logits). Out: `Member`s with the same clips in the same order. Pickles hold no labels; these come
from the other scores or from a list of clips.
"""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hocslm_jax.data.prepare import nw_ucla
from hocslm_jax.data.streams import PAPER_STREAMS, STREAMS
from hocslm_jax.errors import UserError
from hocslm_jax.evaluate.scores import Scores, check_scores, load_scores
from hocslm_jax.files.pickles import check_not_shared, read_pickle
from hocslm_jax.files.text import read_json, read_lines

SCORES, TRAIN_SCORES = "scores.npz", "scores_train.npz"  # scores of a run's test and training clips
PICKLE = "epoch1_test_score.pkl"  # CTR-GCN's name for scores.npz
_NUMBERED = re.compile(r"test_(\d+)")


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One model's scores, its name, and its stream and seed if known."""

    name: str
    scores: Scores
    stream: str = ""  # one of data.streams.STREAMS, "" if unknown
    seed: int | None = None


def read_members(
    sources: Sequence[str],
    clips: dict[str, int | None] | None = None,
    labelled: Sequence[Member] = (),
    name: str = SCORES,
) -> list[Member]:
    """The members that `sources` name, with the same clips in the same order.

    Args:
        sources: each `[STREAM=]PATH` of a run folder, a folder of runs or a run of several streams
            (all its members, the paper's streams in the paper's order), a scores.npz or a score
            pickle.
        clips: labels by clip id as of `read_clip_list`, for pickles that number their clips.
        labelled: members with the labels of further clips.
        name: name of the file in a run's folder.

    Raises:
        UserError: a file is missing, damaged or given twice, or scores do not belong together; the
            message names both files and the first clip.
    """
    entries = [entry for source in sources for entry in _entries(source, name)]
    paths = [path for _, path in entries]
    if twice := [path for path in paths if paths.count(path) > 1]:
        raise UserError(f"{twice[0]} is given twice: give every member once, with its weight")
    found = {path: load_scores(path) for path in paths if path.suffix != ".pkl"}
    labels = {clip: label for clip, label in (clips or {}).items() if label is not None}
    for scores in [*found.values(), *(member.scores for member in labelled)]:
        labels |= dict(zip(scores.ids, scores.labels.tolist(), strict=True))
    for path in paths:
        if path not in found:
            found[path] = _read_score_pickle(path, clips, labels)
    members = [_member(stream, path, found[path]) for stream, path in entries]
    if len({member.name for member in members}) < len(members):  # e.g. two joint streams
        members = [
            dataclasses.replace(member, name=f"{path.parent.parent.name}/{member.name}")
            for member, path in zip(members, paths, strict=True)
        ]
    return match(members)


def match(members: Sequence[Member]) -> list[Member]:
    """The members, with their clips in the order of the first member.

    Raises:
        UserError: clips, labels or classes differ from the first member's.
    """
    first, matched = members[0], []
    classes = next((m.scores.classes for m in members if m.scores.classes), ())
    for member in members:
        _check_same(first, member)
        place = {clip: row for row, clip in enumerate(member.scores.ids)}
        rows = np.array([place[clip] for clip in first.scores.ids])
        labels = member.scores.labels[rows]
        if (wrong := np.flatnonzero(labels != first.scores.labels)).size:
            raise UserError(
                f"{member.name} and {first.name} differ in the labels of {wrong.size} clips, the "
                f"first {first.scores.ids[wrong[0]]}: they are not of the same dataset"
            )
        scores = Scores(first.scores.ids, labels, member.scores.logits[rows], classes)
        matched.append(dataclasses.replace(member, scores=scores))
    return matched


def read_clip_list(path: Path) -> dict[str, int | None]:
    """Labels (or None) by clip id, from lines `ID [LABEL]` in the order of a score pickle.

    Raises:
        UserError: no such file, a repeated clip, or an invalid line (with its number).
    """
    clips: dict[str, int | None] = {}
    for number, line in read_lines(path, "write a line `ID [LABEL]` for each clip"):
        clip, *label = re.split(r"[\s,;]+", line)
        if not clip or len(label) > 1 or not all(text.isdecimal() for text in label):
            raise UserError(f"{path}, line {number}: expected `ID [LABEL]`, got {line[:40]!r}")
        if clip in clips:
            raise UserError(f"{path}, line {number}: {clip[:40]!r} occurs twice; give it once")
        clips[clip] = int(label[0]) if label else None
    return clips


def _entries(source: str, name: str) -> list[tuple[str, Path]]:
    """(stream or "", file) of every member in one argument."""
    stream, separator, rest = source.partition("=")
    known = separator and stream in STREAMS
    stream, path = (stream, Path(rest)) if known else ("", Path(source))
    if not path.is_dir():
        return [(stream, path)]
    inside = sorted(path.glob(f"*/{name}"))
    files = (PICKLE, name) if name == SCORES else (name,)
    own = [path / file for file in files if (path / file).is_file()]
    # A run of several streams also has scores of their ensemble; the single streams are meant.
    if own and (own[0].name == PICKLE or stream or not inside):
        return [(stream, own[0])]
    if not inside:
        how = "" if name == SCORES else " with --config.test.train_clips"
        raise UserError(f"{path} holds no {' or '.join(files[::-1])}: evaluate the run first{how}")
    order = {stream: place for place, stream in enumerate(PAPER_STREAMS)}
    inside.sort(key=lambda file: order.get(_stream_and_seed(file)[0], len(order)))
    return [("", file) for file in inside]


def _member(stream: str, path: Path, scores: Scores) -> Member:
    own, seed = _stream_and_seed(path)
    if stream and own and stream != own:
        raise UserError(f"{path} is of the stream {own}, not {stream}: its config.json says so")
    whole = path.parent.name if path.name in (SCORES, TRAIN_SCORES, PICKLE) else path.name
    return Member(whole or str(path), scores, stream or own, seed)


def _stream_and_seed(path: Path) -> tuple[str, int | None]:
    """Stream and seed from the config.json beside a file of scores; ("", None) without it."""
    try:
        config = read_json(path.parent / "config.json")
        several = config["data"].get("streams")
        return "" if several else config["data"]["stream"], config["seed"]
    except (UserError, KeyError, TypeError, AttributeError):
        return "", None


def _read_score_pickle(path: Path, clips: dict | None, labels: dict[str, int]) -> Scores:
    names, logits = _load_pickle(path)
    ids = _clip_ids(path, names, logits.shape[1], clips)
    if set(ids) == set(nw_ucla.ctrgcn_order()):
        labels = {clip: nw_ucla.label_of(clip) for clip in ids} | labels
    if missing := [clip for clip in ids if clip not in labels]:
        raise UserError(
            f"{path}: no label for {len(missing)} clips, the first {missing[0]}: give a run that "
            "has these clips, or labels in --clips FILE"
        )
    scores = Scores(ids, np.array([labels[clip] for clip in ids], np.int32), logits)
    check_scores(scores, path)
    return scores


def _load_pickle(path: Path) -> tuple[list[str], np.ndarray]:
    """Names and logits [N, C] of a dict or list of name -> array, or of a list of arrays.

    CTR-GCN numbers the clips of NW-UCLA 0, 1, …, and those of NTU test_0, test_1, ….
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of scores")
    found = read_pickle(path)
    pairs = list(found.items()) if isinstance(found, dict) else found
    if isinstance(pairs, list) and all(isinstance(entry, np.ndarray) for entry in pairs):
        pairs = list(enumerate(pairs))
    if not isinstance(pairs, list) or not pairs or not all(map(_is_pair, pairs)):
        raise UserError(f"{path} is not a pickle of scores: expected name -> array of logits")
    check_not_shared(path, [array for _, array in pairs], "clips")
    names = [f"test_{key}" if isinstance(key, int) else key for key, _ in pairs]
    try:
        with np.errstate(all="ignore"):  # values that are not finite are refused later
            return names, np.stack([array.reshape(-1).astype(np.float32) for _, array in pairs])
    except ValueError as error:
        raise UserError(f"{path}: its logits do not fit together ({error})") from None


def _is_pair(entry: object) -> bool:
    pair = isinstance(entry, tuple | list) and len(entry) == 2
    return pair and type(entry[0]) in (str, int) and isinstance(entry[1], np.ndarray)


def _clip_ids(path: Path, names: list[str], width: int, clips: dict | None) -> tuple[str, ...]:
    """The ids of names; `test_7` is clip 7 of the list of clips, whose length must match."""
    numbers = [_NUMBERED.fullmatch(name) for name in names]
    if not any(numbers):
        return tuple(Path(name).name.removesuffix(".skeleton") for name in names)
    ucla = nw_ucla.ctrgcn_order()
    if clips is None and (len(names), width) == (len(ucla), len(nw_ucla.CLASSES)):
        print(f"{path}: read as NW-UCLA's test clips in CTR-GCN's order", file=sys.stderr)
        clips = dict.fromkeys(ucla)
    if clips is None:
        raise UserError(
            f"{path} numbers its clips ({names[0]}) instead of naming them: give --clips FILE with "
            "a line `ID [LABEL]` for each, in that order"
        )
    places = [int(number[1]) for number in numbers if number]
    if sorted(places) != list(range(len(clips))) or not all(numbers):
        raise UserError(f"{path} has {len(names)} clips, the list of clips {len(clips)}")
    ids = tuple(clips)
    return tuple(ids[place] for place in places)


def _check_same(first: Member, other: Member) -> None:
    here, there = set(first.scores.ids), set(other.scores.ids)
    for lacking, having, clips in ((other, first, here - there), (first, other, there - here)):
        if clips:
            raise UserError(
                f"{lacking.name} lacks {len(clips)} clips of {having.name}, the first "
                f"{min(clips)}: score both on the same split"
            )
    both = f"{other.name} and {first.name} have different classes"
    sizes = [member.scores.logits.shape[1] for member in (other, first)]
    if sizes[0] != sizes[1]:
        raise UserError(f"{both} ({sizes[0]}, {sizes[1]}): they are not of the same dataset")
    names = [member.scores.classes for member in (other, first)]
    if all(names) and names[0] != names[1]:
        place = next(k for k in range(sizes[0]) if names[0][k] != names[1][k])
        there, here = (own[place][:40] for own in names)
        raise UserError(
            f"{both}: class {place} is {there!r} there and {here!r} here; both need "
            "the same classes in one order (classes.txt beside clips.csv fixes it)"
        )
