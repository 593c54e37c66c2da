"""The parser reads valid files, and reports the line of an error."""

import numpy as np
import pytest
from skeleton_files import body, sample, solo, write

from hocslm_jax.data.prepare.ntu.skeleton import Name, parse_name, parse_skeleton


def by_lines(data):
    """The format read naively: {body id: (valid frames, joints)}."""
    lines = iter(data.splitlines())
    bodies, valid = {}, -1
    for _ in range(int(next(lines))):
        count = int(next(lines))
        valid += count > 0
        for _ in range(count):
            frames, joints = bodies.setdefault(next(lines).split()[0].decode(), ([], []))
            frames.append(valid)
            rows = [next(lines).split() for _ in range(int(next(lines)))]
            joints.append([[float(number) for number in row[:3]] for row in rows])
    return {key: (frames, np.float32(joints)) for key, (frames, joints) in bodies.items()}


def check(data):
    skeleton, expected = parse_skeleton(data), by_lines(data)
    assert list(skeleton.bodies) == list(expected)
    for key, (frames, joints) in expected.items():
        assert skeleton.bodies[key].frames.tolist() == frames
        np.testing.assert_array_equal(skeleton.bodies[key].joints, joints)
        assert skeleton.bodies[key].joints.dtype == np.float32
    assert skeleton.num_frames == 1 + max(frames[-1] for frames, _ in expected.values())


def test_real_files(shared):
    files = sample(shared)
    for name in sorted(files)[::10]:
        check(files[name])


def test_bodies_come_and_go():
    a, b = body(1, 6), body(2, 6)
    frames = [{}, {7: a[0]}, {7: a[1], 9: b[0]}, {}, {9: b[1]}, {9: b[2], 7: a[2]}]
    check(write(frames))
    skeleton = parse_skeleton(write(frames))
    assert skeleton.num_frames == 4
    assert skeleton.bodies["9"].frames.tolist() == [1, 2, 3]
    assert skeleton.bodies["7"].frames.tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: data.rstrip(b"\n"),
        lambda data: data.replace(b"\n", b"\r\n").rstrip(),
        lambda data: data + b"\n \n",
        lambda data: data.replace(b"\n", b"\r\n") + b"\r\n",
        lambda data: data.replace(b" ", b"\t"),
        lambda data: data.replace(b" ", b"  ").replace(b"\n", b" \n"),
    ],
)
def test_blanks_do_not_matter(change):
    check(change(solo()))


def replace_line(data, number, line):
    lines = data.split(b"\n")
    lines[number - 1] = line
    return b"\n".join(lines)


def cut(data, lines):
    return b"".join(data.splitlines(keepends=True)[:lines])


JOINT = b"0.1 0.2 0.3 1 2 3 4 5 6 7 8 2"
DAMAGED = {  # the change, the line, a word of the reason
    "empty": (lambda _: b"", 1, "empty"),
    "blank": (lambda _: b" \r\n\n", 1, "empty"),
    "binary": (lambda _: bytes(range(256)), 1, ""),
    "cut in a line": (lambda d: cut(d, 27) + JOINT[:15], 28, "5 tokens"),
    "cut after a line": (lambda d: cut(d, 40), 40, "ends"),
    "short joint line": (lambda d: replace_line(d, 7, JOINT[:-2]), 7, "11 tokens"),
    "long joint line": (lambda d: replace_line(d, 7, JOINT + b" 1"), 7, "13 tokens"),
    "short header": (lambda d: replace_line(d, 3, b"72057594 0"), 3, "2 tokens"),
    "other header": (lambda d: replace_line(d, 3, b"x" + b" 0" * 9), 3, "'x'"),
    "header without id": (lambda d: replace_line(d, 3, b"-1" + b" 0" * 9), 3, "'-1'"),
    "joints": (lambda d: replace_line(d, 4, b"20"), 4, "20 joints"),
    "NaN": (lambda d: replace_line(d, 6, JOINT.replace(b"0.2", b"NaN")), 6, "NaN.* not finite"),
    "inf": (lambda d: replace_line(d, 6, JOINT.replace(b"0.2", b"inf")), 6, "inf.* not finite"),
    "huge": (lambda d: replace_line(d, 6, JOINT.replace(b"0.2", b"1e39")), 6, "not finite"),
    "letter": (lambda d: replace_line(d, 6, JOINT.replace(b"0.2", b"0.x")), 6, "0.x"),
    "dots": (lambda d: replace_line(d, 6, JOINT.replace(b"0.2", b"1.2.3")), 6, "1.2.3"),
    "unused": (lambda d: replace_line(d, 6, JOINT.replace(b"8", b"#")), 6, "'#'"),
    "no frames": (lambda _: b"0\n", 1, "no frame"),
    "no bodies": (lambda _: b"3\n0\n0\n0\n", 1, "no frame"),
    "too many frames": (lambda d: replace_line(d, 1, b"21"), 561, "ends"),
    "absurd frames": (lambda d: replace_line(d, 1, b"999999999"), 561, "ends"),
    "endless frames": (lambda d: replace_line(d, 1, b"9" * 5000), 1, "5000 letters"),
    "negative frames": (lambda d: replace_line(d, 1, b"-3"), 1, "'-3'"),
    "fewer frames": (lambda d: replace_line(d, 1, b"19"), 534, "more lines"),
    "absurd bodies": (lambda d: replace_line(d, 2, b"99999999"), 30, "header"),
    "fraction": (lambda d: replace_line(d, 2, b"1.0"), 2, "'1.0'"),
    "rubbish after": (lambda d: d + b"1 2 3\n", 562, "more lines"),
    "blank line": (lambda d: d.replace(b"\n25\n", b"\n\n25\n", 1), 4, "0 tokens"),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_damage_is_named(case, newline):
    change, line, reason = DAMAGED[case]
    with pytest.raises(ValueError, match=f"^line {line}: .*{reason}"):
        parse_skeleton(change(solo()).replace(b"\n", newline))


def test_names():
    assert parse_name("S018C003P045R002A120") == Name(18, 3, 45, 2, 120)
    for wrong in ("", "S001C001P001R001A00", "S001C001P001R001A0011", "s001c001p001r001a001",
                  "S001C001P001R001A000", "S001C001P001R001A001.x"):  # fmt: skip
        with pytest.raises(ValueError, match="not named"):
            parse_name(wrong)
