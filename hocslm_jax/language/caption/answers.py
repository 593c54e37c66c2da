"""Decides whether an answer of a vision-language model is a caption.

In: the reply of a server. Out: its text as one clean line, and the reason if it is rejected. The
check finds refusals, noise, and answers that are empty, cut off or too long; it cannot tell whether
a sentence is true.
"""

import re
import unicodedata

MIN_WORDS = 3
MIN_LETTERS = 0.6  # least share of letters among the characters
MAX_CHARACTERS = 2000  # a sentence has about 100
DECLINED = "declined by the server"  # its own filter, not the model's words

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


def read_answer(reply: object) -> tuple[str, str | None]:
    """The clean text of a chat completion and, if it is incomplete, the reason.

    A server may reply with anything; the text is "" if the reply is not an answer.
    """
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    choice = choice if isinstance(choice, dict) else {}
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    text = message.get("content")
    text = clean(text) if isinstance(text, str) else ""
    if message.get("refusal") or choice.get("finish_reason") == "content_filter":
        return text[:MAX_CHARACTERS].rstrip(), DECLINED
    if len(text) > MAX_CHARACTERS:
        return text[:MAX_CHARACTERS].rstrip(), "too long"
    return text, "cut off at --max-tokens" if choice.get("finish_reason") == "length" else None


def clean(text: str) -> str:
    """The answer as one line, without reasoning, special tokens, label, quotes and Markdown."""
    edges = "\"'“”`*# "
    text = text.rsplit("</think>", 1)[-1].encode(errors="replace").decode()  # no lone surrogates
    text = re.sub(r"<\|[^<>|]*\|>", " ", text)
    text = "".join(" " if unicodedata.category(c) in ("Cc", "Cf") else c for c in text)
    text = " ".join(text.split()).strip(edges)
    return re.sub(r"^(?:caption|description|answer)\W*:\W*", "", text, flags=re.I).strip(edges)


def problem(text: str) -> str | None:
    """The reason why a clean text is not a caption, or None if it is one."""
    if not text:
        return "empty"
    words = re.findall(r"[^\W\d_]+", text)
    letters = sum(map(len, words))
    if len(words) < MIN_WORDS or letters < MIN_LETTERS * len(text) or "\ufffd" in text:
        return "not a sentence"
    lowered = text.lower().replace("’", "'")
    return "refusal" if any(re.search(pattern, lowered) for pattern in REFUSALS) else None
