"""Makes the encoder's input, a batch of NumPy arrays, from a `Feed` and the drawn clips.

A clip is fed and augmented once, and every stream is computed from the result. So all streams of
one draw share the same crop, rotation and drops, whichever streams are requested.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from hocslm_jax.data.augment import ClipView, augment, change_view, random_crop
from hocslm_jax.data.captions import CaptionTable
from hocslm_jax.data.channels import (
    CHANNELS,
    USUAL,
    check_chosen,
    chosen,
    coordinates_of,
    on_coordinates,
)
from hocslm_jax.data.clip import FARTHEST, check_near
from hocslm_jax.data.sampling import (
    FEEDERS,
    SECOND_PERSON,
    centred,
    fit_persons,
    of_size_one,
    with_somebody,
)
from hocslm_jax.data.streams import STREAMS, check_choice, make_stream
from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph, other_side, resolve_graph

Batch = dict[str, np.ndarray]
ORIGINS = ("", "body", "kept")


@dataclasses.dataclass(frozen=True)
class Feed:
    """How a clip becomes the encoder's input: some of the fields of `config.data`.

    Attributes:
      feeder: "ntu" or "nw_ucla", CTR-GCN's two protocols.
      frames: length of the time axis.
      stream: one of `streams.STREAMS`.
      streams: several streams, side by side, which replace `stream`; () uses `stream` alone.
      num_persons: length of the person axis.
      channels: the channels that the network sees, one of `channels.CHANNELS`; without "c" the
        confidence is dropped.
      origin: "body" moves the origin of every clip to the graph's centre joint
        (`sampling.centred`), and scales 2D clips to bodies of size 1 (`sampling.of_size_one`); ""
        and "kept" leave both.
      repeat: passes over the training clips in one epoch.
      p_interval: share of the frames a training crop keeps (ntu).
      test_interval: share of the frames, centred, that a test clip keeps (ntu).
      rotation: bound of a training clip's random turns, in degrees; 0 = the bound of the protocol,
        negative = no turns.
      crop: largest share of its frames that a training clip loses at its ends, before the feeder.
      mirror: probability of exchanging left and right in a training clip.
      scale: bound of the random change of each axis' length, as a share.
      jitter: standard deviation of a joint's random displacement, in the feeder's unit.
      drop_axis: probability of zeroing one coordinate axis of a training clip.
      drop_joints: probability of zeroing some joints in some frames of a training clip.
      second_person: "zeros" or "copy" of the first, where a clip has fewer persons.
      graph: skeleton for the stream, by name or as a mapping; "" = the skeleton of the dataset.

    Raises:
      UserError: an unknown name (the message suggests the nearest one) or a number out of range.
    """

    feeder: str = "nw_ucla"
    frames: int = 52
    stream: str = "joint"
    streams: tuple[str, ...] = ()
    num_persons: int = 1
    channels: str = USUAL
    origin: str = ""
    repeat: int = 1
    p_interval: tuple[float, float] = (0.5, 1.0)
    test_interval: float = 0.95
    rotation: float = 0.0
    crop: float = 0.0
    mirror: float = 0.0
    scale: float = 0.0
    jitter: float = 0.0
    drop_axis: float = 0.0
    drop_joints: float = 0.0
    second_person: str = "zeros"
    graph: str | Mapping | Graph = ""

    def __post_init__(self):
        check_choice("feeder", self.feeder, FEEDERS)
        for stream in (self.stream, *self.streams):
            check_choice("stream", stream, STREAMS)
        twice = len(set(self.streams)) < len(self.streams)
        check_value("data.streams", self.streams, not twice, "different streams")
        check_choice("second_person", self.second_person, SECOND_PERSON)
        check_choice("data.origin", self.origin, ORIGINS)
        check_choice("data.channels", self.channels, CHANNELS)
        for name in ("frames", "num_persons", "repeat"):
            check_value(f"data.{name}", getattr(self, name), getattr(self, name) >= 1, "at least 1")
        for name in ("crop", "mirror", "scale", "drop_axis", "drop_joints"):
            share = getattr(self, name)
            check_value(f"data.{name}", share, 0 <= share <= 1, "between 0 and 1")
        check_value("data.jitter", self.jitter, self.jitter >= 0, "0 or more")
        ordered = len(self.p_interval) == 2 and 0 < self.p_interval[0] <= self.p_interval[1] <= 1
        check_value(
            "data.p_interval", self.p_interval, ordered, "two shares with 0 < low <= high <= 1"
        )
        check_value(
            "data.test_interval", self.test_interval, 0 < self.test_interval <= 1, "in (0, 1]"
        )

    @classmethod
    def from_config(cls, data: Mapping[str, Any], store=None) -> "Feed":
        """Takes the fields it knows from `config.data` and ignores the rest.

        If `num_persons` is 0 or `channels` or `origin` is "", the dataset `store` decides: all
        persons and channels of its clips are used, and clips that were not prepared for this feeder
        are centred.

        Raises:
          UserError: channels that the clips of `store` do not have.
        """
        known = {f.name: data[f.name] for f in dataclasses.fields(cls) if f.name in data}
        if known.get("num_persons") == 0:
            known["num_persons"] = store.num_persons if store else 1
        if store and not known.get("origin"):
            known["origin"] = "" if store.feeder == known["feeder"] else "body"
        if not known.get("channels"):
            known["channels"] = channels_of(store)
        elif store and known["channels"] in CHANNELS:
            check_chosen(store.name, channels_of(store), known["channels"])
        return cls(**known)

    @property
    def coordinates(self) -> int:
        """How many of the channels are coordinates, 2 or 3."""
        return coordinates_of(self.channels)

    def graph_of(self, store) -> Graph:
        """The skeleton of the stream: the one that the feed names, or that of the dataset."""
        graph = resolve_graph(self.graph) if self.graph else store.graph
        if graph.num_joints != store.graph.num_joints:
            raise UserError(
                f"data.graph {graph.name!r} has {graph.num_joints} joints, "
                f"the clips have {store.graph.num_joints}; use a graph with the same joints"
            )
        return graph

    def clip_shape(self, graph: Graph) -> tuple[int, int, int, int]:
        """(M, T, V, C) of one stream of a clip."""
        return (self.num_persons, self.frames, graph.num_joints, len(self.channels))


def channels_of(store) -> str:
    """The channels of the clips in a store; x, y and z if the store does not state them."""
    return getattr(store, "channels", USUAL)


def is_mirrored(feed: Feed, seed: int, turn: int, row: int) -> bool:
    """Whether a clip is mirrored in a pass; then its caption is, too."""
    return feed.mirror > 0 and _generator(seed, turn, row, 2).random() < feed.mirror


def with_captions(build, captions: CaptionTable, feed: Feed, seed: int, draws: list) -> Batch:
    # A separate random stream: captions must not change the augmentation.
    drawn = [
        captions.draw(row, _generator(seed, turn, row, 1), is_mirrored(feed, seed, turn, row))
        for turn, row in draws
    ]
    tokens, lengths = zip(*drawn, strict=True)
    return build(draws) | {"tokens": np.stack(tokens), "lengths": np.array(lengths, np.int32)}


def with_teacher(build, probabilities: np.ndarray, draws: list) -> Batch:
    return build(draws) | {"teacher": probabilities[[row for _, row in draws]]}


def build_batch(
    store, feed: Feed, graph: Graph, seed: int | None, draws: list, view: ClipView | None = None
) -> Batch:
    """One batch from (pass, row) draws; seed None means test mode, row -1 padding.

    `view`: the view of the clips in test mode; None leaves them as they are.
    """
    rows = np.array([row for _, row in draws], np.int32)
    names = feed.streams or (feed.stream,)
    shape = (len(draws), len(names), *feed.clip_shape(graph))
    batch = {
        "x": np.zeros(shape, np.float32),
        "label": np.where(rows >= 0, store.labels[rows], 0).astype(np.int32),
        "mask": (rows >= 0).astype(np.float32),
        "row": rows,
    }
    for x, (turn, row) in zip(batch["x"], draws, strict=True):
        if row >= 0:
            joints = _load(store, row, feed, graph, None if seed is None else (seed, turn), view)
            for name, out in zip(names, x, strict=True):
                fit_persons(_stream(joints, name, graph, feed), out, feed.second_person)
    return batch if feed.streams else batch | {"x": batch["x"][:, 0]}


def _stream(joints: np.ndarray, name: str, graph: Graph, feed: Feed) -> np.ndarray:
    """A stream of the coordinates, followed by the confidence of the joints."""
    return on_coordinates(lambda x: make_stream(x, name, graph), joints, feed.coordinates)


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(np.array(key, np.uint32))  # faster than from a list, and the same


def _load(
    store,
    row: int,
    feed: Feed,
    graph: Graph,
    draw: tuple[int, int] | None,
    view: ClipView | None,
) -> np.ndarray:
    """The joints of one clip's persons, [M, T, V, C]; in training `draw` is (seed, pass)."""
    rng = None if draw is None else _generator(*draw, row)
    joints = store.joints(row)
    _check_clip(joints, store, row)
    joints = chosen(joints, channels_of(store), feed.channels)
    joints = with_somebody(joints[:, : feed.num_persons])
    if feed.origin == "body":
        joints = on_coordinates(lambda x: _of_body(x, graph), joints, feed.coordinates)
    options = {name: getattr(feed, name) for name in ("frames", "num_persons", "coordinates")}
    if feed.feeder == "ntu":
        options |= {"p_interval": feed.p_interval, "test_interval": feed.test_interval}
    else:
        options["masked"] = feed.origin == "body"
    if feed.rotation:
        options["rotation"] = max(feed.rotation, 0.0)
    if rng is not None:
        joints = random_crop(joints, rng, feed.crop)
    elif view is not None:
        swap = other_side(graph) if view.mirrored else None
        joints = change_view(joints, view, swap, feed.coordinates)
    x = FEEDERS[feed.feeder](joints, rng, **options)
    if rng is not None:  # before the stream, as in SkateFormer: a bone to a dropped joint is long
        x = augment(x, rng, feed, other_side(graph) if is_mirrored(feed, *draw, row) else None)
    return x


def _of_body(x: np.ndarray, graph: Graph) -> np.ndarray:
    """Centres coordinates [T, M, V, 2 or 3] on the body; in 2D it also scales bodies to size 1."""
    x = centred(x, graph.centre)
    return of_size_one(x) if x.shape[-1] == 2 else x


def _check_clip(joints: np.ndarray, store, row: int) -> None:
    wanted = (store.graph.num_joints, len(channels_of(store)))
    if joints.ndim != 4 or joints.shape[2:] != wanted or 0 in joints.shape:
        raise UserError(
            f"clip {store.ids[row]}: joints have shape {joints.shape}, expected [frames, persons, "
            f"{wanted[0]}, {wanted[1]}] with at least one frame and person; prepare the dataset "
            "again"
        )
    # A small sum of squares proves that all are near, at a third of the cost.
    if float(np.vdot(joints, joints)) < FARTHEST**2:
        return
    try:
        check_near(joints, ~(np.abs(joints) < FARTHEST))
    except ValueError as error:
        raise UserError(
            f"clip {store.ids[row]}: {error}; repair or remove it and prepare the dataset again"
        ) from None


def check_value(name: str, value, good: bool, wanted: str) -> None:
    """Raises UserError unless `good`."""
    if not good:
        raise UserError(f"{name} must be {wanted}, got {value!r}")
