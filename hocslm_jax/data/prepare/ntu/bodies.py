"""From the tracked bodies of an NTU file to one or two actors: select, denoise, translate.

In: a `Skeleton`. Out: float32 [T, M, 25, 3], M of 1 or 2, origin at the mid spine of actor 1's
first frame. By the CTR-GCN protocol, in float32 and in its order of operations, so that the result
is equal to the last bit; what is odd in that protocol can be switched off in `Compat`.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from hocslm_jax.data.prepare.ntu.skeleton import NUM_JOINTS, Body, Skeleton
from hocslm_jax.errors import UserError

BASE_OF_SPINE, MID_SPINE, LEFT_HIP, RIGHT_HIP = 0, 1, 12, 16  # mid spine is the origin


@dataclasses.dataclass(frozen=True)
class Compat:
    """How the reference reads NTU; the defaults are what published numbers rest on.

    Attributes:
      close_gaps: A body that vanishes and returns is moved up to where it vanished, so that its
        later poses are early; off, every pose stays in its frame.
      second_from_zero: Actor 2's interval starts at frame 0 whoever fills it, so that a late actor
        2 keeps out a third body that came before; off, it starts when actor 2 does.
      zero_by_sum: A frame or a person counts as absent when its coordinates add up to exactly 0;
        off, only when all of them are 0.
      shift_empty: In a clip of one actor a frame of zeros becomes minus the origin; off, it stays.
      min_frames: Of several bodies, those seen in fewer frames than this are deleted.
      max_spread: Of several bodies, a frame is noise when the body is wider than this times its
        height.
      max_noise: Of several bodies, one with at least this share of noise is deleted.
      align: InfoGCN's step, which CTR-GCN lacks: every actor is turned so that in frame 0 his spine
        points along z and his hips along x.
      second_person: What the feeder puts in the place of an absent second person, "zeros" or
        "copy"; records hold real persons only, so this is a matter of `data.second_person`.
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
    """With "name=value" settings applied, e.g. "close_gaps=off".

    Raises:
      UserError: no such switch, or not a value of it.
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
      ValueError: several bodies and none of them usable, a body twice in one frame, or coordinates
        beyond float32.
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
    """As `actors`, of a clip [T, M, 25, 3] whose persons are the bodies of a file.

    A clip whose first person has the mid spine at the origin is centred already: it stays as it is.

    Raises:
      ValueError: as `actors`.
    """
    first = joints[:, 0]
    if (first.any(axis=(1, 2)) & ~first[:, MID_SPINE].any(axis=1)).any():
        return joints
    joints = joints[joints.any(axis=(1, 2, 3))]  # a file's frames without a body do not count
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
      frames: int [n], where its poses go.
      joints: float32 [n, 25, 3].
      motion: how far it gets about: the variances over frames and joints of x, y and z, summed.
      actor: 0 or 1, whose place it takes.
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
    """The bodies that look like a person, most motion first.

    Raises:
      ValueError: none does.
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
    """bool [n]: the body is not much wider than high."""
    extent = np.ptp(joints, axis=1)  # [n, 3]
    return extent[:, 0] <= compat.max_spread * extent[:, 1]


def _motion(joints: np.ndarray) -> np.float32:
    return joints.reshape(-1, 3).var(axis=0).sum()


def _cast(tracks: list[Track], compat: Compat) -> list[Track]:
    """Gives every body an actor's place whose time it does not overlap; drops the others."""
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
    """float32 [num_frames, M, 25, 3]; later bodies overwrite the frame that they share."""
    persons = 1 if len(tracks) == 1 else 2
    joints = np.zeros((num_frames, persons, NUM_JOINTS, 3), np.float32)
    for track in tracks:
        joints[track.frames, track.actor] = track.joints
    return joints


def _absent(joints: np.ndarray, compat: Compat) -> np.ndarray:
    """bool [T]: nobody is in the frame."""
    flat = joints.reshape(len(joints), -1)
    return flat.sum(axis=1) == 0 if compat.zero_by_sum else ~flat.any(axis=1)


def translate(joints: np.ndarray, compat: Compat) -> np.ndarray:
    """Moves the origin to actor 1's mid spine in the first frame that has him.

    Args:
      joints: [T, M, 25, 3]; an absent actor is zeros and stays so, but for `shift_empty`.
    """
    present = joints[:, 0].any(axis=(1, 2))
    if not present.any():
        raise ValueError("actor 1 is in no frame")  # all at the sensor's own place
    moved = joints - joints[present.argmax(), 0, MID_SPINE]
    if joints.shape[1] > 1 or not compat.shift_empty:
        for actor in range(joints.shape[1]):
            moved[_absent(joints[:, actor], compat), actor] = 0
    return align(moved) if compat.align else moved


def align(joints: np.ndarray, *, mirror: bool = True, drop_late: bool = True) -> np.ndarray:
    """InfoGCN's extra step: every person is turned upright and to face one way.

    CTR-GCN and HocSLM do without; files that InfoGCN prepared carry `_aligned` in their name. Each
    person is rotated about the origin so that in frame 0 the spine (from its base to its middle)
    points along +z and the hips (from right to left, less their part along the spine) along +x.
    Both are unit vectors, so lengths and angles stay; so does the origin, which is the first
    person's mid spine, for the second person too. One rotation serves all frames.

    Args:
      joints: float32 [T, M, 25, 3]; an absent person is zeros and stays so.
      mirror: As in the reference, y is hips x spine. These axes are left-handed: the body comes out
        mirrored, left and right hand exchanged. Off, y is spine x hips and the step is a rotation.
      drop_late: As in the reference, a person who is absent in frame 0 is removed from the whole
        clip (zeros). Off, his axes come from the first frame that has him.

    Returns:
      float32 [T, M, 25, 3].

    Raises:
      ValueError: a person without direction in that frame: spine of no length, or hips along it.
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
    """Columns: the directions of a pose [V, 3] that become x, y and z."""
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
