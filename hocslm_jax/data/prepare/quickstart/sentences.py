"""A small grammar that writes one English sentence about a quickstart clip.

In: the class name and what was drawn for the clip (acting side, size of the motion, repeat count).
Out: a sentence that names the body parts and how they move. Every fact in it is true of the
motion; only the wording is free. `{slot}` is filled from `WORDS` at random, or from the clip's
facts. No sentence speaks of the pace: a network sees every clip resized to the same number of
frames, so it cannot know how long the clip was. All sentences of a class agree on whether the legs
take part.
"""

import re

import numpy as np

WORDS: dict[str, tuple[str, ...]] = {
    "who": ("A person", "Someone", "The person", "A standing person"),
    "seated": ("A seated person", "Someone seated", "The sitting person", "A person on a chair"),
    "other": ("another person", "a second person", "the other person"),
    "raises": ("raises", "lifts", "brings up"),
    "lowers": ("lowers", "drops"),
    "holds": ("holds", "keeps"),
    "moves": ("swings", "drives", "moves"),
    "bends": ("bends", "leans", "tips"),
}
TEMPLATES: dict[str, tuple[str, ...]] = {
    "drink": (
        "{who} {raises} the {side} hand to the mouth and drinks from a cup.",
        "{who} {raises} a cup with the {side} hand, tilts the head back and drinks.",
        "{who} bends the {side} elbow to bring a cup to the lips, then {lowers} the arm.",
    ),
    "phone call": (
        "{who} {raises} the {side} hand to the ear and answers a phone.",
        "{who} bends the {side} elbow and {holds} a phone beside the tilted head.",
        "{who} looks down, {raises} a phone with the {side} hand and {holds} it to the ear.",
    ),
    "wave": (
        "{who} {raises} the {side} arm and waves the hand from side to side {times}.",
        "{who} waves the {side} hand above the shoulder {times}.",
        "{who} {holds} the {side} hand up beside the head and sways it left and right.",
    ),
    "throw": (
        "{who} pulls the {side} hand back over the shoulder, steps and throws an object.",
        "{who} steps forward, twists the trunk and throws with a {size} swing of the {side} arm.",
        "{who} takes a step and throws something overhand with the {side} arm.",
    ),
    "pick up": (
        "{who} {bends} forward over bent knees and picks an object up with the {side} hand.",
        "{who} bends the knees, reaches to the floor with the {side} hand and lifts something.",
        "{who} stoops, grasps a thing by the feet with the {side} hand and straightens.",
    ),
    "sit down": (
        "{who} bends the knees, lowers the hips and sits down.",
        "{who} leans the trunk forward and sits down on a chair, both hands going to the lap.",
        "{who} lowers the body backward onto a seat and rests the hands on the thighs.",
    ),
    "stand up": (
        "{seated} leans the trunk forward, straightens the knees and stands up.",
        "{seated} {raises} the hips until both legs are straight.",
        "{seated} {raises} the hips and stands up, the arms falling to the sides.",
    ),
    "clap": (
        "{who} claps both hands together in front of the chest {times}.",
        "{who} {raises} both forearms and claps the hands.",
        "{who} {holds} the hands before the chest and claps {times}.",
    ),
    "kick": (
        "{who} draws the {side} foot back and kicks forward.",
        "{who} makes a {size} kick forward with the {side} leg, balancing on the other foot.",
        "{who} kicks with the {side} foot while the opposite arm comes forward.",
    ),
    "jump": (
        "{who} bends both knees, swings the arms up and jumps.",
        "{who} crouches and makes a {size} jump straight up, both feet leaving the floor.",
        "{who} swings both arms and jumps up, landing on bent knees.",
    ),
    "bow": (
        "{who} bends the trunk forward at the hips and bows.",
        "{who} takes a {size} bow, lowering the head while the hands slide down the thighs.",
        "{who} tips the upper body forward, looks down, and rises again.",
    ),
    "shake hands": (
        "Two people stretch out the right arms and shake hands {times}.",
        "{who} reaches out the right hand, clasps the hand of {other} and shakes it.",
        "{who} and {other} lean in, join right hands and move them up and down {times}.",
    ),
    "push another person": (
        "{who} steps forward, stretches both arms and pushes {other} in the chest.",
        "{who} steps forward with the {side} foot and shoves {other}, who staggers backward.",
        "{who} takes a step and pushes {other} away with both hands.",
    ),
    "punch another person": (
        "{who} steps forward, twists the trunk and punches {other} with the {side} fist.",
        "{who} steps and {moves} the {side} fist to the head of {other}, who reels back.",
        "{who} takes a step and punches {other} with the {side} hand, the other hand on guard.",
    ),
}
COUNTS = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}


def size_word(amplitude: float) -> str:
    """A word for the size of a motion that is `amplitude` times the average."""
    if amplitude < 0.92:
        return "small"
    return "big" if amplitude > 1.08 else "moderate"


def describe(name: str, facts: dict[str, str], rng: np.random.Generator) -> str:
    """A sentence about a clip of class `name`; `facts` fills side, times and size."""

    def fill(slot: re.Match[str]) -> str:
        return facts[slot[1]] if slot[1] in facts else str(rng.choice(WORDS[slot[1]]))

    return re.sub(r"\{(\w+)\}", fill, str(rng.choice(TEMPLATES[name])))
