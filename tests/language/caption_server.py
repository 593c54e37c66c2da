"""A small OpenAI-compatible server in this process, and clips to caption."""

import base64
import contextlib
import http.server
import io
import json
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

av = pytest.importorskip("av")
pytest.importorskip("httpx2")

GOOD = "A person is clapping both hands in front of the chest."


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for scheme in ("http", "https", "all"):
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def serve(answer, models=("vlm",)):
    """An OpenAI-compatible server; `answer(request, number)` gives the reply.

    That is a text, (status, body), or what writes to the handler itself.
    """
    log = SimpleNamespace(requests=[], times=[], now=0, most=0, headers=[])
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def send(self, status, body, headers=()):
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": len(data), **dict(headers)}.items():
                self.send_header(name, str(value))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            self.send(
                200, {"object": "list", "data": [{"id": m, "object": "model"} for m in models]}
            )

        def do_POST(self):
            length = int(self.headers["Content-Length"])
            body = self.rfile.read(length)
            if len(body) < length:  # the run stopped and disconnected in mid-request
                return
            request = json.loads(body)
            with lock:
                log.requests.append(request)
                log.times.append(time.monotonic())
                log.headers.append(self.headers)
                number, log.now = len(log.requests), log.now + 1
                log.most = max(log.most, log.now)
            reply = answer(request, number)
            with lock:
                log.now -= 1
            with contextlib.suppress(OSError):
                if callable(reply):
                    reply(self)
                else:
                    self.send(*reply) if isinstance(reply, tuple) else self.send(200, chat(reply))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # a run that disconnects in mid-request
        log.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield log
        server.shutdown()


def chat(text, finish="stop", **more):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    about = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
    return about | {"choices": [choice]} | more


def write_video(path, frames=12, level=40):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(frames):
            grey = np.full((48, 64, 3), (level + 4 * i) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))


def clips(folder, count):
    """A folder of `count` videos; the names of their clips."""
    folder.mkdir(exist_ok=True)
    write_video(folder / "clip00_rgb.avi")
    for number in range(1, count):
        (folder / f"clip{number:02}_rgb.avi").write_bytes((folder / "clip00_rgb.avi").read_bytes())
    return [f"clip{number:02}" for number in range(count)]


def command(tmp_path, url, *more):
    paths = ("--videos", str(tmp_path / "videos"), "--out", str(tmp_path / "out/captions.jsonl"))
    return ["caption", *paths, "--base-url", url, "--backoff", "0.01", *more]


def rows(tmp_path, name="captions.jsonl"):
    path = tmp_path / "out" / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def images(request):
    """The pictures of a request, decoded, and its text."""
    *shown, last = request["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in shown]
    assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
    data = [base64.b64decode(url.partition(",")[2]) for url in urls]
    return [np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")) for jpeg in data], last["text"]
