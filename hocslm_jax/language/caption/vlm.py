"""A vision-language model behind OpenAI-compatible servers: what it is asked and what it says.

Frames of a clip in, the text of an answer out. A server that is busy, restarting or away is waited
for with growing pauses, and the next replica is asked meanwhile; one that refuses a request for
good stops the run with one line. The `openai` package is imported only when it is used.

Servers are not trusted: an answer has a deadline and a size, a redirect is not followed, since the
frames would go elsewhere, and no key or password is printed, whoever repeats it.
"""

import asyncio
import base64
import contextlib
import dataclasses
import random
import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from hocslm_jax.errors import UserError
from hocslm_jax.files.text import parse_json
from hocslm_jax.language.caption.accept import clean
from hocslm_jax.language.caption.video import Frames

URL = "http://localhost:8000/v1"  # where vLLM and `transformers serve` listen by themselves
KEY = "OPENAI_API_KEY"
PASSING = (408, 409, 425, 429)  # refusals that may not last, as all from 500 on
LONGEST_WAIT = 60.0  # seconds
GREETING = 20.0  # seconds that a server has to name its models
MAX_REPLY = 4 << 20  # bytes
MAX_ANSWER = 2000  # characters of an answer; a sentence has some 100


class Unanswered(Exception):
    """A request that no server answered, however often it was sent."""


@dataclasses.dataclass(frozen=True)
class Server:
    """One replica.

    Attributes:
      client: of the openai package.
      shown: its address, without what must not be printed.
      secrets: the texts that must not be printed: the key, and what the address holds.
      deadline: seconds for a whole answer.
    """

    client: object
    shown: str
    secrets: tuple[str, ...]
    deadline: float

    def hide(self, text: object) -> str:
        """`text` on one line, with asterisks for every secret in it."""
        text = " ".join(str(text).split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return re.sub(r"//[^/\s@]*@", "//***@", text)


class _Status(Exception):
    """A reply whose status is not 200; raised before more than its first bytes are read."""

    def __init__(self, status: int, words: str, pause: float):
        super().__init__(f"status {status}, {words}")
        self.status, self.pause = status, pause


def complete(url: str) -> str:
    """`http://host:8000` as `http://host:8000/v1`, where OpenAI's interface is."""
    parts = _split(url)
    return url if parts.path.strip("/") else parts._replace(path="/v1").geturl()


def connect(url: str, key: str, deadline: float) -> Server:
    """A server by its address, as `complete` gives it; parts after `?` go with every request."""
    import openai

    parts = _split(url)
    query = dict(parse_qsl(parts.query))
    found = {key if key != "none" else "", parts.username, parts.password, *query.values()}
    spelt = {each for text in found if text for each in (text, quote(text, ""), unquote(text))}
    client = openai.AsyncOpenAI(
        base_url=parts._replace(query="", fragment="").geturl(),
        api_key=key,
        timeout=deadline,
        max_retries=0,
        default_query=query,
        http_client=openai.DefaultAsyncHttpxClient(
            follow_redirects=False, event_hooks={"response": [_check_status]}
        ),
    )
    secrets = tuple(sorted(spelt, key=len, reverse=True))
    return Server(client, _shown(url), secrets, deadline)


async def greet(servers: list[Server], model: str | None) -> str:
    """Checks that every server is there; returns the model's name, theirs if none was given."""
    offered: set[str] = set()
    for server in servers:
        try:
            listing = server.client.models.with_streaming_response.list()
            found = await asyncio.wait_for(_read(listing), min(GREETING, server.deadline))
            offered |= {entry["id"] for entry in found["data"] if isinstance(entry["id"], str)}
        except Exception as error:
            status = _status(error)
            if status and status.status in (401, 403):
                raise UserError(f"{server.shown} wants another key; set {KEY}") from None
            if _is_away(error):
                raise UserError(
                    f"no server answers at {server.shown} ({server.hide(_reason(error))}); start "
                    "it, or give its address as --base-url"
                ) from None
            if not status and not _is_odd(error):
                raise
            # A server need not list models.
    if model is None and len(offered) != 1:
        names = ", ".join(sorted(offered)[:5]) or "the server names none"
        raise UserError(f"name the model with --model ({names})")
    return model or offered.pop()


async def ask(servers: list[Server], request: dict, retries: int, backoff: float) -> dict:
    """The reply to a request; a busy or absent server is waited for, the next replica tried.

    Raises:
      UserError: the server refuses the request for good.
      Unanswered: all retries are spent.
    """
    for attempt in range(retries + 1):
        server, pause = servers[attempt % len(servers)], 0.0
        try:
            asked = server.client.chat.completions.with_streaming_response.create(**request)
            return await asyncio.wait_for(_read(asked), server.deadline)
        except Exception as error:
            status = _status(error)
            if not status and not _is_away(error) and not _is_odd(error):
                raise
            reason = f"{server.shown}: {server.hide(status or _reason(error))}"
            if status and status.status < 500 and status.status not in PASSING:
                raise UserError(f"the request is refused by {reason}") from None
            pause = status.pause if status else 0.0
        if attempt < retries:
            jitter = random.uniform(0.5, 1.0)  # so that workers do not come back all at once
            pause = max(backoff * 2.0 ** min(attempt, 10) * jitter, pause)
            await asyncio.sleep(min(pause, LONGEST_WAIT))
    raise Unanswered(reason)


def answer(reply: object) -> tuple[str, bool]:
    """The text of a reply, "" where there is none, and whether the model ended by itself."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    choice = choice if isinstance(choice, dict) else {}
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    text = clean(text) if isinstance(text, str) else ""
    finished = choice.get("finish_reason") != "length" and len(text) <= MAX_ANSWER
    return text[:MAX_ANSWER].rstrip(), finished


async def _check_status(response) -> None:
    """Ends what is not an answer here, with a few words of it: the client would read it all."""
    if response.status_code == 200:
        return
    words = bytearray()
    with contextlib.suppress(Exception):  # the status alone says enough
        async for chunk in response.aiter_bytes():
            words += chunk
            if len(words) > 1 << 16:
                break
    await response.aclose()
    pause = 0.0
    with contextlib.suppress(ValueError):
        pause = float(response.headers.get("retry-after", ""))
    where = response.headers.get("location") if 300 <= response.status_code < 400 else None
    said = "it sends us to another address" if where else _words(bytes(words))
    raise _Status(response.status_code, said, pause)


async def _read(sent) -> dict:
    """The JSON of a reply, which may have `MAX_REPLY` bytes."""
    data = bytearray()
    async with sent as response:
        async for chunk in response.iter_bytes():
            data += chunk
            if len(data) > MAX_REPLY:
                raise ValueError(f"a reply of over {MAX_REPLY} bytes")
    return parse_json(bytes(data))


def _status(error: Exception) -> _Status | None:
    cause = error if isinstance(error, _Status) else error.__cause__
    return cause if isinstance(cause, _Status) else None


def _is_away(error: Exception) -> bool:
    import openai

    return isinstance(error, openai.APIConnectionError | TimeoutError)


def _is_odd(error: Exception) -> bool:
    """Whether it is about what came: no JSON, none of the right form, broken off."""
    import openai

    library = type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "anyio", "ssl")
    odd = (openai.OpenAIError, ValueError, TypeError, KeyError, AttributeError, OSError)
    return library or isinstance(error, odd)


def _reason(error: Exception) -> object:
    if isinstance(error, TimeoutError):
        return "no whole answer in time"
    return error.__cause__ or error


def _words(body: bytes) -> str:
    """What a server says of an error: OpenAI's "message", FastAPI's "detail"."""
    try:
        found = parse_json(body)
    except ValueError:
        found = body.decode(errors="replace")
    for _ in range(2):  # {"error": {"message": …}}
        if isinstance(found, dict):
            keys = [key for key in ("error", "message", "detail") if found.get(key)]
            found = found[keys[0]] if keys else found
    return " ".join(str(found or "no reason given").split())[:300]


def _split(url: str):
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError:  # a port that is no number, for one
        pass
    raise UserError(f"--base-url {_shown(url)}: not an address like {URL}")


def _shown(url: str) -> str:
    """An address without name, password and query."""
    return re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url)[0])


def as_images(frames: Frames, prompt: str) -> dict:
    """A chat request that shows the frames as one picture each and then asks `prompt`."""
    urls = [f"data:image/jpeg;base64,{base64.b64encode(j).decode()}" for j in frames.jpegs]
    return _request([{"type": "image_url", "image_url": {"url": url}} for url in urls], prompt)


def as_video(frames: Frames, prompt: str) -> dict:
    """A chat request that shows the frames as one video, with their times, as vLLM reads it."""
    url = "data:video/jpeg;base64," + ",".join(base64.b64encode(j).decode() for j in frames.jpegs)
    times = {"fps": frames.fps, "frames_indices": list(frames.indices), "do_sample_frames": False}
    times |= {"total_num_frames": frames.total, "duration": frames.total / (frames.fps or 1.0)}
    request = _request([{"type": "video_url", "video_url": {"url": url}}], prompt)
    return request | {"extra_body": {"media_io_kwargs": {"video": times}}}


def _request(shown: list[dict], prompt: str) -> dict:
    return {"messages": [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]}
