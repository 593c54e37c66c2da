"""The verb `caption` with malicious or badly broken servers."""

import gzip
import time

import pytest
from caption_server import GOOD, clips, command, no_proxy, rows, serve  # noqa: F401

from hocslm_jax.__main__ import main
from hocslm_jax.language.caption.answers import MAX_CHARACTERS

HASTE = ("--retries", "0", "--concurrency", "1")


def drip(status):
    """A reply of a megabyte, a byte at a time."""

    def write(handler):
        handler.send_response(status)
        handler.send_header("Content-Length", str(10**6))
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.1)

    return write


@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_that_never_ends_has_a_deadline(tmp_path, capsys, status):
    clips(tmp_path / "videos", 1)
    with serve(lambda *_: drip(status)) as server:
        started = time.monotonic()
        assert main(command(tmp_path, server.url, *HASTE, "--timeout", "1")) == 1
        assert time.monotonic() - started < 6
    out, err = capsys.readouterr()
    assert "1 failed" in out and "clip00: " in err and "in time" in err


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("status", [200, 500])
def test_an_oversized_reply_is_not_kept(tmp_path, capsys, status, packed):
    clips(tmp_path / "videos", 1)
    body = gzip.compress(bytes(50 << 20)) if packed else bytes(50 << 20)
    flood = (status, body, {"Content-Encoding": "gzip"} if packed else {})
    with serve(lambda *_: flood) as server:
        assert main(command(tmp_path, server.url, *HASTE)) == 1
    assert ("over 4194304 bytes" if status == 200 else "status 500") in capsys.readouterr().err


REPLIES = {
    "choices": {"choices": 5},
    "choice": {"choices": [5]},
    "message": {"choices": [{"message": 5}]},
    "content": {"choices": [{"message": {"content": [1, {"a": 2}]}}]},
    "list": [1, 2],
    "null": None,
    "deep": b'{"choices": ' + b"[" * 100_000,
    "long number": b'{"choices": ' + b"9" * 10_000 + b"}",
    "bytes": b"\xff\xfe\x00",
    "empty": b"",
}


@pytest.mark.parametrize("kind", REPLIES)
def test_a_malformed_reply_fails_only_its_clip(tmp_path, capsys, kind):
    names = clips(tmp_path / "videos", 3)
    with serve(lambda _, number: GOOD if number != 2 else (200, REPLIES[kind])) as server:
        assert main(command(tmp_path, server.url, *HASTE, "--attempts", "1")) == 0
    assert [row["id"] for row in rows(tmp_path)] == [names[0], names[2]]
    assert "2 written" in capsys.readouterr().out


@pytest.mark.parametrize("more", [(), ("--no-check",)])
def test_captions_are_bounded_and_without_control_characters(tmp_path, more):
    clips(tmp_path / "videos", 2)
    long = "A person walks. " * 100_000
    escapes = "A person\x1b[2J walks\x00 to\u202e the\x9b door."
    with serve(lambda _, number: long if number == 1 else escapes) as server:
        main(command(tmp_path, server.url, *HASTE, "--attempts", "1", *more))
    found = rows(tmp_path) + rows(tmp_path, "captions.rejected.jsonl")
    assert len(found) == 2 and max(len(row["caption"]) for row in found) <= MAX_CHARACTERS
    assert all(row["caption"].isprintable() for row in found)


KEY = "sk-verysecret123"


@pytest.mark.parametrize("status", [400, 500])
def test_no_secret_is_printed(tmp_path, capsys, monkeypatch, status):
    clips(tmp_path / "videos", 1)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    said = {"error": f"{KEY} pass%77ord passw0rd at http://anna:passw0rd@x?api_key=querysecret"}
    with serve(lambda *_: (status, said)) as server:
        url = server.url.replace("//", "//anna:passw0rd@") + "?api_key=querysecret"
        assert main(command(tmp_path, url, *HASTE)) in (1, 2)
        assert len(server.requests) == 1
    text = "".join(capsys.readouterr())
    assert f"status {status}" in text and "***" in text
    for secret in (KEY, "passw0rd", "querysecret", "anna"):
        assert secret not in text


@pytest.mark.parametrize("url", ["ftp://anna:passw0rd@x/?k=secret", "http://anna:passw0rd@x:port"])
def test_no_secret_of_an_invalid_address_is_printed(tmp_path, capsys, url):
    clips(tmp_path / "videos", 1)
    assert main(command(tmp_path, url)) == 2
    text = "".join(capsys.readouterr())
    assert "not an address" in text and "passw0rd" not in text and "secret" not in text


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_frames_do_not_follow_a_redirect(tmp_path, capsys, status):
    clips(tmp_path / "videos", 1)
    with serve(lambda *_: GOOD) as thief:
        away = {"Location": f"{thief.url}/v1/chat/completions"}
        with serve(lambda *_: (status, b"", away)) as server:
            assert main(command(tmp_path, server.url, *HASTE)) == 2
        assert not thief.requests and not rows(tmp_path)
    assert "redirects to another address" in capsys.readouterr().err


def test_a_link_out_of_the_folder_is_refused(tmp_path, capsys):
    clips(tmp_path / "videos", 1)
    clips(tmp_path / "private", 1)
    (tmp_path / "videos/x.avi").symlink_to(tmp_path / "private/clip00_rgb.avi")
    with serve(lambda *_: GOOD) as server:
        assert main(command(tmp_path, server.url)) == 2
        assert not server.requests
    assert "is a link out of" in capsys.readouterr().err
    (tmp_path / "videos/x.avi").unlink()
    (tmp_path / "videos/x.avi").symlink_to("clip00_rgb.avi")  # within it
    with serve(lambda *_: GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    assert len(rows(tmp_path)) == 2
