"""The quickstart's action classes: each a short function from phase to pose curves.

In: phase u float [T], 0 at the action's onset and 1 at its end, and a repeat count for cyclic
motions. Out: one `Pose` (acting side: the right), or for two-person classes the performer's and
the partner's `Pose` given a `Meeting` (how far apart the two stand and what they can touch).
Units are limb lengths (see `Pose`), so one motion fits every body.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hocslm_jax.data.prepare.quickstart.body import HANG, Pose

MOUTH = (-0.22, 0.19, 0.33)
EAR = (-0.13, 0.30, 0.13)
STILL = (0.0, 0.0, 0.0)
SEAT = (0.0, -0.47, -0.42)  # pelvis shift that puts the hips at knee height behind the feet
LAP = (-0.05, -0.72, 0.48)


@dataclass(frozen=True)
class Meeting:
    """Two people facing each other; metres, in the performer's body frame."""

    gap: float  # between the two standing pelvises
    clasp: tuple[float, float]  # z of the point both hands reach: performer's, partner's frame
    waist: float  # height at which hands meet
    chest: float  # height of the partner's chest
    head: float  # height of the partner's face


def path(u: np.ndarray, *keys: tuple[float, object]) -> np.ndarray:
    """Eased curve through (phase, value) keys: [T] for scalar values, [T, 3] for points."""
    times = np.array([time for time, _ in keys])
    values = np.array([value for _, value in keys], float)
    left = np.clip(np.searchsorted(times, u, side="right") - 1, 0, len(times) - 2)
    ease = np.clip((u - times[left]) / (times[left + 1] - times[left]), 0.0, 1.0)
    ease = (ease * ease * (3.0 - 2.0 * ease)).reshape(-1, *(1,) * (values.ndim - 1))
    return values[left] + ease * (values[left + 1] - values[left])


def swing(u: np.ndarray, start: float, end: float, cycles: float) -> np.ndarray:
    """A sinusoid [T] of `cycles` periods between two phases, fading in and out at both ends."""
    inside = np.clip((u - start) / (end - start), 0.0, 1.0)
    return np.sin(2 * np.pi * cycles * inside) * np.clip(8 * inside * (1 - inside), 0.0, 1.0)


def pose(
    u: np.ndarray,
    *,
    left: object = HANG,
    right: object = HANG,
    left_foot: object = STILL,
    right_foot: object = STILL,
    pelvis: object = STILL,
    spine: object = STILL,
    head: object = STILL,
    touch: object = (STILL, STILL),
    reach: object = (0.0, 0.0),
) -> Pose:
    """A `Pose` over len(u) frames; each argument is one value or a curve of them."""
    frames = len(u)

    def pair(a: object, b: object) -> np.ndarray:
        return np.stack([np.broadcast_to(a, (frames, 3)), np.broadcast_to(b, (frames, 3))], axis=1)

    return Pose(
        pelvis=np.broadcast_to(pelvis, (frames, 3)),
        spine=np.broadcast_to(spine, (frames, 3)),
        head=np.broadcast_to(head, (frames, 3)),
        hands=pair(left, right),
        feet=pair(left_foot, right_foot),
        touch=np.broadcast_to(touch, (frames, 2, 3)),
        reach=np.broadcast_to(reach, (frames, 2)),
    )


def drink(u: np.ndarray, cycles: int) -> Pose:
    hand = path(u, (0, HANG), (0.35, MOUTH), (0.68, MOUTH), (1, HANG))
    tilt = path(u, (0.3, STILL), (0.45, (-0.35, 0, 0)), (0.6, (-0.35, 0, 0)), (0.75, STILL))
    return pose(u, right=hand, head=tilt)


def phone_call(u: np.ndarray, cycles: int) -> Pose:
    low = (0.05, -0.45, 0.55)
    hand = path(u, (0, HANG), (0.2, low), (0.42, EAR), (0.74, EAR), (0.87, low), (1, HANG))
    aside = (0.05, -0.2, -0.1)
    tilt = path(u, (0, STILL), (0.2, (0.25, 0, 0)), (0.45, aside), (0.74, aside), (1, STILL))
    return pose(u, right=hand, head=tilt)


def wave(u: np.ndarray, cycles: int) -> Pose:
    up = (0.30, 0.52, 0.30)
    hand = path(u, (0, HANG), (0.28, up), (0.76, up), (1, HANG))
    sway = swing(u, 0.22, 0.82, cycles)[:, None] * np.array([0.24, -0.04, 0.0])
    return pose(u, right=hand + sway)


def throw(u: np.ndarray, cycles: int) -> Pose:
    hand = path(
        u, (0, HANG), (0.2, (0.3, -0.4, 0.35)), (0.42, (0.38, 0.3, -0.35)),
        (0.58, (0.0, 0.45, 0.75)), (0.72, (-0.35, -0.5, 0.6)), (1, HANG),
    )  # fmt: skip
    spine = path(u, (0.1, STILL), (0.42, (-0.12, 0, -0.5)), (0.65, (0.3, 0, 0.45)), (1, STILL))
    other = path(u, (0.1, HANG), (0.4, (0.1, -0.1, 0.75)), (0.65, (0.3, -0.8, -0.1)), (1, HANG))
    step = path(u, (0.15, STILL), (0.33, (0, 0.08, 0.2)), (0.48, (0, 0, 0.36)), (1, (0, 0, 0.36)))
    shift = path(u, (0.15, STILL), (0.4, (0, -0.02, 0.02)), (0.6, (0, -0.04, 0.2)))
    return pose(u, right=hand, left=other, spine=spine, left_foot=step, pelvis=shift)


def pick_up(u: np.ndarray, cycles: int) -> Pose:
    spine = path(u, (0, STILL), (0.45, (1.15, 0, 0.1)), (0.55, (1.15, 0, 0.1)), (0.95, STILL))
    pelvis = path(u, (0, STILL), (0.45, (0, -0.42, -0.22)), (0.55, (0, -0.42, -0.22)), (0.9, STILL))
    hand = path(u, (0.5, HANG), (0.9, (-0.1, -0.55, 0.5)))
    grasp = path(u, (0.1, 0), (0.45, 1), (0.55, 1), (0.85, 0))
    spot = ((0.1, 0.2, 0.3), (0.08, 0.12, 0.42))
    reach = np.stack([np.zeros_like(u), grasp], axis=1)
    return pose(u, right=hand, spine=spine, pelvis=pelvis, touch=spot, reach=reach)


def sit_down(u: np.ndarray, cycles: int) -> Pose:
    pelvis = path(u, (0.05, STILL), (0.8, SEAT))
    spine = path(u, (0, STILL), (0.5, (0.75, 0, 0)), (0.95, (0.05, 0, 0)))
    hand = path(u, (0.1, HANG), (0.5, (0.15, -0.75, 0.35)), (0.95, LAP))
    return pose(u, left=hand, right=hand, pelvis=pelvis, spine=spine)


def stand_up(u: np.ndarray, cycles: int) -> Pose:
    pelvis = path(u, (0.25, SEAT), (0.9, STILL))
    spine = path(u, (0, (0.05, 0, 0)), (0.4, (0.8, 0, 0)), (0.95, STILL))
    hand = path(u, (0.15, LAP), (0.5, (0.12, -0.8, 0.3)), (1, HANG))
    return pose(u, left=hand, right=hand, pelvis=pelvis, spine=spine)


def clap(u: np.ndarray, cycles: int) -> Pose:
    ready = (-0.11, -0.22, 0.58)
    beat = swing(u, 0.2, 0.85, cycles)[:, None] * np.array([0.14, 0.02, 0.0])
    hand = path(u, (0, HANG), (0.2, ready), (0.85, ready), (1, HANG)) - beat
    return pose(u, left=hand, right=hand)


def kick(u: np.ndarray, cycles: int) -> Pose:
    foot = path(
        u, (0, STILL), (0.3, (0.02, 0.16, -0.36)), (0.52, (-0.1, 0.5, 0.8)),
        (0.62, (-0.08, 0.45, 0.72)), (0.85, (0, 0.06, 0.05)), (1, STILL),
    )  # fmt: skip
    spine = path(u, (0, STILL), (0.3, (0.15, 0, 0.25)), (0.54, (-0.2, 0, -0.25)), (0.95, STILL))
    shift = path(u, (0, STILL), (0.25, (0.07, -0.02, 0)), (0.7, (0.07, -0.02, 0.03)), (1, STILL))
    left = path(u, (0, HANG), (0.3, (0.4, -0.8, -0.2)), (0.54, (0.35, -0.55, 0.5)), (1, HANG))
    right = path(u, (0, HANG), (0.3, (0.3, -0.7, 0.4)), (0.54, (0.45, -0.7, -0.3)), (1, HANG))
    return pose(u, left=left, right=right, right_foot=foot, spine=spine, pelvis=shift)


def jump(u: np.ndarray, cycles: int) -> Pose:
    up, down = (0, 0.34, 0), (0, -0.24, -0.1)
    body = path(u, (0, STILL), (0.34, down), (0.56, up), (0.76, (0, -0.17, -0.07)), (1, STILL))
    feet = path(u, (0.44, STILL), (0.57, (0, 0.27, -0.04)), (0.7, STILL))
    bend = path(u, (0, 0), (0.34, 0.5), (0.55, -0.05), (0.78, 0.3), (1, 0))
    spine = bend[:, None] * np.array([1.0, 0.0, 0.0])
    hand = path(
        u, (0, HANG), (0.28, (0.15, -0.8, -0.45)), (0.42, (0.15, -0.85, 0.35)),
        (0.6, (0.1, 0.2, 0.8)), (0.82, (0.2, -0.7, 0.4)), (1, HANG),
    )  # fmt: skip
    return pose(u, left=hand, right=hand, left_foot=feet, right_foot=feet, pelvis=body, spine=spine)


def bow(u: np.ndarray, cycles: int) -> Pose:
    spine = path(u, (0, STILL), (0.42, (0.95, 0, 0)), (0.6, (0.95, 0, 0)), (1, STILL))
    pelvis = path(u, (0, STILL), (0.42, (0, -0.01, -0.15)), (0.6, (0, -0.01, -0.15)), (1, STILL))
    hand = path(u, (0, HANG), (0.42, (0, -0.85, 0.35)), (0.6, (0, -0.85, 0.35)), (1, HANG))
    nod = path(u, (0, STILL), (0.42, (0.3, 0, 0)), (0.6, (0.3, 0, 0)), (1, STILL))
    return pose(u, left=hand, right=hand, spine=spine, pelvis=pelvis, head=nod)


def shake_hands(u: np.ndarray, cycles: int, meeting: Meeting) -> tuple[Pose, Pose]:
    grip = path(u, (0.02, 0), (0.32, 1), (0.78, 1), (1, 0))
    pump = meeting.waist + 0.06 * swing(u, 0.3, 0.82, cycles)
    lean = path(u, (0, STILL), (0.32, (0.14, 0, 0.12)), (0.78, (0.14, 0, 0.12)), (1, STILL))
    people = []
    for depth in meeting.clasp:
        spot = np.stack([np.zeros_like(u), pump, np.full_like(u, depth)], axis=1)
        reach = np.stack([np.zeros_like(u), grip], axis=1)
        people.append(pose(u, spine=lean, touch=np.stack([spot, spot], axis=1), reach=reach))
    return people[0], people[1]


def reel(u: np.ndarray, hit: float, pelvis: float, spine: float, head: float) -> Pose:
    """Reaction to a blow at phase `hit`: the body is thrown back and takes one step."""
    back, after = (0, -0.03, -pelvis), hit + 0.2
    middle = (hit + after) / 2
    away = path(u, (hit, STILL), (after, back))
    landing = (0, 0, -1.4 * pelvis)
    step = path(u, (hit, STILL), (middle, (0, 0.07, -pelvis)), (after, landing))
    drag = path(u, (after, STILL), (1, (0, 0, -0.8 * pelvis)))
    bend = path(u, (hit, STILL), (after, (-spine, 0, 0)), (1, STILL))
    nod = path(u, (hit, STILL), (middle, (-head, 0, 0.3 * head)), (1, STILL))
    arms = path(u, (hit, HANG), (after, (0.4, -0.55, 0.5)), (1, HANG))
    return pose(
        u, left=arms, right=arms, left_foot=drag, right_foot=step, pelvis=away, spine=bend, head=nod
    )


def push(u: np.ndarray, cycles: int, meeting: Meeting) -> tuple[Pose, Pose]:
    ready = (-0.02, -0.25, 0.35)
    hand = path(u, (0, HANG), (0.28, ready), (0.65, ready), (1, HANG))
    reach = path(u, (0.3, 0), (0.45, 1), (0.55, 1), (0.75, 0))
    spine = path(u, (0.1, STILL), (0.3, (-0.05, 0, 0)), (0.5, (0.38, 0, 0)), (1, STILL))
    pelvis = path(u, (0.25, STILL), (0.5, (0, -0.05, 0.16)), (0.9, (0, -0.02, 0.1)))
    step = path(u, (0.2, STILL), (0.33, (0, 0.06, 0.16)), (0.44, (0, 0, 0.3)))
    spot = (0.11, meeting.chest - 0.08, meeting.gap - 0.06)
    actor = pose(
        u, left=hand, right=hand, spine=spine, pelvis=pelvis, right_foot=step,
        touch=(spot, spot), reach=np.stack([reach, reach], axis=1),
    )  # fmt: skip
    return actor, reel(u, 0.47, pelvis=0.34, spine=0.22, head=0.1)


def punch(u: np.ndarray, cycles: int, meeting: Meeting) -> tuple[Pose, Pose]:
    guard = (-0.1, -0.2, 0.38)
    right = path(u, (0, HANG), (0.3, (0.08, -0.45, 0.05)), (0.6, guard), (1, HANG))
    left = path(u, (0, HANG), (0.28, guard), (0.7, guard), (1, HANG))
    reach = path(u, (0.3, 0), (0.47, 1), (0.52, 1), (0.7, 0))
    spine = path(u, (0.05, STILL), (0.3, (0, 0, -0.45)), (0.47, (0.22, 0, 0.5)), (1, STILL))
    pelvis = path(u, (0.2, STILL), (0.46, (0, -0.04, 0.14)), (0.95, STILL))
    step = path(u, (0.15, STILL), (0.28, (0, 0.05, 0.14)), (0.4, (0, 0, 0.26)))
    spot = (0.0, meeting.head - 0.06, meeting.gap - 0.08)
    actor = pose(
        u, left=left, right=right, spine=spine, pelvis=pelvis, left_foot=step,
        touch=(spot, spot), reach=np.stack([np.zeros_like(u), reach], axis=1),
    )  # fmt: skip
    return actor, reel(u, 0.46, pelvis=0.2, spine=0.15, head=0.5)


SOLO: dict[str, Callable[..., Pose]] = {
    "drink": drink,
    "phone call": phone_call,
    "wave": wave,
    "throw": throw,
    "pick up": pick_up,
    "sit down": sit_down,
    "stand up": stand_up,
    "clap": clap,
    "kick": kick,
    "jump": jump,
    "bow": bow,
}
PAIR: dict[str, Callable[..., tuple[Pose, Pose]]] = {
    "shake hands": shake_hands,
    "push another person": push,
    "punch another person": punch,
}
CLASSES: tuple[str, ...] = (*SOLO, *PAIR)
