"""The quickstart dataset: virtual subjects perform every class, each in their own style.

In: a seed. Out: `Clip`s with joints float32 [T, M, 25, 3], metres, Kinect-v2 camera coordinates
(x to the sensor's left, y up, z away from it), about 30 to 80 frames at 30 per second, M = 2 in
two-person classes and 1 otherwise; ids in NTU's scheme SsssCcccPpppRrrrAaaa (1-based).
Clip i depends on (seed, i) alone. Length, place, viewing angle and speed are drawn independently of
the class. Protocol: X-Sub, `TRAIN_SUBJECTS` train.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hocslm_jax.data.clip import Clip
from hocslm_jax.data.prepare.quickstart.actions import CLASSES, PAIR, SOLO, Meeting
from hocslm_jax.data.prepare.quickstart.body import (
    PARTS,
    Body,
    Pose,
    amplify,
    joint_positions,
    make_body,
    mirror,
)
from hocslm_jax.data.prepare.quickstart.sentences import COUNTS, describe, size_word
from hocslm_jax.errors import UserError

SUBJECTS = 12
TRAIN_SUBJECTS: tuple[int, ...] = (1, 2, 4, 5, 7, 8, 10, 11)
CAMERA_YAW = {1: 0.0, 2: np.pi / 4, 3: -np.pi / 4}  # each camera sees a 45-degree sector
SENSOR_HEIGHT = {1: 0.8, 2: 1.0, 3: 1.2}  # metres above the ground, by setup
HANDSHAKE = "shake hands"  # always with the right hand, also for left-handed subjects
HAND_DRIFT = np.array([0.03, 0.012, 0.03])  # arm lengths; a hanging arm hardly shortens
SUBJECT_STREAM = 7919  # keeps the subjects' random streams apart from the clips'


@dataclass(frozen=True)
class Subject:
    """Properties of one performer that are the same in all clips."""

    body: Body
    tempo: float  # share of a clip that an action takes
    amplitude: float
    left_handed: float  # probability of acting with the left side
    posture: np.ndarray  # [3] usual bend, lean, twist of the spine, radians
    hang: np.ndarray  # [2, 3] where the idle hands hang, arm lengths


@dataclass(frozen=True)
class Style:
    """Properties drawn for each clip, with the same distribution for every class."""

    frames: int
    onset: float  # as a share of the clip, like `end`
    end: float
    warp: float  # exponent on the phase: below 1 starts fast
    amplitude: float
    left: bool
    cycles: int


def subject(seed: int, number: int) -> Subject:
    """Virtual subject `number` (1-based): body size, proportions and habits."""
    rng = np.random.default_rng([seed, SUBJECT_STREAM, number])
    scale = {part: float(np.exp(rng.normal(0.0, 0.04))) for part in PARTS}
    return Subject(
        body=make_body(rng.uniform(1.52, 1.92), scale),
        tempo=rng.uniform(0.65, 0.88),
        amplitude=rng.uniform(0.88, 1.12),
        left_handed=rng.choice([0.1, 0.9], p=[0.75, 0.25]),
        posture=rng.normal(0.0, [0.06, 0.02, 0.03]),
        hang=rng.normal(0.0, [0.05, 0.015, 0.05], (2, 3)),
    )


def draw_style(rng: np.random.Generator, who: Subject) -> Style:
    """The clip's own timing, size and side, around the subject's habits."""
    share = float(np.clip(who.tempo * np.exp(rng.normal(0.0, 0.12)), 0.6, 0.95))
    onset = rng.uniform(0.0, 1.0 - share)
    return Style(
        frames=int(rng.integers(36, 81)),
        onset=onset,
        end=onset + share,
        warp=float(np.exp(rng.normal(0.0, 0.15))),
        amplitude=float(np.clip(who.amplitude * np.exp(rng.normal(0.0, 0.08)), 0.75, 1.25)),
        left=bool(rng.random() < who.left_handed),
        cycles=int(rng.integers(2, 6)),
    )


def drift(rng: np.random.Generator, frames: int, shape: tuple[int, ...]) -> np.ndarray:
    """Slow random motion [T, *shape] of about unit size: three sinusoids below 1 Hz."""
    time = np.arange(frames).reshape(-1, 1, *(1,) * len(shape)) / 30.0
    rate, phase = rng.uniform(0.15, 0.9, (3, *shape)), rng.uniform(0, 2 * np.pi, (3, *shape))
    return np.sin(2 * np.pi * rate * time + phase).sum(axis=1) * np.sqrt(2 / 3)


def personalise(rng: np.random.Generator, pose: Pose, who: Subject, style: Style) -> Pose:
    """A class's ideal pose curves as this subject does them in this clip."""
    pose = amplify(mirror(pose) if style.left else pose, style.amplitude)
    frames = style.frames
    return Pose(
        pelvis=pose.pelvis + 0.008 * drift(rng, frames, (3,)),
        spine=pose.spine + who.posture + 0.025 * drift(rng, frames, (3,)),
        head=pose.head + rng.normal(0.0, 0.06, 3) + 0.06 * drift(rng, frames, (3,)),
        hands=pose.hands + who.hang + HAND_DRIFT * drift(rng, frames, (2, 3)),
        feet=pose.feet + rng.normal(0.0, 1.0, (2, 3)) * np.array([0.03, 0.0, 0.04]),
        touch=pose.touch,
        reach=pose.reach,
    )


def meeting(rng: np.random.Generator, first: Body, second: Body) -> Meeting:
    """Where two people stand, and the points at which they can touch each other."""
    gap = rng.uniform(0.70, 0.86) * (first.arm + second.arm)
    share = first.arm / (first.arm + second.arm)
    return Meeting(
        gap=gap,
        clasp=(share * gap, (1.0 - share) * gap),
        waist=0.37 * (first.chest_height + second.chest_height),
        chest=second.chest_height,
        head=second.chest_height + second["neck"] + second["head"],
    )


def perform(
    rng: np.random.Generator, name: str, who: Subject, partner: Subject, style: Style
) -> np.ndarray:
    """Joints [T, M, 25, 3], metres, y from the ground, the performer (first) facing +z."""
    phase = np.linspace(0.0, 1.0, style.frames)
    phase = np.clip((phase - style.onset) / (style.end - style.onset), 0.0, 1.0) ** style.warp
    if name in SOLO:
        pose = personalise(rng, SOLO[name](phase, style.cycles), who, style)
        return joint_positions(who.body, pose)[:, None]
    place = meeting(rng, who.body, partner.body)
    mine, theirs = PAIR[name](phase, style.cycles, place)
    answer = replace(style, left=False, amplitude=partner.amplitude)
    first = joint_positions(who.body, personalise(rng, mine, who, style))
    second = joint_positions(partner.body, personalise(rng, theirs, partner, answer))
    second = second * np.array([-1.0, 1.0, -1.0]) + np.array([0.0, 0.0, place.gap])
    return np.stack([first, second], axis=1) - np.array([0.0, 0.0, place.gap / 2])


def observe(
    rng: np.random.Generator, joints: np.ndarray, camera: int, setup: int, *, noise: float = 1.0
) -> np.ndarray:
    """The sensor's measurement [T', M, 25, 3]: a view, a place, jitter, and fewer frames."""
    pair = joints.shape[1] == 2
    # One person faces the camera; two stand side by side in its view.
    yaw = np.pi + CAMERA_YAW[camera] + rng.uniform(-np.pi / 8, np.pi / 8)
    yaw += rng.choice([-0.5, 0.5]) * np.pi * pair
    c, s = np.cos(yaw), np.sin(yaw)
    place = np.array([rng.uniform(-0.6, 0.6), -SENSOR_HEIGHT[setup], rng.uniform(2.6, 3.9)])
    place[1] += rng.uniform(-0.05, 0.05)
    seen = joints @ np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]]) + place
    sigma = np.full((25, 1), rng.uniform(0.002, 0.006) * noise)
    sigma[21:] *= 2.5  # finger tips are the least certain
    seen = seen + sigma * rng.normal(size=seen.shape)
    keep = rng.random(len(seen)) >= rng.uniform(0.0, 0.08)
    keep[[0, -1]] = True
    return seen[keep].astype(np.float32)


def clip(seed: int, index: int, *, noise: float = 1.0) -> Clip:
    """Clip `index`: classes vary fastest, then subjects, then replications.

    `noise` scales the sensor's jitter (about 2 to 6 mm); with 0 bone lengths are exact.
    """
    rng = np.random.default_rng([seed, index])
    rest, label = divmod(index, len(CLASSES))
    replication, number = divmod(rest, SUBJECTS)
    name, who = CLASSES[label], subject(seed, number + 1)
    style = draw_style(rng, who)
    camera, setup = (int(rng.integers(1, 1 + n)) for n in (len(CAMERA_YAW), len(SENSOR_HEIGHT)))
    partner = subject(seed, int(1 + (number + rng.integers(1, SUBJECTS)) % SUBJECTS))
    if name == HANDSHAKE:
        style = replace(style, left=False)
    facts = {
        "side": "left" if style.left else "right",
        "size": size_word(style.amplitude),
        "times": COUNTS[style.cycles],
    }
    joints = perform(rng, name, who, partner, style)
    caption = describe(name, facts, rng)
    ids = (setup, camera, number + 1, replication + 1, label + 1)
    return Clip(
        id="S{:03d}C{:03d}P{:03d}R{:03d}A{:03d}".format(*ids),
        joints=observe(rng, joints, camera, setup, noise=noise),
        label=label,
        subject=number + 1,
        camera=camera,
        setup=setup,
        replication=replication + 1,
        caption=caption,
    )


def clips(seed: int = 0, replications: int = 5) -> Iterator[Clip]:
    """All clips of the dataset: classes x 12 subjects x `replications`, lazily.

    Raises `UserError` for a negative seed or a number of replications outside 1..999.
    """
    if seed < 0:
        raise UserError(f"quickstart: seed is {seed}; give 0 or a positive integer")
    if not 1 <= replications <= 999:
        raise UserError(f"quickstart: replications is {replications}; give a number in 1..999")
    return (clip(seed, index) for index in range(len(CLASSES) * SUBJECTS * replications))
