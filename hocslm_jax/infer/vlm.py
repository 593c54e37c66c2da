"""A vision-language model behind OpenAI-compatible servers: what it is asked and what it says.

Frames of a clip in, the text of an answer out. A server that is busy, restarting or away is waited
for with growing pauses, and the next replica is asked meanwhile; one that refuses a request for
good stops the run with one line. The `openai` package is imported only when it is used.
"""

import asyncio
import base64
import contextlib
import random
from urllib.parse import urlsplit

from hocslm_jax.errors import UserError
from hocslm_jax.infer.caption_check import clean
from hocslm_jax.infer.video import Frames

URL = "http://localhost:8000/v1"  # where vLLM and `transformers serve` listen by themselves
KEY = "OPENAI_API_KEY"
PASSING = (408, 409, 425, 429)  # refusals that may not last, as all from 500 on
LONGEST_WAIT = 60.0  # seconds


class Unanswered(Exception):
    """A request that no server answered, however often it was sent."""


def complete(url: str) -> str:
    """`http://host:8000` as `http://host:8000/v1`, where OpenAI's interface is."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"--base-url {url}: not an address like {URL}")
    return url if parts.path.strip("/") else url.rstrip("/") + "/v1"


async def greet(clients: list, model: str | None) -> str:
    """Checks that every server is there; returns the model's name, theirs if none was given."""
    import openai

    offered: set[str] = set()
    for client in clients:
        try:
            listed = await client.with_options(timeout=20.0).models.list()
            offered |= {entry.id for entry in getattr(listed, "data", None) or []}
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise UserError(f"{client.base_url} wants another key; set {KEY}") from None
        except openai.APIConnectionError as error:
            raise UserError(
                f"no server answers at {client.base_url} ({error.__cause__ or error}); start it, "
                "or give its address as --base-url"
            ) from None
        except (openai.APIError, ValueError):  # a server need not list models
            pass
    if model is None and len(offered) != 1:
        names = ", ".join(sorted(offered)[:5]) or "the server names none"
        raise UserError(f"name the model with --model ({names})")
    return model or offered.pop()


async def ask(replicas: list, request: dict, retries: int, backoff: float):
    """The reply to a request; a busy or absent server is waited for, the next replica tried.

    Raises:
      UserError: the server refuses the request for good.
      Unanswered: all retries are spent.
    """
    import openai

    for attempt in range(retries + 1):
        client, pause = replicas[attempt % len(replicas)], 0.0
        try:
            return await client.chat.completions.create(**request)
        except openai.APIStatusError as error:
            reason = f"{client.base_url}: status {error.status_code}, {_words(error.body)}"
            if error.status_code < 500 and error.status_code not in PASSING:
                raise UserError(f"the request is refused by {reason}") from None
            with contextlib.suppress(ValueError):
                pause = float(error.response.headers.get("retry-after", ""))
        except (openai.APIError, ValueError) as error:  # no connection, no answer in time, no JSON
            reason = f"{client.base_url}: {error}"
        if attempt < retries:
            jitter = random.uniform(0.5, 1.0)  # so that workers do not come back all at once
            pause = max(backoff * 2.0 ** min(attempt, 10) * jitter, pause)
            await asyncio.sleep(min(pause, LONGEST_WAIT))
    raise Unanswered(reason)


def _words(body: object) -> str:
    """What a server says of an error, on one line: OpenAI's "message", FastAPI's "detail"."""
    if isinstance(body, dict):
        body = body.get("message") or body.get("detail") or body
    return " ".join(str(body or "no reason given").split())[:300]


def answer(reply) -> tuple[str, bool]:
    """The text of a reply, "" where there is none, and whether the model ended by itself."""
    choice = next(iter(getattr(reply, "choices", None) or ()), None)
    text = getattr(getattr(choice, "message", None), "content", None)
    finished = getattr(choice, "finish_reason", None) != "length"
    return clean(text) if isinstance(text, str) else "", finished


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
