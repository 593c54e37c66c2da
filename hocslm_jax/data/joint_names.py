"""One vocabulary of joint names, so that clips of one layout can be converted to another.

In: joint names as datasets, pose estimators and animation files write them (`LShoulder`,
`left_shoulder`, `SHOULDER_LEFT`, `mixamorig:LeftArm`). Out: one name for each place of the body,
such as `left shoulder`; and for places that a skeleton lacks, the joints whose mean replaces them.
"""

import re
from collections.abc import Sequence

_BREAKS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])")
_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}

_MIDDLE = {
    **dict.fromkeys(("base of spine", "spine base", "pelvis", "root"), "hip centre"),
    **dict.fromkeys(("hip", "hips", "mid hip", "midhip"), "hip centre"),
    **dict.fromkeys(("mid spine", "spine mid", "spine navel", "spine naval"), "spine"),
    **dict.fromkeys(("spine 2", "torso"), "spine"),
    **dict.fromkeys(("shoulder spine", "spine shoulder", "thorax"), "shoulder centre"),
    **dict.fromkeys(("spine chest", "spine 3"), "chest"),
    "neck base": "neck",
}
_OF_A_SIDE = {"clavicle": "collar", "handtip": "hand tip", "toe base": "foot", "toe": "foot"}

# Animation files name bones. The joint of a bone is where it begins: the arm's is the shoulder.
_BONES = {
    "shoulder": "collar",
    **dict.fromkeys(("arm", "upper arm"), "shoulder"),
    **dict.fromkeys(("fore arm", "lower arm"), "elbow"),
    "hand": "wrist",
    **dict.fromkeys(("up leg", "upper leg", "thigh"), "hip"),
    **dict.fromkeys(("leg", "lower leg", "shin", "calf"), "knee"),
    "foot": "ankle",
}
_THIGHS = ("up leg", "upper leg", "thigh")  # only in files that name bones


def _both_sides(rules: dict[str, tuple[tuple[str, ...], ...]]) -> dict:
    return {
        f"{side} {joint}": tuple(
            tuple(name.replace("*", side) for name in middle) for middle in middles
        )
        for side in ("left", "right")
        for joint, middles in rules.items()
    }


# A joint that a skeleton lacks is replaced by the mean of the first of these groups that the
# skeleton has, or that can be made in the same way. All other joints are missing. The untracked end
# of a limb takes the place of the last tracked joint, which costs a network far less accuracy than
# a missing joint.
MADE_OF: dict[str, tuple[tuple[str, ...], ...]] = {
    "hip centre": (("left hip", "right hip"),),
    "shoulder centre": (("left shoulder", "right shoulder"),),
    "neck": (("shoulder centre",),),
    "spine": (("hip centre", "shoulder centre"),),
    "spine 1": (("hip centre", "spine"),),
    "chest": (("spine", "shoulder centre"),),
    "head": (("left ear", "right ear"), ("nose",)),
    "nose": (("head",),),
} | _both_sides(
    {
        "collar": (("shoulder centre", "* shoulder"),),
        "hand": (("* index", "* pinky"), ("* wrist",)),
        "hand tip": (("* index",), ("* hand",)),
        **dict.fromkeys(("thumb", "pinky"), (("* hand",),)),
        "index": (("* hand tip",),),
        "foot": (("* big toe", "* small toe"), ("* foot index",), ("* ankle",)),
        "foot index": (("* big toe",), ("* foot",)),
        "big toe": (("* foot index",), ("* foot",)),
        "small toe": (("* big toe",),),
        "heel": (("* ankle",),),
        **dict.fromkeys(("eye", "ear", "mouth"), (("nose",),)),
        **dict.fromkeys(("eye inner", "eye outer"), (("* eye",),)),
    }
)


def common_names(joints: Sequence[str]) -> tuple[str, ...]:
    """The vocabulary's name of every joint of one skeleton; unknown names are only normalised.

    The whole skeleton is needed: `LeftShoulder` is the collar bone if there is a `LeftArm`, which
    then is the upper arm.
    """
    parts = [_parts(name) for name in joints]
    bones = any(side and rest in _THIGHS for side, rest in parts)
    return tuple(_joined(side, rest, bones) for side, rest in parts)


def _parts(name: str) -> tuple[str, str]:
    """Splits a joint's name into its side (left, right or nothing) and the rest in lower case."""
    text = _BREAKS.sub(" ", name.rpartition(":")[2])
    words = [word for word in re.split(r"[\W_]+", text.lower()) if word]
    words = ["centre" if word == "center" else word for word in words]
    for at in (0, -1):
        if len(words) > 1 and words[at] in _SIDES:
            side = _SIDES[words.pop(at)]
            return side, " ".join(words)
    return "", " ".join(words)


def _joined(side: str, rest: str, bones: bool) -> str:
    if not side:
        return _MIDDLE.get(rest, rest)
    rest = _BONES.get(rest, _OF_A_SIDE.get(rest, rest)) if bones else _OF_A_SIDE.get(rest, rest)
    return f"{side} {rest}"
