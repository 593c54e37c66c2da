"""From the tracked bodies of an NTU file to one or two actors: select, denoise, translate.

In: a `Skeleton`. Out: float32 [T, M, 25, 3], M of 1 or 2, origin at the mid spine of actor 1's
first frame. It follows the CTR-GCN protocol, in float32 and in the same order of operations, so
that results are equal bit for bit. `Compat` switches off the protocol's quirks.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from hocslm_jax.data.prepare.ntu.skeleton import NUM_JOINTS, Body, Skeleton
from hocslm_jax.errors import UserError

BASE_OF_SPINE, MID_SPINE, LEFT_HIP, RIGHT_HIP = 0, 1, 12, 16  # mid spine is the origin


@dataclasses.dataclass(frozen=True)
class Compat:
    """How the reference reads NTU; published numbers depend on the defaults.

    Attributes:
      close_gaps: The poses of a body that vanishes and returns are moved forward to close the gap;
        off, every pose stays in its frame.
      second_from_zero: The interval of actor 2 always starts at frame 0, so that a late actor 2
        excludes a third body that came earlier; off, it starts when actor 2 appears.
      zero_by_sum: A frame or a person is absent if its coordinates add up to exactly 0; off, only
        if all of them are 0.
      shift_empty: In a clip of one actor a frame of zeros becomes minus the origin; off, it stays.
      min_frames: Of several bodies, those seen in fewer frames than this are deleted.
      max_spread: Of several bodies, a frame is noise when the body is wider than this times its
        height.
      max_noise: Of several bodies, one with at least this share of noise is deleted.
      align: A step of InfoGCN, which CTR-GCN lacks: every actor is rotated so that in frame 0 the
        spine points along z and the hips along x.
      second_person: The feeder's replacement of an absent second person, "zeros" or "copy". Records
        hold real persons only, so `data.second_person` decides it.
    """

    close_gaps: bool = True
    second_from_zero: bool = True
    zero_by_sum: bool = True
    shift_empty: bool = True
    min_frames: int = 12
    max_spread: float = 0.8
    max_noise: float = 0.69754
    align: bool = False
    second_person: str = "zeros"


_ON_OFF = {"on": True, "True": True, "off": False, "False": False}
COMPAT = {"ntu60": Compat(), "ntu120": Compat(second_person="copy")}


def change(compat: Compat, settings: Iterable[str]) -> Compat:
    """Applies settings such as "close_gaps=off".

    Raises:
      UserError: an unknown switch, or a wrong value.
    """
    switches = {field.name: field.type for field in dataclasses.fields(Compat)}
    del switches["second_person"]  # decided when clips are fed
    for setting in settings:
        name, _, text = setting.partition("=")
        if name not in switches:
            raise UserError(
                f"--compat {setting}: expected NAME=VALUE, NAME of {', '.join(switches)}"
            )
        try:
            value = _ON_OFF[text] if switches[name] is bool else switches[name](text)
        except (KeyError, ValueError):
            raise UserError(f"--compat {setting}: {text!r} is not a value of {name}") from None
        compat = dataclasses.replace(compat, **{name: value})
    return compat


def actors(skeleton: Skeleton, compat: Compat = COMPAT["ntu60"]) -> np.ndarray:
    """One or two actors of a file, float32 [T, M, 25, 3] in metres, centred.

    Raises:
      ValueError: there are several bodies and none is usable, a body is in a frame twice, or
        coordinates exceed float32.
    """
    tracks = [_track(key, body, skeleton, compat) for key, body in skeleton.bodies.items()]
    with np.errstate(over="ignore", invalid="ignore"):
        if len(tracks) == 1:
            joints = _paste(tracks, skeleton.num_frames)
        else:
            joints = _paste(_cast(denoise(tracks, compat), compat), skeleton.num_frames)
            joints = joints[~_absent(joints, compat)]
        joints = translate(joints, compat)
    if not np.isfinite(joints).all():
        raise ValueError("coordinates so large that they are not finite once centred")
    return joints


def actors_of(joints: np.ndarray, compat: Compat = COMPAT["ntu60"]) -> np.ndarray:
    """Like `actors`, for a clip [T, M, 25, 3] whose persons are the bodies of a file.

    A clip whose first person has the mid spine at the origin is already centred and does not
    change.

    Raises:
      ValueError: as `actors`.
    """
    first = joints[:, 0]
    if (first.any(axis=(1, 2)) & ~first[:, MID_SPINE].any(axis=1)).any():
        return joints
    joints = joints[joints.any(axis=(1, 2, 3))]  # frames without a body do not count
    seen = joints.any(axis=(2, 3))  # [T, M]
    bodies = {
        str(person): Body(np.flatnonzero(there), joints[there, person])
        for person, there in enumerate(seen.T)
        if there.any()
    }
    return actors(Skeleton(len(joints), bodies), compat)


@dataclasses.dataclass(frozen=True)
class Track:
    """A body on the clip's time axis.

    Attributes:
      frames: int [n], the frames of its poses.
      joints: float32 [n, 25, 3].
      motion: amount of motion: the sum of the variances of x, y and z over frames and joints.
      actor: 0 or 1, the actor that it becomes a part of.
    """

    frames: np.ndarray
    joints: np.ndarray
    motion: float = 0.0
    actor: int = 0


def _track(key: str, body: Body, skeleton: Skeleton, compat: Compat) -> Track:
    frames = body.frames
    if compat.close_gaps:
        frames = frames[0] + np.arange(len(frames))
    if frames[-1] >= skeleton.num_frames or len(set(frames)) < len(frames):
        raise ValueError(f"body {key} is there more than once in a frame")
    return Track(frames, body.joints)


def denoise(tracks: list[Track], compat: Compat) -> list[Track]:
    """The bodies shaped like a person, those with most motion first.

    Raises:
      ValueError: there is none.
    """
    tracks = [track for track in tracks if len(track.frames) >= compat.min_frames]
    if not tracks:
        raise ValueError(f"no body is seen in {compat.min_frames} frames or more")
    kept, left = [], len(tracks)
    for track in tracks:
        good = _good_frames(track.joints, compat)
        if left > 1 and np.count_nonzero(~good) / len(good) >= compat.max_noise:
            left -= 1
            continue
        motion = _motion(track.joints)
        if left > 1 and not good.all():
            motion = min(motion, _motion(track.joints[good]))
        kept.append(dataclasses.replace(track, motion=motion))
    return sorted(kept, key=lambda track: track.motion, reverse=True)


def _good_frames(joints: np.ndarray, compat: Compat) -> np.ndarray:
    """bool [n]: frames in which the body is not much wider than high."""
    extent = np.ptp(joints, axis=1)  # [n, 3]
    return extent[:, 0] <= compat.max_spread * extent[:, 1]


def _motion(joints: np.ndarray) -> np.float32:
    return joints.reshape(-1, 3).var(axis=0).sum()


def _cast(tracks: list[Track], compat: Compat) -> list[Track]:
    """Assigns every body to an actor that it does not overlap in time; drops the others."""
    first, *others = tracks
    spans = [_span(first), (0, 0) if compat.second_from_zero else None]
    cast = [first]
    for track in others:
        start, end = _span(track)
        for actor, span in enumerate(spans):
            low, high = span or (start, start)
            if min(high, end) - max(low, start) <= 0:
                spans[actor] = (min(low, start), max(high, end))
                cast.append(dataclasses.replace(track, actor=actor))
                break
    return cast


def _span(track: Track) -> tuple[int, int]:
    return int(track.frames[0]), int(track.frames[-1])


def _paste(tracks: list[Track], num_frames: int) -> np.ndarray:
    """float32 [num_frames, M, 25, 3]; later bodies overwrite shared frames."""
    persons = 1 if len(tracks) == 1 else 2
    joints = np.zeros((num_frames, persons, NUM_JOINTS, 3), np.float32)
    for track in tracks:
        joints[track.frames, track.actor] = track.joints
    return joints


def _absent(joints: np.ndarray, compat: Compat) -> np.ndarray:
    """bool [T]: the frame shows nobody."""
    flat = joints.reshape(len(joints), -1)
    return flat.sum(axis=1) == 0 if compat.zero_by_sum else ~flat.any(axis=1)


def translate(joints: np.ndarray, compat: Compat) -> np.ndarray:
    """Moves the origin to actor 1's mid spine in the first frame that shows actor 1.

    Args:
      joints: [T, M, 25, 3]; absent actors are zeros and stay so, except with `shift_empty`.
    """
    present = joints[:, 0].any(axis=(1, 2))
    if not present.any():
        raise ValueError("actor 1 is in no frame")  # all joints are at the sensor's position
    moved = joints - joints[present.argmax(), 0, MID_SPINE]
    if joints.shape[1] > 1 or not compat.shift_empty:
        for actor in range(joints.shape[1]):
            moved[_absent(joints[:, actor], compat), actor] = 0
    return align(moved) if compat.align else moved


def align(joints: np.ndarray, *, mirror: bool = True, drop_late: bool = True) -> np.ndarray:
    """InfoGCN's extra step: rotates every person to stand upright and face one direction.

    CTR-GCN and HocSLM do not use it; files prepared by InfoGCN have `_aligned` in their name. Each
    person is rotated about the origin so that in frame 0 the spine (from its base to its middle)
    points along +z and the hips (from right to left, less their part along the spine) along +x.
    The axes are unit vectors, so lengths and angles do not change. The origin stays at the first
    person's mid spine, for the second person too. All frames share one rotation.

    Args:
      joints: float32 [T, M, 25, 3]; absent persons are zeros and stay so.
      mirror: As in the reference, y is hips x spine. These axes are left-handed, so the body is
        mirrored: left and right are exchanged. Off, y is spine x hips and the step is a rotation.
      drop_late: As in the reference, a person who is absent in frame 0 is removed from the whole
        clip (zeros). Off, the axes come from the first frame that shows the person.

    Returns:
      float32 [T, M, 25, 3].

    Raises:
      ValueError: the direction of a person is undefined: the spine has no length, or the hips are
        parallel to it.
    """
    aligned = np.zeros_like(joints, np.float32)
    for person in range(joints.shape[1]):
        track = joints[:, person]  # [T, V, 3]
        present = track.any(axis=(1, 2))
        if present[0] or (present.any() and not drop_late):
            axes = _axes(track[present.argmax()].astype(np.float64), mirror)  # [3, 3]
            aligned[:, person] = track @ axes
    return aligned


def _axes(pose: np.ndarray, mirror: bool) -> np.ndarray:
    """Matrix whose columns are the directions of a pose [V, 3] that become x, y and z."""
    spine = _unit(pose[MID_SPINE] - pose[BASE_OF_SPINE])
    hips = pose[LEFT_HIP] - pose[RIGHT_HIP]
    hips = _unit(hips - spine * (hips @ spine))
    side = np.cross(hips, spine) if mirror else np.cross(spine, hips)
    return np.stack([hips, side, spine], axis=1)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector)
    if length < 1e-6:  # metres
        raise ValueError("spine and hips give no orientation to align with")
    return vector / length
