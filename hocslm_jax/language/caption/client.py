"""A client of vision-language models on servers with OpenAI's protocol.

In: the frames of a clip and a prompt. Out: the server's reply, as parsed JSON. If a server is busy,
restarting or unreachable, the next one is tried after an increasing delay; a refused request raises
UserError. The `httpx2` package is imported on first use.

Servers are not trusted: replies have a deadline and a size limit; redirects are not followed, since
frames would be sent elsewhere; keys and passwords are never printed, even if a server repeats them.
"""

import asyncio
import base64
import contextlib
import dataclasses
import random
import re
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from hocslm_jax.errors import UserError, few
from hocslm_jax.files.text import parse_json
from hocslm_jax.language.caption.video import Frames

URL = "http://localhost:8000/v1"  # the default address of vLLM and `transformers serve`
KEY = "OPENAI_API_KEY"
TEMPORARY = (408, 409, 425, 429)  # status codes after which, as after 5xx, a request is repeated
FILTERS = (b'"content_filter"', b'"content_policy_violation"')  # codes of an error 400
LONGEST_PAUSE = 60.0  # seconds
GREETING = 20.0  # seconds for a server to list its models
MAX_REPLY = 4 << 20  # bytes
MAX_ERROR = 1 << 16  # bytes read from the body of an error


class Unanswered(Exception):
    """No server answered a request in all its retries."""


class Declined(Exception):
    """A server's content filter rejected a request, because of what the clip shows."""


@dataclasses.dataclass(frozen=True)
class Server:
    """One server.

    Attributes:
      client: an `httpx2.AsyncClient`; close it at the end.
      shown: its address without secrets.
      secrets: strings that must not be printed: the key, and passwords and queries in the address.
      deadline: seconds for a whole reply.
    """

    client: object
    shown: str
    secrets: tuple[str, ...]
    deadline: float

    def hide(self, text: object) -> str:
        """`text` on one line, with asterisks instead of secrets."""
        text = " ".join(str(text).split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return re.sub(r"//[^/\s@]*@", "//***@", text)


@dataclasses.dataclass(frozen=True)
class Reply:
    """HTTP status, body, and the seconds to wait that the server asks for (0: none)."""

    status: int
    body: bytes
    pause: float = 0.0

    def __str__(self) -> str:
        moved = 300 <= self.status < 400
        reason = "it redirects to another address" if moved else _reason(self.body)
        return f"status {self.status}, {reason}"


def connect(url: str, key: str | None, deadline: float) -> Server:
    """A server by its address; `/v1` is added to an address without a path.

    Raises:
      UserError: not an address.
    """
    import httpx2

    shown = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url)[0])
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is not a number, for example
        valid = False
    if not valid:
        raise UserError(f"--base-url {shown}: not an address like {URL}")
    if not parts.path.strip("/"):
        parts, shown = parts._replace(path="/v1"), f"{shown.rstrip('/')}/v1"
    query = dict(parse_qsl(parts.query))
    found = filter(None, (key, parts.username, parts.password, *query.values()))
    spelt = {each for text in found for each in (text, quote(text, ""), unquote(text))}
    client = httpx2.AsyncClient(
        base_url=parts._replace(query="", fragment="").geturl(),
        params=query,
        headers={"Authorization": f"Bearer {key}"} if key else None,
        timeout=deadline,
        limits=httpx2.Limits(max_connections=None),
        follow_redirects=False,
    )
    return Server(client, shown, tuple(sorted(spelt, key=len, reverse=True)), deadline)


async def greet(servers: list[Server], model: str | None) -> str:
    """Checks that every server responds; returns the model's name, by default that of the servers.

    Raises:
      UserError: a server does not respond or rejects the key, or the model must be named.
    """
    offered: set[str] = set()
    for server in servers:
        try:
            reply = await _send(server, "GET", "models", min(GREETING, server.deadline))
        except OSError as error:
            raise UserError(
                f"no server responds at {server.shown} ({server.hide(error)}); start it, or give "
                "its address as --base-url"
            ) from None
        except ValueError:  # an unexpected reply
            continue
        if reply.status in (401, 403):
            raise UserError(f"{server.shown} does not accept the key; set {KEY}")
        with contextlib.suppress(ValueError, TypeError, KeyError):  # a server need not list models
            names = [entry["id"] for entry in parse_json(reply.body)["data"]]
            offered |= {name for name in names if isinstance(name, str)}
    if model is None and len(offered) != 1:
        names = few(sorted(offered)) or "the server names none"
        raise UserError(f"name the model with --model ({names})")
    return model or offered.pop()


async def ask(servers: list[Server], request: dict, retries: int, backoff: float) -> object:
    """The JSON value that a server replies to a chat request.

    Args:
      servers: tried in turn, until one replies.
      retries: further tries, if servers are busy or unreachable.
      backoff: seconds before the first retry; doubled for each later one.

    Raises:
      UserError: a server refuses the request.
      Declined: a server's filter rejects this clip.
      Unanswered: no reply in all retries.
    """
    for attempt in range(retries + 1):
        server, pause = servers[attempt % len(servers)], 0.0
        try:
            reply = await _send(server, "POST", "chat/completions", server.deadline, request)
            if reply.status == 200:
                return parse_json(reply.body)
            problem, pause = f"{server.shown}: {server.hide(reply)}", reply.pause
            if reply.status == 400 and any(code in reply.body for code in FILTERS):
                raise Declined(problem)
            if reply.status < 500 and reply.status not in TEMPORARY:
                raise UserError(f"the request is refused by {problem}")
        except (OSError, ValueError) as error:
            problem = f"{server.shown}: {server.hide(error)}"
        if attempt < retries:
            jitter = random.uniform(0.5, 1.0)  # so that workers do not retry all at once
            pause = max(backoff * 2.0 ** min(attempt, 10) * jitter, pause)
            await asyncio.sleep(min(pause, LONGEST_PAUSE))
    raise Unanswered(problem)


async def _send(
    server: Server, method: str, path: str, deadline: float, request: dict | None = None
) -> Reply:
    """Sends one request; returns the reply with any status.

    Raises:
      OSError: no server, a broken connection, or no complete reply in time.
      ValueError: a reply that is too large.
    """
    import httpx2

    try:
        async with (
            asyncio.timeout(deadline),
            server.client.stream(method, path, json=request) as response,
        ):
            fine, data = response.status_code == 200, bytearray()
            async for chunk in response.aiter_bytes():
                data += chunk
                if len(data) > MAX_ERROR and not fine:
                    break
                if len(data) > MAX_REPLY:
                    raise ValueError(f"a reply of over {MAX_REPLY} bytes")
            pause = 0.0
            with contextlib.suppress(ValueError):
                pause = float(response.headers.get("retry-after", ""))
            return Reply(response.status_code, bytes(data), pause)
    except (TimeoutError, httpx2.TimeoutException):
        raise TimeoutError("no complete reply in time") from None
    except (httpx2.HTTPError, httpx2.StreamError) as error:
        raise ConnectionError(str(error) or type(error).__name__) from None


def _reason(body: bytes) -> str:
    """A server's explanation of an error: OpenAI's "message" or FastAPI's "detail"."""
    try:
        found = parse_json(body)
    except ValueError:
        found = body.decode(errors="replace")
    for _ in range(2):  # {"error": {"message": …}}
        if isinstance(found, dict):
            keys = [key for key in ("error", "message", "detail") if found.get(key)]
            found = found[keys[0]] if keys else found
    return " ".join(str(found or "no reason given").split())[:300]


def as_images(frames: Frames, prompt: str) -> dict:
    """A chat request with each frame as a picture, followed by `prompt`."""
    urls = [f"data:image/jpeg;base64,{base64.b64encode(j).decode()}" for j in frames.jpegs]
    return _request([{"type": "image_url", "image_url": {"url": url}} for url in urls], prompt)


def as_video(frames: Frames, prompt: str) -> dict:
    """A chat request with the frames as one video with their times, in vLLM's format."""
    url = "data:video/jpeg;base64," + ",".join(base64.b64encode(j).decode() for j in frames.jpegs)
    times = {"fps": frames.fps, "frames_indices": list(frames.indices), "do_sample_frames": False}
    times |= {"total_num_frames": frames.total, "duration": frames.total / (frames.fps or 1.0)}
    request = _request([{"type": "video_url", "video_url": {"url": url}}], prompt)
    return request | {"media_io_kwargs": {"video": times}}


def _request(shown: list[dict], prompt: str) -> dict:
    return {"messages": [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]}
