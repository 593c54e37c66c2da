"""Rerunning the verb `caption`: existing captions are kept, and missing ones added."""

import json
import signal
import subprocess
import sys
import time

import pytest
from caption_server import GOOD, clips, command, no_proxy, rows, serve  # noqa: F401

from hocslm_jax.__main__ import main


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
def test_a_second_run_captions_the_remaining_clips(tmp_path, capsys, tail):
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
def test_stopped_run_keeps_its_lines_and_resumes(tmp_path, number):
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
        assert "3 written" in out and "resume" in out
    with serve(lambda *_: GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    assert len(server.requests) == 5 and len({row["id"] for row in rows(tmp_path)}) == 8
