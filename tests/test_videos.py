"""Frames of videos are upright, of bounded size, and not mirrored."""

import struct

import numpy as np
import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.files import videos
from hocslm_jax.files.videos import is_video, measure_video, pictures

av = pytest.importorskip("av", reason="PyAV is not installed: pip install .[video]")


def write_corner(path, frames=6):
    """A video, 64 by 48, that is white in its upper left quarter."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def turn(path, a, b, c, d):
    """Writes how the camera was held into the header of an .mp4: the matrix of its track."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    values = (a, b, 0, c, d, 0, 0, 0)
    data[place : place + 36] = struct.pack(">8iI", *(v << 16 for v in values), 1 << 30)
    path.write_bytes(data)


def corner(picture):
    """Which quarter of a picture is white: (lower, right)."""
    grey = np.asarray(picture.convert("L"), float)
    height, width = (side // 2 for side in grey.shape)
    quarters = grey[: 2 * height, : 2 * width].reshape(2, height, 2, width).mean(axis=(1, 3))
    assert quarters.max() > 200 and np.sort(quarters.ravel())[2] < 50
    return tuple(int(n) for n in np.unravel_index(quarters.argmax(), (2, 2)))


@pytest.mark.parametrize(
    ("matrix", "size", "expected"),
    [
        ((1, 0, 0, 1), (64, 48), (0, 0)),
        ((0, 1, -1, 0), (48, 64), (0, 1)),  # a quarter clockwise, as phones held upright write
        ((0, -1, 1, 0), (48, 64), (1, 0)),
        ((-1, 0, 0, -1), (64, 48), (1, 1)),
    ],
)
def test_frames_are_turned_as_the_camera_was_held(tmp_path, matrix, size, expected):
    write_corner(tmp_path / "clip.mp4")
    turn(tmp_path / "clip.mp4", *matrix)
    first = next(pictures(tmp_path / "clip.mp4", 640))
    assert first.size == size and corner(first) == expected


def test_frames_are_scaled_left_out_and_mirrored(tmp_path):
    write_corner(tmp_path / "clip.avi", frames=7)
    assert measure_video(tmp_path / "clip.avi") == (7, 20)
    found = list(pictures(tmp_path / "clip.avi", 32, every=3, mirrored=True))
    assert len(found) == 3 and found[0].size == (32, 24) and corner(found[0]) == (0, 1)


def test_names_of_videos():
    assert all(map(is_video, ("a.MP4", "b.mov", "c.d.webm"))) and not is_video("mp4")


def test_without_pyav_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match=r"pip install av"):
        measure_video(tmp_path / "clip.mp4")
    with pytest.raises(UserError, match=r"pip install av"):
        next(videos.pictures(tmp_path / "clip.mp4", 64))


def test_a_video_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        measure_video(tmp_path / "clip.mp4")
