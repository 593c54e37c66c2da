"""`predict --follow`: lines of frames in, lines of windows and segments out."""

import argparse
import io
import json
import os
import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from hocslm_jax.data.prepare.readers.clips import Reading
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, NTU25, Graph
from hocslm_jax.language.describe import Decoding
from hocslm_jax.pose.blazepose import Body
from hocslm_jax.pose.estimators import Pose
from hocslm_jax.predict import follow, live_frames
from hocslm_jax.predict.live_frames import MAX_LINE, parse_frame, parse_frames, read_lines
from hocslm_jax.predict.predictor import Prediction

JOINTS = 4
CHAIN = Graph("chain", ("a", "b", "c", "d"), ((1, 0), (2, 1), (3, 2)), 0)
PERSON = [[0.1 * v, 1.0 + v, 2.0] for v in range(JOINTS)]


class Stub:
    """A model that knows two classes by the sign of x, and describes by the number of frames."""

    classes = ("left", "right")
    graph = CHAIN
    reading = Reading()

    def __init__(self):
        self.members = [SimpleNamespace(feed=SimpleNamespace(frames=16))]

    def predict(self, clip, decoding=None):
        if np.abs(clip).max() > 100:
            raise UserError("too far")
        share = 0.9 if clip[..., 0].mean() < 0 else 0.1
        text = f"{len(clip)} frames" if decoding else None
        both = {"left": share, "right": 1 - share}
        return Prediction(max(both, key=both.get), both, text, len(clip), 1, 1, 1.0, (0, 1))


def person(x):
    return [[x, 0.0 + v, 2.0] for v in range(JOINTS)]


def run(lines, capsys, monkeypatch, decoding=None, **options):
    """(Objects of the standard output, text of the standard error)."""
    data = "".join(line + "\n" for line in lines).encode()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    usual = dict(window=None, hop=None, wait=0.0, top=2, out=None, save_skeleton=None)
    args = argparse.Namespace(**usual | options)
    assert follow.follow(args, Stub(), [], None, decoding, Reading()) == 0
    said = capsys.readouterr()
    return [json.loads(line) for line in said.out.splitlines()], said.err


def test_windows_and_segments_are_told(capsys, monkeypatch):
    lines = [json.dumps([person(-0.2)])] * 60 + [json.dumps([person(0.2)])] * 60
    found, err = run(lines, capsys, monkeypatch)
    parts = [line for line in found if line["kind"] == "segment"]
    assert parts[0]["start"] == 0
    assert [p["class"] for p in parts] == ["left", "right"] and parts[-1]["end"] == 120
    assert abs(parts[0]["end"] - 60) <= 4
    first = found[0]
    assert (first["kind"], first["start"], first["end"], first["class"]) == ("window", 0, 8, "left")
    assert first["probabilities"] == {"left": 0.9, "right": 0.1} and first["latency_ms"] >= 0
    assert "in the median" in err and "skipped" not in err
    assert found.index(parts[0]) < len(found) - 2, "told before the end"


def test_broken_lines_are_named_and_skipped(capsys, monkeypatch):
    good = json.dumps([person(-0.2)])
    bad = ["{", "7", "[[1, 2]]", '{"frame": 3}', '{"frame": -1, "persons": []}', '"é\\ud800"']
    found, err = run([*[good] * 10, *bad, *[good] * 10], capsys, monkeypatch)
    assert err.count("skipped: line") == len(bad)
    assert [line["end"] for line in found if line["kind"] == "segment"] == [20]


def test_refused_window_is_reported(capsys, monkeypatch):
    lines = [json.dumps([person(500.0)])] * 8
    found, err = run(lines, capsys, monkeypatch)
    assert found == [] and "frames 0 to 8: too far" in err


def test_segments_are_described_on_request(capsys, monkeypatch):
    lines = [json.dumps([person(-0.2)])] * 20
    found, _ = run(lines, capsys, monkeypatch, Decoding(8))
    assert found[-1]["description"] == "20 frames"


def test_nothing_comes_of_nothing(capsys, monkeypatch):
    assert run([], capsys, monkeypatch) == ([], "")
    assert run(["[]"] * 40, capsys, monkeypatch) == ([], "")


@pytest.mark.parametrize("options", [{"hop": 40}, {"window": -2}, {"hop": -1}])
def test_windows_that_make_no_sense(options, capsys, monkeypatch):
    with pytest.raises(UserError, match="--window"):
        run([], capsys, monkeypatch, **options)


def test_a_file_that_grows_is_waited_for(tmp_path):
    path = tmp_path / "frames.jsonl"
    path.write_bytes(b"one\ntw")

    def grow():
        time.sleep(0.2)
        with path.open("ab") as file:
            file.write(b"o\nthree")

    thread = threading.Thread(target=grow)
    thread.start()
    with path.open("rb") as file:
        assert list(read_lines(file, wait=1.0)) == [b"one\n", b"two\n", b"three"]
    thread.join()
    with path.open("rb") as file:
        assert list(read_lines(file)) == [b"one\n", b"two\n", b"three"]


def test_a_line_without_end_takes_no_memory():
    reasons, stream = [], io.BytesIO(b"[" * (3 * MAX_LINE) + b"\n" + json.dumps([PERSON]).encode())
    frames = list(parse_frames(read_lines(stream), CHAIN, Reading(), reasons.append))
    assert [number for number, _ in frames] == [0]
    assert reasons == [f"line 1: over {MAX_LINE} bytes"]


def test_frames_have_numbers_that_increase():
    reasons = []
    lines = [json.dumps({"frame": n, "persons": [PERSON]}).encode() for n in (4, 9, 9, 2)]
    frames = parse_frames([*lines, json.dumps([PERSON]).encode()], CHAIN, Reading(), reasons.append)
    assert [number for number, _ in frames] == [4, 9, 10]
    assert reasons == ["line 3: frame 9 comes after frame 9", "line 4: frame 2 comes after frame 9"]


def test_what_a_line_can_hold():
    number, persons = parse_frame(json.dumps([PERSON, PERSON]).encode(), JOINTS)
    assert number is None and persons.shape == (2, JOINTS, 3) and persons.dtype == np.float32
    lost = [[None, 1, 2], [float("nan"), 0, 0], *PERSON[2:]]
    _, persons = parse_frame(json.dumps([lost]).encode(), JOINTS)
    assert not persons[0, :2].any() and persons[0, 2:].all()
    assert parse_frame(b'{"frame": 3, "persons": []}', JOINTS)[1].shape == (0, JOINTS, 3)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"null", b"{}", b'{"persons": 3}', b"[[[1,2]]]", b'[[["a",1,2]]]',
        b"[[[1,2,3]],[[1]]]",
        b"[[[1e30,0,0],[0,0,0],[0,0,0],[0,0,0]]]", b'{"frame": true, "persons": []}',
        b'{"frame": 1.5, "persons": []}', b"[" * 100_000, b"\xff\xfe",
        json.dumps([PERSON] * 11).encode(), json.dumps([[PERSON]]).encode(),
    ],
)  # fmt: skip
def test_what_is_no_frame(line):
    with pytest.raises(ValueError, match=r"."):
        parse_frame(line, JOINTS)


def test_ctrl_c_ends_a_recording_as_its_end_does():
    def endless():
        yield from range(5)
        os.kill(os.getpid(), signal.SIGINT)  # while the next frame is waited for
        time.sleep(30)
        yield 5

    before = signal.getsignal(signal.SIGINT)
    assert list(live_frames.until_stopped(endless())) == [0, 1, 2, 3, 4]
    assert signal.getsignal(signal.SIGINT) is before
    seen = []
    for number in live_frames.until_stopped(range(9)):
        seen.append(number)
        if number == 3:
            os.kill(os.getpid(), signal.SIGINT)  # while a frame is worked on
    assert seen == [0, 1, 2, 3]


def test_frames_of_another_layout_are_converted_and_turned():
    body = np.random.default_rng(0).uniform(0.1, 0.9, size=(33, 3)).tolist()
    lines = [json.dumps(value).encode() for value in ([body, body], [], [[None] * 33])]
    reasons, reading = [], Reading(layout="blazepose33")
    frames = list(parse_frames(lines[:2], NTU25, reading, reasons.append))
    assert [frame.shape for _, frame in frames] == [(2, 25, 3), (0, 33, 3)] and reasons == []
    shoulder = NTU25.joints.index("left shoulder")
    source = np.array(body[GRAPHS["blazepose33"].joints.index("left shoulder")])
    np.testing.assert_allclose(frames[0][1][0, shoulder], source * [-1, -1, 1], rtol=1e-5)


def test_confidence_may_be_given_or_not():
    planar = [[x, y] for x, y, _ in PERSON]
    _, persons = parse_frame(json.dumps([planar]).encode(), JOINTS, "xyc")
    assert persons.shape == (1, JOINTS, 3) and (persons[..., 2] == 1).all()
    sure = [[*point, 0.5] for point in planar]
    assert (parse_frame(json.dumps([sure]).encode(), JOINTS, "xyc")[1][..., 2] == 0.5).all()


def test_single_person_in_a_video_keeps_index_0(monkeypatch):
    joints = np.random.default_rng(0).uniform(0.1, 0.9, size=(33, 3)).astype(np.float32)
    body = Body(1, joints, joints[:, :2], np.ones(33, np.float32))
    monkeypatch.setattr(live_frames, "bodies", lambda *_: (iter([[], [body]]), 30.0))
    pose = Pose(None, "blazepose33", persons=2)
    (_, nobody), (number, frame) = live_frames.video_frames("x.mp4", pose, NTU25, Reading())
    assert nobody.shape == (0, 25, 3) and number == 1 and frame.shape == (2, 25, 3)
    assert not frame[0].any() and frame[1].any()
