"""The verb `caption` with a small server: requests, files and messages."""

import base64
import importlib.util
import io
import socket
import time

import numpy as np
import pytest
from caption_server import GOOD, chat, clips, command, images, no_proxy, rows, serve, write_video  # noqa: F401
from PIL import Image

from hocslm_jax.__main__ import main
from hocslm_jax.data.captions import read_captions


def test_datasets_read_the_line_of_every_clip(tmp_path, capsys):
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
    assert {clip: [entry.caption for entry in found] for clip, found in read.items()} == {
        clip: [GOOD] for clip in names
    }


def test_requests_have_frames_of_the_whole_clip_in_order(tmp_path):
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


@pytest.mark.parametrize("trouble", [429, 503, "nonsense", "timeout"])
def test_busy_server_is_retried_with_increasing_delays(tmp_path, trouble):
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


def test_the_retry_delay_of_a_server_is_respected(tmp_path):
    clips(tmp_path / "videos", 1)
    busy = (429, {"error": "busy"}, {"Retry-After": "0.5"})
    with serve(lambda _, number: busy if number == 1 else GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    assert np.diff(server.times)[0] >= 0.5


def test_clip_that_fails_all_retries_is_counted(tmp_path, capsys):
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


def test_replicas_share_requests_and_replace_each_other(tmp_path):
    clips(tmp_path / "videos", 8)
    with serve(lambda *_: GOOD) as one, serve(lambda *_: GOOD) as two:
        more = ("--base-url", two.url + "/v1/", "--concurrency", "4")
        assert main(command(tmp_path, one.url, *more)) == 0
    assert len(rows(tmp_path)) == 8 and one.requests and two.requests
    clips(tmp_path / "videos", 12)
    with serve(lambda *_: GOOD) as one, serve(lambda *_: (503, {"error": "starting"})) as two:
        assert main(command(tmp_path, one.url, "--base-url", two.url, "--concurrency", "4")) == 0
    assert len(rows(tmp_path)) == 12 and two.requests


def test_unreachable_servers_stop_the_run_with_one_line(tmp_path, capsys):
    clips(tmp_path / "videos", 20)
    with serve(lambda _, number: GOOD if number < 5 else (502, {"error": "gone"})) as server:
        more = ("--retries", "1", "--concurrency", "2")
        assert main(command(tmp_path, server.url, *more)) == 2
    out, err = capsys.readouterr()
    assert len(rows(tmp_path)) == 4 and "4 written" in out and "resume" in out
    assert err.count("error: no server responds") == 1 and len(server.requests) < 30


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


def test_a_missing_server_gives_one_line(tmp_path, capsys):
    clips(tmp_path / "videos", 3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    assert main(command(tmp_path, f"http://127.0.0.1:{port}")) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and f"no server responds at http://127.0.0.1:{port}/v1" in err
    assert not out and time.monotonic() - started < 10 and not any((tmp_path / "out").iterdir())


def test_model_must_be_named_if_there_are_several(tmp_path, capsys):
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
        (None, "empty"),
        ((200, chat("A person takes the", "length")), "cut off at --max-tokens"),
        ((200, {"choices": []}), "empty"),
    ],
)
def test_rejected_answers_are_requested_again_with_changes(tmp_path, bad, reason):
    clips(tmp_path / "videos", 1)
    with serve(lambda _, number: bad if number == 1 else GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    assert [row["caption"] for row in rows(tmp_path)] == [GOOD]
    rejected = rows(tmp_path, "captions.rejected.jsonl")
    assert [(row["id"], row["reason"]) for row in rejected] == [("clip00", reason)]
    first, second = server.requests
    assert second["temperature"] > first["temperature"] and second["seed"] != first["seed"]


def test_clip_with_only_bad_answers_is_counted_and_retried_later(tmp_path, capsys):
    clips(tmp_path / "videos", 2)
    with serve(lambda *_: "Unfortunately, nobody is seen.") as server:
        assert main(command(tmp_path, server.url, "--attempts", "2")) == 1
        assert "0 written, 0 skipped, 2 rejected, 0 failed" in capsys.readouterr().out
        assert len(server.requests) == 4 and not rows(tmp_path)
        assert main(command(tmp_path, server.url, "--no-check")) == 0
    assert len(rows(tmp_path)) == 2


def test_bad_videos_are_named_and_the_others_captioned(tmp_path, capsys):
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


def test_missing_packages_are_named(tmp_path, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "httpx2" else find(name, *a)
    )
    clips(tmp_path / "videos", 1)
    assert main(command(tmp_path, "http://127.0.0.1:9")) == 2
    assert "pip install av httpx2" in capsys.readouterr().err
