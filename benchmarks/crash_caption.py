"""The captioning run that benchmarks.crash_campaign kills, with a local server.

The server delays each answer, so that a run can be killed between two clips.
"""

import argparse
import contextlib
import http.server
import json
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from benchmarks.crash_run import Kill, schedule
from hocslm_jax.language.caption import command as captioning

CLIPS, ANSWER_S = 12, 0.03
SENTENCE = "A person raises both arms above the head and lowers them again."


def write_videos(folder: Path) -> None:
    """Writes short grey videos for `caption --videos`."""
    folder.mkdir(parents=True)
    for number in range(CLIPS):
        with av.open(str(folder / f"clip{number:02}_rgb.avi"), "w") as container:
            stream = container.add_stream("mpeg4", rate=20)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for shade in range(40, 80, 5):
                grey = np.full((48, 64, 3), shade, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode(None))


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": "vlm", "object": "model"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(ANSWER_S)
        message = {"role": "assistant", "content": SENTENCE}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send({"id": "1", "object": "chat.completion", "choices": [choice]})

    def _send(self, value: dict) -> None:
        body = json.dumps(value).encode()
        with contextlib.suppress(OSError):  # the client was killed
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def serve(ready) -> None:
    """Runs an OpenAI-compatible server until its process ends; sends its address to `ready`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.handle_error = lambda *_: None  # a client that was killed
        ready.put(f"http://127.0.0.1:{server.server_address[1]}")
        server.serve_forever()


def caption(videos: Path, out: Path, url: str, kill: Kill | None = None) -> int:
    """`python -m hocslm_jax caption`."""
    schedule(kill)
    parser = argparse.ArgumentParser()
    captioning.add_arguments(parser)
    options = ["--videos", str(videos), "--out", str(out), "--base-url", url, "--backoff", "0.01"]
    return captioning.run(parser.parse_args([*options, "--concurrency", "2"])) or 0


def read_lines(out: Path) -> list[str]:
    """The complete lines of a captions file; none if the file does not exist yet."""
    if not out.exists():
        return []
    return [line for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]


def differences(out: Path, kept: list[str]) -> Iterator[str]:
    """Faults in the captions after the last run; `kept` existed after a kill."""
    lines = read_lines(out)
    if lines[: len(kept)] != kept:
        yield "lost: captions that were written before the kill"
    rows = [json.loads(line) for line in lines]
    if sorted(row["id"] for row in rows) != [f"clip{number:02}" for number in range(CLIPS)]:
        yield f"wrong: {len(rows)} captions of {CLIPS} clips"
    if any(row["caption"] != SENTENCE for row in rows):
        yield "wrong: another sentence than the server's"
