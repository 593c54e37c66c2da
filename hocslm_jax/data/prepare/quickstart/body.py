"""A 25-joint Kinect-v2 body: bone lengths, and joint positions from pose curves.

In: `Body` (bone lengths of one subject, metres) and `Pose` (curves over T frames, scaled by limb
length so that they fit every body). Out: joints float64 [T, 25, 3] in the body's own frame:
x to the person's left, y up, z forward, origin on the ground under the standing pelvis.
The trunk is forward kinematics of three angles; each limb is a two-bone chain solved in closed
form for where its hand or ankle should be, so bone lengths hold exactly and feet stay planted.
"""

from dataclasses import dataclass, replace

import numpy as np

HANG = np.array([0.16, -0.97, 0.09])  # a relaxed hand, in arm lengths from its shoulder
SIDES = np.array([1.0, -1.0])  # sign of x for left, right
LOW_ELBOW = np.array([0.35, -0.80, -0.45])  # where elbows point below the shoulder: down and back
HIGH_ELBOW = np.array([0.75, -0.65, 0.05])  # and with the hand above it: more to the side
KNEE_POLE = np.array([0.12, 0.0, 1.0])
MIN_REACH = 0.35  # of the limb's length: elbows and knees do not fold flat
MAX_REACH = 0.995  # of the limb's length: a fully straight limb has no bending plane

# Lengths as a fraction of stature; "ankle" is the ankle joint's height above the ground.
FRACTIONS = {
    "spine": 0.17, "chest": 0.13, "neck": 0.035, "head": 0.08,
    "shoulder": 0.10, "upper_arm": 0.165, "forearm": 0.145, "hand": 0.048, "tip": 0.048,
    "thumb": 0.03, "hip": 0.052, "thigh": 0.235, "shank": 0.23, "foot": 0.07, "ankle": 0.045,
}  # fmt: skip
PARTS = {
    "trunk": ("spine", "chest", "neck", "head"),
    "arm": ("upper_arm", "forearm", "hand", "tip", "thumb"),
    "leg": ("thigh", "shank", "foot"),
    "width": ("shoulder", "hip"),
}


@dataclass(frozen=True)
class Body:
    """Bone lengths in metres, by the keys of `FRACTIONS`."""

    lengths: dict[str, float]

    def __getitem__(self, bone: str) -> float:
        return self.lengths[bone]

    @property
    def arm(self) -> float:
        """Shoulder to hand centre, metres."""
        return self["upper_arm"] + self["forearm"] + self["hand"]

    @property
    def leg(self) -> float:
        """Hip to ankle, metres."""
        return self["thigh"] + self["shank"]

    @property
    def pelvis_height(self) -> float:
        """Base of the spine above the ground when standing, metres."""
        return self["ankle"] + 0.982 * self.leg + 0.35 * self["hip"]

    @property
    def chest_height(self) -> float:
        """Spine at the shoulders above the ground when standing, metres."""
        return self.pelvis_height + self["spine"] + self["chest"]


@dataclass(frozen=True)
class Pose:
    """Curves over T frames; axis of size 2 is (left, right), and x points outward there.

    pelvis [T, 3]: shift from standing, in leg lengths. spine, head [T, 3]: bend forward, lean
    left, twist left, radians (head: on top of the chest's). hands [T, 2, 3]: from the shoulder,
    in arm lengths, chest frame. feet [T, 2, 3]: ankle's shift from its standing place, in leg
    lengths. touch [T, 2, 3]: a point in the body frame, metres, that a hand goes to as far as
    reach [T, 2] in 0..1 says.
    """

    pelvis: np.ndarray
    spine: np.ndarray
    head: np.ndarray
    hands: np.ndarray
    feet: np.ndarray
    touch: np.ndarray
    reach: np.ndarray


def mirror(pose: Pose) -> Pose:
    """The same motion done with the other side of the body."""
    flip_x, flip_turns = np.array([-1.0, 1.0, 1.0]), np.array([1.0, -1.0, -1.0])
    return Pose(
        pelvis=pose.pelvis * flip_x,
        spine=pose.spine * flip_turns,
        head=pose.head * flip_turns,
        hands=pose.hands[:, ::-1],
        feet=pose.feet[:, ::-1],
        touch=pose.touch[:, ::-1],
        reach=pose.reach[:, ::-1],
    )


def amplify(pose: Pose, amplitude: float) -> Pose:
    """Scale the excursion from standing at rest; contact points stay where they are."""
    return replace(
        pose,
        pelvis=amplitude * pose.pelvis,
        spine=amplitude * pose.spine,
        head=amplitude * pose.head,
        hands=HANG + amplitude * (pose.hands - HANG),
        feet=amplitude * pose.feet,
    )


def make_body(stature: float, scale: dict[str, float]) -> Body:
    """A body of `stature` metres whose `PARTS` are `scale[part]` times the average's."""
    factor = {bone: scale.get(part, 1.0) for part, bones in PARTS.items() for bone in bones}
    return Body({b: f * stature * factor.get(b, 1.0) for b, f in FRACTIONS.items()})


def rotation(turns: np.ndarray) -> np.ndarray:
    """Rotation matrices [T, 3, 3] from [T, 3] (bend forward, lean left, twist left)."""
    (cb, cl, ct), (sb, sl, st) = np.cos(turns).T, np.sin(turns).T
    zero, one = np.zeros_like(cb), np.ones_like(cb)
    bend = np.array([[one, zero, zero], [zero, cb, -sb], [zero, sb, cb]])
    lean = np.array([[cl, sl, zero], [-sl, cl, zero], [zero, zero, one]])
    twist = np.array([[ct, zero, st], [zero, one, zero], [-st, zero, ct]])
    return np.einsum("ijt,jkt,klt->til", twist, bend, lean)


def two_bone(
    root: np.ndarray, target: np.ndarray, upper: float, lower: float, pole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Middle and end joint [..., 3] of a chain from `root` towards `target`, bent towards `pole`.

    A target out of reach is approached along the straight line, so both lengths always hold.
    """
    line = target - root
    distance = np.linalg.norm(line, axis=-1, keepdims=True)
    direction = line / np.maximum(distance, 1e-6)
    distance = np.clip(distance, MIN_REACH * (upper + lower), MAX_REACH * (upper + lower))
    along = (upper**2 - lower**2 + distance**2) / (2 * distance)
    aside = np.sqrt(np.maximum(upper**2 - along**2, 0.0))
    bend = pole - np.sum(pole * direction, axis=-1, keepdims=True) * direction
    bend /= np.maximum(np.linalg.norm(bend, axis=-1, keepdims=True), 1e-6)
    return root + along * direction + aside * bend, root + distance * direction


def outward(points: np.ndarray) -> np.ndarray:
    """[..., 2, 3] with x outward on each side, as body-frame coordinates (x to the left)."""
    return np.concatenate([points[..., :1] * SIDES[:, None], points[..., 1:]], axis=-1)


def joint_positions(body: Body, pose: Pose) -> np.ndarray:
    """Joints [T, 25, 3], metres, in the body frame, of `body` moving as `pose` says."""
    out = np.zeros((len(pose.pelvis), 25, 3))
    hips = rotation(pose.spine * np.array([0.55, 0.5, 0.4]))  # the pelvis takes part of each turn
    chest = rotation(pose.spine)
    skull = rotation(pose.spine * np.array([0.9, 1.0, 1.0]) + pose.head)
    out[:, 0] = body.leg * pose.pelvis + np.array([0.0, body.pelvis_height, 0.0])
    out[:, 1] = out[:, 0] + body["spine"] * hips[..., 1]
    out[:, 20] = out[:, 1] + body["chest"] * chest[..., 1]
    out[:, 2] = out[:, 20] + body["neck"] * chest[..., 1]
    out[:, 3] = out[:, 2] + skull @ (body["head"] * np.array([0.0, 0.97, 0.24]))
    out[:, 4:12], out[:, 21:25] = _arms(body, pose, out[:, 20], chest)
    out[:, 12:20] = _legs(body, pose, out[:, 0], hips)
    return out


def _arms(
    body: Body, pose: Pose, neck_base: np.ndarray, chest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(shoulder, elbow, wrist, hand) [T, 8, 3] and (tip, thumb) [T, 4, 3], left then right."""
    at_chest = outward(np.tile([0.97, -0.24, 0.0], (2, 1)))
    shoulder = neck_base[:, None] + body["shoulder"] * np.einsum("tij,nj->tni", chest, at_chest)
    free = shoulder + body.arm * np.einsum("tij,tnj->tni", chest, outward(pose.hands))
    target = free + pose.reach[..., None] * (outward(pose.touch) - free)
    line = target - shoulder
    height = np.einsum("tnj,tj->tn", line, chest[..., 1]) / np.linalg.norm(line, axis=-1)
    high = np.clip((height + 0.7) / 0.9, 0.0, 1.0)[..., None]
    pole = outward(LOW_ELBOW + high * (HIGH_ELBOW - LOW_ELBOW))
    pole = np.einsum("tij,tnj->tni", chest, pole)
    lower = body["forearm"] + body["hand"]
    elbow, hand = two_bone(shoulder, target, body["upper_arm"], lower, pole)
    along = (hand - elbow) / lower
    # The hand is rigid on the forearm, with the thumb on the inner side of the elbow's bend.
    inner = shoulder - elbow
    inner -= np.sum(inner * along, axis=-1, keepdims=True) * along
    inner /= np.maximum(np.linalg.norm(inner, axis=-1, keepdims=True), 1e-6)
    tip, thumb = hand + body["tip"] * along, hand + body["thumb"] * (0.6 * along + 0.8 * inner)
    wrist = elbow + body["forearm"] * along
    chain = np.stack([shoulder, elbow, wrist, hand], axis=2).reshape(-1, 8, 3)
    return chain, np.stack([tip, thumb], axis=2).reshape(-1, 4, 3)


def _legs(body: Body, pose: Pose, base: np.ndarray, hips: np.ndarray) -> np.ndarray:
    """Hip, knee, ankle, foot, left then right [T, 8, 3]."""
    at_base = outward(np.tile([0.94, -0.34, 0.0], (2, 1)))
    hip = base[:, None] + body["hip"] * np.einsum("tij,nj->tni", hips, at_base)
    stance = np.array([1.25 * body["hip"], body["ankle"], 0.0])
    target = outward(stance + body.leg * pose.feet)
    pole = outward(np.tile(KNEE_POLE, (2, 1)))
    knee, ankle = two_bone(hip, target, body["thigh"], body["shank"], pole)
    shank = (ankle - knee) / body["shank"]
    # On the ground the foot lies flat; in the air it keeps about a right angle with the shank.
    flat = outward(np.tile([0.25, -0.3, 0.92], (2, 1)))
    square = flat - np.sum(flat * shank, axis=-1, keepdims=True) * shank + 0.3 * shank
    lifted = np.clip((ankle[..., 1:2] - body["ankle"]) / 0.15, 0.0, 1.0)
    toes = flat + lifted * (square - flat)
    toes /= np.linalg.norm(toes, axis=-1, keepdims=True)
    return np.stack([hip, knee, ankle, ankle + body["foot"] * toes], axis=2).reshape(-1, 8, 3)
