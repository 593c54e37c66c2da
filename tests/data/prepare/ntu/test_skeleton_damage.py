"""Damaged files give the clip of a simple parser, or a ValueError, within bounds."""

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from skeleton_files import body, sample, solo, write
from test_skeleton import by_lines

from hocslm_jax.data.prepare.ntu.bodies import actors
from hocslm_jax.data.prepare.ntu.skeleton import parse_skeleton

REAL = ("S032C003P106R001A070", "S001C001P001R001A050", "S018C001P008R002A116")
TOKENS = [b"", b"0", b"1", b"2", b"25", b"-1", b"999999999", b"9" * 30, b"1e9", b"1e39", b"NaN"]
TOKENS += [b"inf", b"1.2.3", b"--1", b"0x10", b"1_0", b".", b"-", b"E", b"\xff", b"\0", b"a b"]


@pytest.fixture(scope="module")
def files(shared) -> list[bytes]:
    """Real files cut to a few frames, which they then say they have, and two that are made."""
    return [shortened(sample(shared)[name], 6) for name in REAL] + made()


def made() -> list[bytes]:
    pair = zip(body(1, 14), body(2, 14), strict=True)
    return [solo(3, 5), write([{7: a, 8: b} for a, b in pair] + [{}], "\r\n")]


def shortened(data: bytes, frames: int) -> bytes:
    lines, at = data.splitlines(keepends=True), 1
    for _ in range(frames):
        at += 1 + 27 * int(lines[at])
    return b"%d\n" % frames + b"".join(lines[1:at])


def mutate(data: bytes, seed: int, count: int) -> bytes:
    rng = random.Random(seed)
    for _ in range(count):
        data = rng.choice(MUTATIONS)(rng, data)
    return data


def lines_changed(change):
    def mutation(rng, data):
        lines = data.splitlines(keepends=True)
        if lines:
            change(rng, lines, rng.randrange(len(lines)))
        return b"".join(lines)

    return mutation


def swap_token(rng, lines, at):
    tokens = lines[at].split()
    if tokens:
        tokens[rng.randrange(len(tokens))] = rng.choice(TOKENS)
    lines[at] = b" ".join(tokens) + b"\n"


def flip_byte(rng, data):
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def cut_out(rng, data):
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.choice((1, 2, 30, 10**6)) :]


MUTATIONS = (
    flip_byte,
    cut_out,
    lambda rng, data: data[: rng.randrange(len(data) + 1)],
    lambda rng, data: data + data[: rng.randrange(len(data) + 1)],
    lambda rng, data: data.replace(b" ", rng.choice((b"\t", b"  ", b"", b"\n")), rng.randrange(4)),
    lambda rng, data: data.replace(b"\n", rng.choice((b"\r\n", b"\r", b" \n", b"")), 3),
    lines_changed(swap_token),
    lines_changed(lambda rng, lines, at: lines.pop(at)),
    lines_changed(lambda rng, lines, at: lines.insert(at, rng.choice(lines))),
    lines_changed(lambda rng, lines, at: lines.insert(at, b"1 " * 10**5)),
    lines_changed(lambda rng, lines, at: lines.reverse()),
)


def check(data: bytes) -> None:
    tracemalloc.start()
    try:
        skeleton = parse_skeleton(data)
    except ValueError as error:
        assert str(error).startswith("line ")
        return
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 30 * len(data) + 10**6
    expected = by_lines(data)
    assert list(skeleton.bodies) == list(expected)
    for key, (frames, joints) in expected.items():
        assert skeleton.bodies[key].frames.tolist() == frames
        np.testing.assert_array_equal(skeleton.bodies[key].joints, joints)
    try:
        clip = actors(skeleton)
    except ValueError:
        return
    assert clip.dtype == np.float32 and np.isfinite(clip).all()
    assert 1 <= clip.shape[0] <= skeleton.num_frames and clip.shape[1] in (1, 2)


@settings(max_examples=100, deadline=10_000, suppress_health_check=[HealthCheck.too_slow])
@given(which=st.integers(0, 4), seed=st.integers(0, 2**32), count=st.integers(1, 4))
def test_mutated_real_files(files, which, seed, count):
    check(mutate(files[which], seed, count))


@settings(max_examples=100, deadline=10_000)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 6))
def test_mutated_files(seed, count):
    check(mutate(made()[seed % 2], seed, count))


@settings(max_examples=100, deadline=10_000)
@given(st.one_of(st.binary(max_size=300), st.text("0123 5.-\r\n\tE", max_size=300).map(str.encode)))
def test_rubbish(data):
    check(data)


@pytest.mark.parametrize("which", range(2))
def test_unchanged(which):
    check(made()[which])
