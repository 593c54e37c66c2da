"""The verb `caption` against a small server in this process: what it asks, keeps and resumes."""

import base64
import contextlib
import http.server
import importlib.util
import io
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hocslm_jax.__main__ import main
from hocslm_jax.data.captions import read_captions

av = pytest.importorskip("av")
pytest.importorskip("openai")

GOOD = "A person is clapping both hands in front of the chest."


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@contextlib.contextmanager
def serve(answer, models=("vlm",)):
    """An OpenAI-compatible server; `answer(request, number)` gives text, or (status, body)."""
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
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                log.requests.append(request)
                log.times.append(time.monotonic())
                log.headers.append(self.headers)
                number, log.now = len(log.requests), log.now + 1
                log.most = max(log.most, log.now)
            reply = answer(request, number)
            with lock:
                log.now -= 1
            with contextlib.suppress(ConnectionError):
                self.send(*reply) if isinstance(reply, tuple) else self.send(200, chat(reply))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        log.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield log
        server.shutdown()


def chat(text, finish="stop"):
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


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


def test_every_clip_gets_a_line_that_datasets_read(tmp_path, capsys):
    names = clips(tmp_path / "videos", 5)
    with serve(lambda *_: f' "{GOOD}" ') as server:
        assert main(command(tmp_path, server.url)) == 0
    assert "5 written, 0 skipped, 0 rejected, 0 failed" in capsys.readouterr().out
    assert sorted(row["id"] for row in rows(tmp_path)) == names
    for row in rows(tmp_path):
        assert list(row) == ["id", "caption", "model", "prompt", "time"]
        assert row["caption"] == GOOD and row["model"] == "vlm" and "T" in row["time"]
    assert not (tmp_path / "out/captions.rejected.jsonl").exists()
    read = read_captions(tmp_path / "out/captions.jsonl")
    assert {clip: [entry.caption for entry in entries] for clip, entries in read.items()} == {
        clip: [GOOD] for clip in names
    }


def test_the_model_is_shown_frames_of_the_whole_clip_in_order(tmp_path):
    clips(tmp_path / "videos", 1)
    with serve(lambda *_: GOOD) as server:
        more = ("--frames", "3", "--size", "32", "--prompt", "What?", "--model", "big")
        assert main(command(tmp_path, server.url, *more)) == 0
    request = server.requests[0]
    pictures, prompt = images(request)
    assert prompt == "What?" and request["model"] == "big" and request["temperature"] == 0
    assert [picture.shape for picture in pictures] == [(24, 32)] * 3
    np.testing.assert_allclose([p.mean() for p in pictures], [48, 64, 80], atol=4)


def test_as_video_sends_the_same_frames_with_their_times(tmp_path):
    clips(tmp_path / "videos", 1)
    with serve(lambda *_: GOOD) as server:
        assert main(command(tmp_path, server.url, "--as-video", "--frames", "3")) == 0
    request = server.requests[0]
    kind, _, data = request["messages"][0]["content"][0]["video_url"]["url"].partition(",")
    assert kind == "data:video/jpeg;base64"
    pictures = [Image.open(io.BytesIO(base64.b64decode(part))) for part in data.split(",")]
    assert [picture.size for picture in pictures] == [(64, 48)] * 3
    times = request["media_io_kwargs"]["video"]
    assert times["frames_indices"] == [2, 6, 10] and times["total_num_frames"] == 12
    assert times["fps"] == 20 and times["duration"] == pytest.approx(0.6)


def test_requests_in_flight_are_bounded_and_overlap(tmp_path):
    clips(tmp_path / "videos", 12)

    def slow(*_):
        time.sleep(0.2)
        return GOOD

    with serve(slow) as server:
        assert main(command(tmp_path, server.url, "--concurrency", "3")) == 0
    assert len(rows(tmp_path)) == 12 and server.most == 3


@pytest.mark.parametrize("trouble", [429, 500, 503, 408, "nonsense", "timeout"])
def test_a_busy_server_is_asked_again_after_growing_pauses(tmp_path, trouble):
    clips(tmp_path / "videos", 1)

    def answer(_, number):
        if number > 3:
            return GOOD
        if trouble == "timeout":
            time.sleep(0.9)
            return GOOD
        return (200, b"{ no json") if trouble == "nonsense" else (trouble, {"error": "busy"})

    with serve(answer) as server:
        more = ("--backoff", "0.1", "--timeout", "0.6" if trouble == "timeout" else "20")
        assert main(command(tmp_path, server.url, *more)) == 0
    assert len(server.requests) == 4 and len(rows(tmp_path)) == 1
    first, _, third = np.diff(server.times)
    assert first > 0.05 and third > first


def test_the_pause_that_a_server_asks_for_is_kept(tmp_path):
    clips(tmp_path / "videos", 1)
    busy = (429, {"error": "busy"}, {"Retry-After": "0.5"})
    with serve(lambda _, number: busy if number == 1 else GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    assert np.diff(server.times)[0] >= 0.5


def test_a_clip_that_no_retry_helps_is_counted_and_the_rest_goes_on(tmp_path, capsys):
    names = clips(tmp_path / "videos", 4)
    write_video(tmp_path / "videos/clip01_rgb.avi", level=150)

    def answer(request, _):
        bright = images(request)[0][0].mean() > 120
        return (500, {"error": "out of memory"}) if bright else GOOD

    with serve(answer) as server:
        more = ("--retries", "2", "--concurrency", "1")
        assert main(command(tmp_path, server.url, *more)) == 0
        out, err = capsys.readouterr()
        assert "3 written, 0 skipped, 0 rejected, 1 failed" in out and "clip01: " in err
        assert len(server.requests) == 6
    assert [row["id"] for row in rows(tmp_path)] == [names[0], *names[2:]]


def test_replicas_share_the_work_and_stand_in_for_each_other(tmp_path):
    clips(tmp_path / "videos", 8)
    with serve(lambda *_: GOOD) as one, serve(lambda *_: GOOD) as two:
        more = ("--base-url", two.url + "/v1/", "--concurrency", "4")
        assert main(command(tmp_path, one.url, *more)) == 0
    assert len(rows(tmp_path)) == 8 and one.requests and two.requests
    clips(tmp_path / "videos", 12)
    with serve(lambda *_: GOOD) as one, serve(lambda *_: (503, {"error": "starting"})) as two:
        assert main(command(tmp_path, one.url, "--base-url", two.url, "--concurrency", "4")) == 0
    assert len(rows(tmp_path)) == 12 and two.requests


def test_servers_that_went_away_stop_the_run_with_one_line(tmp_path, capsys):
    clips(tmp_path / "videos", 20)
    with serve(lambda _, number: GOOD if number < 5 else (502, {"error": "gone"})) as server:
        more = ("--retries", "1", "--concurrency", "2")
        assert main(command(tmp_path, server.url, *more)) == 2
    out, err = capsys.readouterr()
    assert len(rows(tmp_path)) == 4 and "4 written" in out and "the same command goes on" in out
    assert err.count("error: the servers have gone") == 1 and len(server.requests) < 30


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, {"error": {"message": "at most 4 images", "code": 400}}, "at most 4 images"),
        (422, {"detail": "Unexpected\nfields"}, "Unexpected fields"),
        (404, {"error": "no model vlm"}, "no model vlm"),
        (401, b"bad key", "bad key"),
        (413, b"", "413"),
    ],
)
def test_a_refused_request_stops_with_one_line(tmp_path, capsys, status, body, message):
    clips(tmp_path / "videos", 9)
    with serve(lambda *_: (status, body)) as server:
        assert main(command(tmp_path, server.url, "--concurrency", "2")) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{server.url}/v1" in err and f"{status}" in err
    assert message in err and len(server.requests) <= 2 and not rows(tmp_path)


def test_no_server_is_said_in_one_line(tmp_path, capsys):
    clips(tmp_path / "videos", 3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    assert main(command(tmp_path, f"http://127.0.0.1:{port}")) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and f"no server answers at http://127.0.0.1:{port}/v1" in err
    assert not out and time.monotonic() - started < 10 and not any((tmp_path / "out").iterdir())


def test_the_model_must_be_named_where_there_are_several(tmp_path, capsys):
    clips(tmp_path / "videos", 1)
    with serve(lambda *_: GOOD, models=("one", "two")) as server:
        assert main(command(tmp_path, server.url)) == 2
        assert "--model (one, two)" in capsys.readouterr().err
        assert main(command(tmp_path, server.url, "--model", "two")) == 0
    assert rows(tmp_path)[0]["model"] == "two"


def test_the_key_comes_from_the_environment(tmp_path, monkeypatch):
    clips(tmp_path / "videos", 1)
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serve(lambda *_: GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    assert server.headers[0]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("I'm sorry, but I can't see who walks there.", "refusal"),
        ("A man is standing in a room.", "no verb of motion or action"),
        ("", "empty"),
        (None, "empty"),
        ((200, chat("A person takes the", "length")), "cut off at the limit of tokens"),
        ((200, {"choices": []}), "empty"),
    ],
)
def test_what_is_no_caption_is_asked_again_differently(tmp_path, bad, reason):
    clips(tmp_path / "videos", 1)
    with serve(lambda _, number: bad if number == 1 else GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    assert [row["caption"] for row in rows(tmp_path)] == [GOOD]
    rejected = rows(tmp_path, "captions.rejected.jsonl")
    assert [(row["id"], row["reason"]) for row in rejected] == [("clip00", reason)]
    first, second = server.requests
    assert second["temperature"] > first["temperature"] and second["seed"] != first["seed"]


def test_a_clip_whose_every_answer_is_bad_is_counted_and_asked_again_later(tmp_path, capsys):
    clips(tmp_path / "videos", 2)
    with serve(lambda *_: "A man is standing in a room.") as server:
        assert main(command(tmp_path, server.url, "--attempts", "2")) == 1
        assert "0 written, 0 skipped, 2 rejected, 0 failed" in capsys.readouterr().out
        assert len(server.requests) == 4 and not rows(tmp_path)
        assert main(command(tmp_path, server.url, "--no-check")) == 0
    assert len(rows(tmp_path)) == 2


def test_bad_videos_are_named_and_the_rest_goes_on(tmp_path, capsys):
    names = clips(tmp_path / "videos", 5)
    write_video(tmp_path / "videos/clip02_rgb.avi", frames=200)
    whole = (tmp_path / "videos/clip02_rgb.avi").read_bytes()
    (tmp_path / "videos/clip01_rgb.avi").write_bytes(b"")
    (tmp_path / "videos/clip02_rgb.avi").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "videos/clip03_rgb.avi").write_bytes(b"x" * 5000)
    with serve(lambda *_: GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    out, err = capsys.readouterr()
    assert "2 written, 0 skipped, 0 rejected, 3 failed" in out
    for number, reason in ((1, "empty file"), (2, "cut off"), (3, "cannot be decoded")):
        assert f"clip0{number}_rgb.avi: {reason}" in err
    assert sorted(row["id"] for row in rows(tmp_path)) == [names[0], names[4]]


def test_limit_and_ids_choose(tmp_path):
    clips(tmp_path / "videos", 6)
    (tmp_path / "ids.txt").write_text("clip05\nclip01\nclip03\n")
    with serve(lambda *_: GOOD) as server:
        more = ("--ids", str(tmp_path / "ids.txt"), "--limit", "2")
        assert main(command(tmp_path, server.url, *more)) == 0
        assert sorted(row["id"] for row in rows(tmp_path)) == ["clip01", "clip03"]
        assert main(command(tmp_path, server.url, *more)) == 0
        assert sorted(row["id"] for row in rows(tmp_path)) == ["clip01", "clip03", "clip05"]


@pytest.mark.parametrize("tail", ["", '{"id": "clip02", "capt', '{"id": "clip02"}'])
def test_a_second_run_does_what_is_left(tmp_path, capsys, tail):
    clips(tmp_path / "videos", 4)
    done = [{"id": f"clip0{i}", "caption": "kept", "model": "", "prompt": ""} for i in (0, 3)]
    (tmp_path / "out").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in done)
    (tmp_path / "out/captions.jsonl").write_text(lines + tail)
    whole = tail.endswith("}")
    with serve(lambda *_: GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
        assert f"{2 - whole} written, {2 + whole} skipped" in capsys.readouterr().out
        found = rows(tmp_path)
        assert found[:2] == done and sorted(r["id"] for r in found) == [
            f"clip0{i}" for i in range(4)
        ]
    assert main(command(tmp_path, "http://127.0.0.1:9")) == 0, "nothing to do needs no server"
    assert "0 written, 4 skipped" in capsys.readouterr().out


def test_a_damaged_line_in_the_middle_is_not_touched(tmp_path, capsys):
    clips(tmp_path / "videos", 1)
    (tmp_path / "out").mkdir()
    text = '{"id": "clip00", "caption": "a"}\n{"id": "cl\n{"id": "clip01"}\n'
    (tmp_path / "out/captions.jsonl").write_text(text)
    assert main(command(tmp_path, "http://127.0.0.1:9")) == 2
    assert "captions.jsonl:2: not a caption" in capsys.readouterr().err
    assert (tmp_path / "out/captions.jsonl").read_text() == text


# Ctrl-C as at a terminal: what a shell starts in the background ignores it.
WITH_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from hocslm_jax.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_keeps_its_lines_and_goes_on(tmp_path, number):
    clips(tmp_path / "videos", 8)

    def answer(_, count):
        time.sleep(0.01 if count < 4 else 2)
        return GOOD

    with serve(answer) as server:
        arguments = [sys.executable, "-c", WITH_CTRL_C, *command(tmp_path, server.url)]
        arguments += ["--concurrency", "1", "--retries", "0"]
        run = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while len(rows(tmp_path)) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        # A second run must not write to the same file meanwhile.
        second = main(command(tmp_path, server.url))
        run.send_signal(number)
        out, err = run.communicate(timeout=20)
    assert second == 2 and len(rows(tmp_path)) == 3
    if number == signal.SIGINT:
        assert run.returncode == 130 and "Traceback" not in err
        assert "3 written" in out and "the same command goes on" in out
    with serve(lambda *_: GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    assert len(server.requests) == 5 and len({row["id"] for row in rows(tmp_path)}) == 8


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--base-url", "localhost:8000"), "not an address like http"),
        (("--videos", "absent"), "no such folder"),
    ],
)
def test_arguments_that_cannot_be_right(tmp_path, capsys, more, message):
    clips(tmp_path / "videos", 1)
    assert main(command(tmp_path, "http://127.0.0.1:9", *more)) == 2
    assert message in capsys.readouterr().err


def test_missing_packages_are_named(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "openai" else find(name, *a)
    )
    clips(tmp_path / "videos", 1)
    assert main(command(tmp_path, "http://127.0.0.1:9")) == 2
    assert "pip install av openai" in capsys.readouterr().err
