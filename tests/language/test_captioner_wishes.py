"""The verb `caption`: several captions, further fields, tokens, answers rejected before."""

import json
import os

import pytest
from caption_server import GOOD, chat, clips, command, no_proxy, rows, serve  # noqa: F401

from hocslm_jax.__main__ import main
from hocslm_jax.data.captions import read_captions
from hocslm_jax.language.caption.token_costs import Tokens

REFUSAL = "I'm sorry, I cannot say what is done."
ONE = ("--concurrency", "1")


def numbered(_, number):
    return f"A person is clapping for the {number}th time."


def test_several_captions_of_a_clip_differ_and_are_read_together(tmp_path, capsys):
    names = clips(tmp_path / "videos", 2)
    with serve(numbered) as server:
        assert main(command(tmp_path, server.url, *ONE, "--captions", "3")) == 0
    assert "2 written, 0 skipped" in (out := capsys.readouterr().out)
    assert "captions: 6 new ones, up to 3 of a clip" in out
    found = read_captions(tmp_path / "out/captions.jsonl")
    assert {clip: len({c.caption for c in entries}) for clip, entries in found.items()} == {
        name: 3 for name in names
    }
    asked = [(request["temperature"], request["seed"]) for request in server.requests[:3]]
    assert asked == [(0, 0), (0.4, 1), (0.8, 2)]


def test_missing_captions_are_added_to_a_file_of_one_each(tmp_path, capsys):
    clips(tmp_path / "videos", 2)
    with serve(numbered) as server:
        assert main(command(tmp_path, server.url, *ONE)) == 0
        before = (tmp_path / "out/captions.jsonl").read_text()
        assert main(command(tmp_path, server.url, *ONE, "--captions", "2")) == 0
        assert len(server.requests) == 4 and server.requests[2]["seed"] == 1
        assert main(command(tmp_path, server.url, *ONE, "--captions", "2")) == 0
        assert len(server.requests) == 4
    assert (tmp_path / "out/captions.jsonl").read_text().startswith(before)
    assert "0 written, 2 skipped" in capsys.readouterr().out


def test_a_repeated_caption_is_requested_again(tmp_path):
    clips(tmp_path / "videos", 1)
    with serve(lambda _, number: GOOD if number < 4 else numbered(_, number)) as server:
        assert main(command(tmp_path, server.url, "--captions", "2")) == 0
    assert [row["caption"] for row in rows(tmp_path)] == [GOOD, numbered(0, 4)]
    rejected = rows(tmp_path, "captions.rejected.jsonl")
    assert [row["reason"] for row in rejected] == ["the same as another of this clip"] * 2


def test_rejected_requests_are_not_repeated_with_the_same_settings(tmp_path, capsys):
    clips(tmp_path / "videos", 2)
    with serve(lambda *_: REFUSAL) as server:

        def requests(*more):
            before = len(server.requests)
            code = main(command(tmp_path, server.url, "--attempts", "2", *more))
            return len(server.requests) - before, code

        assert requests() == (4, 1)
        capsys.readouterr()
        assert requests() == (0, 0)
        out = capsys.readouterr().out
        assert (
            "0 written, 2 skipped, 0 rejected" in out and "--retry-refused tries them again" in out
        )
        assert requests("--retry-refused") == (4, 1)
        assert [r["seed"] for r in server.requests[-4:]] != [r["seed"] for r in server.requests[:4]]
        assert requests("--prompt", "What?") == (4, 1)
        assert requests("--prompt", "What?") == (0, 0)
        assert requests("--model", "another") == (4, 1)
        assert requests("--frames", "2") == (4, 1)
        assert requests("--request", "top_p=0.9") == (4, 1)
        assert requests("--attempts", "3") == (0, 0)  # four were rejected: two of them again
        assert requests() == (0, 0)


def test_attempts_continue_after_a_stop(tmp_path):
    clips(tmp_path / "videos", 1)
    with serve(lambda _, number: REFUSAL if number < 3 else GOOD) as server:
        assert main(command(tmp_path, server.url, "--attempts", "2")) == 1
        lines = (tmp_path / "out/captions.rejected.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "out/captions.rejected.jsonl").write_text(lines[0])  # as if killed after it
        assert main(command(tmp_path, server.url, "--attempts", "2")) == 0
    assert [request["seed"] for request in server.requests] == [0, 1, 1]


FILTERED = (400, {"error": {"message": "filtered", "code": "content_filter"}})
SILENT = {"choices": [{"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("answer", [FILTERED, (200, SILENT), (200, chat("A", "content_filter"))])
def test_a_declined_clip_is_rejected_and_the_others_captioned(tmp_path, answer, capsys):
    clips(tmp_path / "videos", 2)
    with serve(lambda _, number: answer if number == 1 else GOOD) as server:
        assert main(command(tmp_path, server.url, *ONE, "--attempts", "1")) == 0
    assert "1 written, 0 skipped, 1 rejected" in capsys.readouterr().out
    (row,) = rows(tmp_path, "captions.rejected.jsonl")
    assert row["reason"] == "declined by the server" and row["id"] == "clip00"


def test_further_fields_are_in_every_request(tmp_path):
    clips(tmp_path / "videos", 2)
    fields = ['stop=["\\n"]', "top_p=0.9", 'chat_template_kwargs={"enable_thinking": false}']
    with serve(lambda *_: GOOD) as server:
        more = ("--request", *fields, "--request", "max_completion_tokens=50")
        assert main(command(tmp_path, server.url, *more)) == 0
    for request in server.requests:
        assert request["stop"] == ["\n"] and request["top_p"] == 0.9
        assert request["chat_template_kwargs"] == {"enable_thinking": False}
        assert request["max_completion_tokens"] == 50 and "max_tokens" not in request
        assert request["messages"] and request["model"] == "vlm"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("model=1", "use --model"),
        ("messages=[]", "use --prompt"),
        ("n=2", "use --captions"),
        ("stream=true", "the captioner sets this field"),
        ("top_p", "expected KEY=JSON"),
        ("=1", "expected KEY=JSON"),
        ("stop=end", "double quotes"),
    ],
)
def test_reserved_or_invalid_request_fields_are_refused(tmp_path, capsys, field, message):
    clips(tmp_path / "videos", 1)
    assert main(command(tmp_path, "http://127.0.0.1:9", "--request", field)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err


def test_tokens_are_estimated_then_counted(tmp_path, capsys):
    clips(tmp_path / "videos", 3)
    usage = {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020}
    with serve(lambda *_: (200, chat(GOOD, usage=usage))) as server:
        more = ("--frames", "4", "--size", "512", "--prompt", "x" * 40, "--prices", "1000", "50000")
        assert main(command(tmp_path, server.url, *ONE, *more)) == 0
    lines = capsys.readouterr().out.splitlines()
    # 512 x 288 pixels are 144 tokens of 32 x 32; four of them, and ten tokens of prompt.
    assert lines[0].startswith(
        "about 1,758 prompt and 120 completion tokens, 7.76 by --prices for 3 requests, at 32 x 32"
    )
    counted = "3,000 prompt and 60 completion tokens, 6.00 by --prices"
    assert lines[1] == f"about {counted} for 3 requests, by the first answer"
    assert lines[-1] == f"tokens: {counted}"


def test_an_estimate_sends_no_request(tmp_path, capsys):
    clips(tmp_path / "videos", 3)
    more = ("--estimate", "--captions", "2", "--limit", "2", "--as-video", "--frames", "8")
    assert main(command(tmp_path, "http://127.0.0.1:9", *more)) == 0
    out = capsys.readouterr().out
    assert "for 4 requests" in out and "4 pictures of 144 tokens" in out
    assert not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "usage", [None, [], {}, {"prompt_tokens": "9", "completion_tokens": 1}, {"prompt_tokens": -1}]
)
def test_replies_without_a_token_count_are_reported(usage):
    tokens = Tokens()
    tokens.add(chat(GOOD, usage=usage))
    assert tokens.total() == "tokens: the server does not count them"
    tokens.add(chat(GOOD, usage={"prompt_tokens": 5, "completion_tokens": 2}))
    assert tokens.total() == (
        "tokens: 5 prompt and 2 completion tokens; answers without a count: 1"
    )
    assert Tokens().total() == ""


def test_missing_options_are_named(tmp_path, capsys):
    assert main(["caption", "--out", str(tmp_path / "x.jsonl")]) == 2
    assert "--videos" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["top_p=NaN", "top_p=1e999", 'stop="\\ud800"'])
def test_fields_that_json_cannot_hold_are_refused_before_any_request(tmp_path, capsys, field):
    clips(tmp_path / "videos", 1)
    assert main(command(tmp_path, "http://127.0.0.1:9", "--request", field)) == 2
    assert "expected KEY=JSON" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["--prices -1 2", "--prices 1 nan", "--temperature nan", "--backoff inf"]
)
def test_negative_or_infinite_amounts_are_refused(tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        main(command(tmp_path, "http://127.0.0.1:9", *option.split()))
    assert "is negative or not finite" in capsys.readouterr().err


def test_a_device_or_pipe_is_refused_as_captions_file_and_kept(tmp_path, capsys):
    clips(tmp_path / "videos", 1)
    os.mkfifo(tmp_path / "pipe")
    paths = ("--videos", str(tmp_path / "videos"), "--out", str(tmp_path / "pipe"))
    assert main(["caption", *paths, "--estimate"]) == 2
    assert "is not a plain file" in capsys.readouterr().err
    assert (tmp_path / "pipe").exists()


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("captions.jsonl", {"id": "clip00", "caption": ["A person claps."]}),
        ("captions.rejected.jsonl", {"id": "clip00", "way": ["a"]}),
    ],
)
def test_a_line_that_is_not_a_caption_is_named(tmp_path, capsys, file, line):
    clips(tmp_path / "videos", 1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / file).write_text(json.dumps(line) + "\n")
    assert main(command(tmp_path, "http://127.0.0.1:9")) == 2
    assert f"{file}:1: not a caption" in capsys.readouterr().err


def test_rejected_answers_of_an_older_version_do_not_count(tmp_path):
    clips(tmp_path / "videos", 1)
    (tmp_path / "out").mkdir()
    old = json.dumps({"id": "clip00", "caption": "", "reason": "empty"}) + "\n"
    (tmp_path / "out/captions.rejected.jsonl").write_text(old * 3)
    with serve(lambda *_: GOOD) as server:
        assert main(command(tmp_path, server.url)) == 0
    assert [row["caption"] for row in rows(tmp_path)] == [GOOD]


def test_skeletons_of_other_clips_are_refused_before_any_request(tmp_path, capsys):
    clips(tmp_path / "videos", 1)
    (tmp_path / "others").mkdir()
    (tmp_path / "others/S001C001P001R001A001.skeleton").write_text("1\n")
    more = ("--skeletons", str(tmp_path / "others"))
    assert main(command(tmp_path, "http://127.0.0.1:9", *more)) == 2
    assert "none of its files belongs to a video" in capsys.readouterr().err
