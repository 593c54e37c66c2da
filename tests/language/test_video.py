"""A video gives a few frames of the whole clip, or a reason why it cannot be read."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from hocslm_jax.errors import UserError
from hocslm_jax.files.videos import find_videos
from hocslm_jax.language.caption.video import read_frames

av = pytest.importorskip("av")


def write_video(path, frames=40, width=64, height=48, codec="mpeg4"):
    """Grey frames; frame i is 2 i + 40 bright (modulo 256)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 6
        for i in range(frames):
            grey = np.full((height, width, 3), (2 * i + 40) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))


def brightness(jpeg):
    return float(np.asarray(Image.open(io.BytesIO(jpeg)).convert("L")).mean())


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv"])
def test_frames_are_spread_over_the_whole_clip(tmp_path, suffix):
    path = tmp_path / f"clip.{suffix}"
    write_video(path)
    frames = read_frames(path, 4, 512)
    assert frames.indices == (5, 15, 25, 35) and frames.total == 40
    assert frames.fps == pytest.approx(20, rel=0.1)
    shown = [brightness(jpeg) for jpeg in frames.jpegs]
    np.testing.assert_allclose(shown, [2 * i + 40 for i in frames.indices], atol=4)


def test_a_short_clip_gives_all_its_frames(tmp_path):
    write_video(tmp_path / "clip.avi", frames=3)
    frames = read_frames(tmp_path / "clip.avi", 8, 512)
    assert frames.indices == (0, 1, 2) and len(frames.jpegs) == 3


@pytest.mark.parametrize(("size", "expected"), [(32, (32, 24)), (512, (64, 48)), (1, (1, 1))])
def test_frames_are_made_smaller_but_never_larger(tmp_path, size, expected):
    write_video(tmp_path / "clip.avi", frames=3)
    jpegs = read_frames(tmp_path / "clip.avi", 2, size).jpegs
    assert {Image.open(io.BytesIO(jpeg)).size for jpeg in jpegs} == {expected}


def test_the_real_clip(shared):
    path = shared / "data/clips/S001C001P001R001A001_rgb.avi"
    frames = read_frames(path, 8, 512)
    assert frames.total == 103 and frames.fps == 30 and len(frames.jpegs) == 8
    pictures = [np.asarray(Image.open(io.BytesIO(jpeg))).astype(int) for jpeg in frames.jpegs]
    assert all(picture.shape == (288, 512, 3) for picture in pictures)
    changes = [np.abs(a - b).max() for a, b in itertools.pairwise(pictures)]
    assert min(changes) > 40, "somebody moves between any two frames"


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mp4"])
@pytest.mark.parametrize("share", [0.5, 0.75])
def test_a_truncated_video_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"clip.{suffix}"
    write_video(path, frames=120, width=320, height=240)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"cut off|cannot be decoded"):
        read_frames(path, 8, 512)


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty file"), (b"no video " * 999, "cannot be decoded")]
)
def test_files_that_are_not_videos_are_refused(tmp_path, data, reason):
    (tmp_path / "clip.avi").write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        read_frames(tmp_path / "clip.avi", 8, 512)


def test_a_file_with_only_sound_is_refused(tmp_path):
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(ValueError, match="no video stream"):
        read_frames(tmp_path / "clip.mkv", 8, 512)


def test_ids_are_derived_from_file_names(tmp_path):
    names = ("b/S001C001P001R001A002_rgb.avi", "a/S002_rgb.AVI", "wave.mp4", "x.mkv", "x.txt")
    for name in (*names, "._hidden.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    videos = find_videos(tmp_path)
    assert list(videos) == ["S001C001P001R001A002", "S002", "wave", "x"]
    assert videos["S002"] == tmp_path / "a/S002_rgb.AVI" and videos["x"].suffix == ".mkv"
    (tmp_path / "ids.txt").write_text("\ufeffwave\r\nS002 \r\n\r\nabsent\r\n")
    assert list(find_videos(tmp_path, tmp_path / "ids.txt")) == ["S002", "wave"]


def test_invalid_folders_and_lists_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_videos(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no \.avi, \.mp4, \.mkv"):
        find_videos(tmp_path)
    (tmp_path / "a_rgb.avi").touch()
    (tmp_path / "ids.txt").write_text("b\n")
    with pytest.raises(UserError, match=r"none of its ids has a video; ids look like a$"):
        find_videos(tmp_path, tmp_path / "ids.txt")
    with pytest.raises(UserError, match=r"absent\.txt: no such file"):
        find_videos(tmp_path, tmp_path / "absent.txt")
    (tmp_path / "a.mp4").touch()
    with pytest.raises(UserError, match="both have the id a;"):
        find_videos(tmp_path)
