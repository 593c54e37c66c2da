"""Which answers of a vision-language model are captions: a sentence that says what somebody does.

Text in; the cleaned text, or the reason for which it is dropped, out. The check is of words, not
of truth: it finds refusals, empty answers, noise, sentences that were cut off and descriptions of
a scene in which nothing happens. For that it looks for a verb of motion or action in the lists
below. They hold English only, and a posture alone ("is standing", "wears", "holds") is no motion.
"""

import re
import unicodedata
from collections.abc import Iterator

MIN_WORDS = 3
MIN_LETTERS = 0.6  # share of the characters

# Verbs that say something in every form.
ACTIONS = """
adjust applaud apply approach assist attack bend bite blow bob bounce brandish breathe bring browse
bump carry catch chase cheer chew chop chuck clap clasp climb clink clutch collapse collide cough
crawl creep crouch crumple crush dab dance dangle deliver descend dial dip disassemble dodge donate
drag dribble drop duck eat embrace enter exhale exit extract fasten fetch fiddle fight flap flex
flick flinch fling flip follow forage fumble gather gesticulate gesture give glide grab grapple
grasp greet grip grope heave help hit hobble hop hover hug hurl hurry imitate inhale insert jab jerk
jiggle jog join jostle juggle jump kick knead knock lather leap lick limp lob lurch manipulate
massage mime mimic move munch nod nudge operate pat peck pedal peel perform pick pinch play pluck
plunge poke pour pretend prod pull punch push put reach read receive recoil release remove repeat
retch retrieve return rip rise rotate rub run rush salute scatter scoop scratch scrub scrunch shake
shave shiver shoot shove shrug shuffle shush sip skip slam slap slather slide slip smear smooch snap
snatch sneak sneeze sniff snip solve spin sprinkle sprint squash squat squeeze squirt stab stagger
stamp steal stomp stoop straighten stretch stride strike stroll strum stumble swallow swap sway
sweep swerve swim swing swipe swivel take tear threaten throw thrust tickle tilt toss totter touch
trample travel tread tremble trip trot trudge tug tumble turn twirl twist unbutton undress unfasten
unfold unlock unscrew unwrap unzip vomit wag wander wash wave whack wield wiggle wipe withdraw
wobble wrestle wring write yank yawn
"""

# Those whose plain form and past are as often nouns or adjectives ("a closed door", "a drink"):
# only "closes", "closing", and "close" after "to" or a plural subject count.
NOUN_LIKE = """
act aim answer attach beckon bow brush call check clean clench click clip close comb count cover
cross curl cut demonstrate draw drink drive exchange exercise extend fall film flutter fold form
hunch interact kiss lift lock lower march measure open pace pack paddle pass phone photograph place
point pose pound press raise record ride rock roll sew shift shut signal smell smoke smooth snort
spray spread staple step stir stuff support swat switch talk tap taste text tie tip toast trace trim
tuck use walk whisper work wrap zip
"""

# Their plural is a noun as well ("hands", "buttons"), or only one form is meant.
PLAIN = """
ate backing balling blew boxing brought buttoning caught circling crept cupping doffing doffs
donning dons drank drove drumming dug fanning fell flung gave handing handling high-five high-fived
high-fives high-fiving knelt leapt pocketing ran sank shook sinking sinks slid sprang spun strapping
strode struck swam swept swung threw took tore typing woke wrote
"""

_UP_OR_DOWN = r"(?:\w+ly )?(?:back )?(?:up|down)"
_AWAY = r"(?:up|down|out|to|into|towards?|forwards?|backwards?|back|over|around|away|aside|across)"
PHRASES = (
    rf"(?:sit|stand|get|lie|kneel)s? {_UP_OR_DOWN}",
    rf"(?:sitting|standing|getting|lying|kneeling|sat|stood|got|lay|knelt) {_UP_OR_DOWN}",
    rf"(?:com|go|lean|mak)(?:e|es|ing|s|ed)? (?:\w+ly )?{_AWAY}",
    r"(?:mak|do)(?:e|es|ing) (?:[\w'-]+ ){1,4}(?:gesture|motion|movement|sign|signal|fist|call|bow"
    r"|circle|step|swing|jump|squat|kick|exercise)s?",
    r"(?:hold|bring)(?:s|ing)? (?:[\w'-]+ ){0,4}(?:up|out|together|against|to|towards?)",
    r"(?:look|glanc)(?:s|es|ing) (?:down |up )?(?:at|around) (?:[\w'-]+ )?(?:watch|wrist|phone)",
    r"(?<!his )(?<!her )(?<!their )(?<!both )(?<!the )hands (?:over|something|it|an?|the)",
    r"seat(?:s|ing) (?:him|her|them)self",
    r"(?:to type|types (?:on|in|into|with|an?)|balls up)",
    r"(?:fans|circles) (?:himself|herself|his|her|their|the|one|both)",
    r"show(?:s|ing)? (?:an? |the )?(?:[\w'-]+ ){0,2}(?:sign|gesture|thumbs?[ -](?:up|down))",
)

REFUSALS = (
    r"\bi(?:'m| am) (?:\w+ )?sorry\b",
    r"^(?:sorry|apologies|unfortunately)\b",
    r"\bi apologi[sz]e\b",
    r"\bi (?:can ?not|can't|could not|couldn't|will not|won't|do not|don't)\b",
    r"\bi(?:'m| am) (?:not able|unable|not sure)\b",
    r"\bas an? (?:ai|artificial|language|large|multimodal|visual|assistant)\b",
    r"\b(?:unable|impossible|not possible) to (?:determine|tell|see|view|process|identify|describe"
    r"|provide|assist|analy[sz]e)\b",
    r"\bno (?:image|video|frame|picture)s? (?:[a-z]+ ){0,2}(?:provided|attached|given|visible)",
    r"\bplease (?:provide|upload|share|attach|send)\b",
)


def clean(text: str) -> str:
    """The answer as one line, without thinking aloud, special tokens, label, quotes, Markdown."""
    edges = "\"'“”`*# "
    text = text.rsplit("</think>", 1)[-1].encode(errors="replace").decode()  # no half characters
    text = re.sub(r"<\|[^<>|]*\|>", " ", text)
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cf") else c for c in text)
    text = " ".join(text.split()).strip(edges)
    return re.sub(r"^(?:caption|description|answer)\W*:\W*", "", text, flags=re.I).strip(edges)


def problem(text: object, finished: bool = True) -> str | None:
    """Why `text` is no caption, or None if it is one.

    Args:
      text: what the model answered, cleaned.
      finished: whether the model ended by itself, not at the limit of tokens.
    """
    if not isinstance(text, str) or not text.strip():
        return "empty"
    words = re.findall(r"[^\W\d_]+", text)
    letters = sum(map(len, words))
    if len(words) < MIN_WORDS or letters < MIN_LETTERS * len(text) or "\ufffd" in text:
        return "not a sentence"
    lowered = text.lower().replace("’", "'")
    if any(re.search(pattern, lowered) for pattern in REFUSALS):
        return "refusal"
    if not finished:
        return "cut off at the limit of tokens"
    return None if _MOTION.search(lowered) else "no verb of motion or action"


def _present(verb: str) -> Iterator[str]:
    """`carry` to carries, carrying; `clap` to claps, clapping, and claping, which does no harm."""
    if verb.endswith(("s", "x", "z", "ch", "sh")):
        yield verb + "es"
    elif re.search("[^aeiou]y$", verb):
        yield verb[:-1] + "ies"
    else:
        yield verb + "s"
    if verb.endswith("ie"):
        yield verb[:-2] + "ying"
    else:
        yield verb.removesuffix("e") + "ing"
    yield verb + verb[-1] + "ing"


def _past(verb: str) -> Iterator[str]:
    yield re.sub("([^aeiou])y$", r"\1i", verb).removesuffix("e") + "ed"
    yield verb + verb[-1] + "ed"


def _motion_pattern() -> re.Pattern[str]:
    always = {form for verb in ACTIONS.split() for form in (verb, *_present(verb), *_past(verb))}
    always |= {form for verb in NOUN_LIKE.split() for form in _present(verb)}
    always |= set(PLAIN.split())
    subject = "to|they|people|men|women|persons|pair|two|fingers|then"
    plain = rf"(?:{subject}) (?:{'|'.join(NOUN_LIKE.split())})"
    return re.compile(rf"\b(?:{'|'.join([*sorted(always), plain, *PHRASES])})\b")


_MOTION = _motion_pattern()
