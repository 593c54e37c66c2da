"""Frames are cropped to the persons of a clip's skeleton file, in the same number of pixels."""

import io
import tarfile

import numpy as np
import pytest
from caption_server import GOOD, command, images, no_proxy, serve  # noqa: F401
from PIL import Image

from hocslm_jax.__main__ import main
from hocslm_jax.errors import UserError
from hocslm_jax.language.caption.crops import COLOUR, MIN_SIDE, Box, box_of, find_skeletons
from hocslm_jax.language.caption.video import read_frames

av = pytest.importorskip("av")
CLIP = "S001C001P001R001A001"


def skeleton(*frames):
    """A file from {body: colour coordinates [25, 2]} of each frame; bodies are upright in 3D."""
    lines = [str(len(frames))]
    rng = np.random.default_rng(0)
    pose = rng.uniform(-1, 1, (25, 3)) * (0.2, 1, 0.2) + (0, 0, 3)
    for bodies in frames:
        lines.append(str(len(bodies)))
        for key, pixels in bodies.items():
            lines += [f"{key} 0 1 1 1 1 0 0.02 0.05 2", "25"]
            for (x, y, z), (u, v) in zip(pose, pixels, strict=True):
                lines.append(f"{x:.4f} {y:.4f} {z:.4f} 1 2 {u} {v} 0 0 NaN 1 2")
    return ("\n".join(lines) + "\n").encode()


def standing(left, top, right, bottom, seed=1):
    """Colour coordinates [25, 2] that reach to these edges."""
    pixels = np.random.default_rng(seed).uniform((left, top), (right, bottom), (25, 2))
    pixels[0], pixels[1] = (left, top), (right, bottom)
    return pixels.round(1)


def edges(box):
    """left, top, right, bottom in pixels of the colour picture."""
    return np.array(box) * (*COLOUR, *COLOUR)


def test_the_box_holds_the_joints_of_all_frames_with_a_margin():
    frames = [{7: standing(800, 200, 950, 700)}, {7: standing(900, 250, 1100, 800)}]
    np.testing.assert_allclose(edges(box_of(skeleton(*frames))), [740, 140, 1160, 860])


def test_the_box_has_both_persons_and_no_noise():
    one, two = standing(300, 200, 500, 800), standing(700, 300, 900, 900)
    noise = {9: standing(1700, 0, 1900, 100)}  # a body in a single frame
    frames = [{7: one, 8: two} | (noise if number < 3 else {}) for number in range(20)]
    np.testing.assert_allclose(edges(box_of(skeleton(*frames))), [230, 130, 970, 970])


def test_joints_outside_the_picture_are_ignored():
    pixels = standing(800, 200, 1000, 700)
    pixels[5], pixels[6], pixels[7] = (np.nan, np.nan), (-1e9, 400), (900, np.inf)
    np.testing.assert_allclose(edges(box_of(skeleton({7: pixels}))), [750, 150, 1050, 750])


@pytest.mark.parametrize(
    ("joints", "expected"),
    [
        ((900, 500, 910, 510), (905 - MIN_SIDE / 2, 505 - MIN_SIDE / 2)),  # grows
        ((0, 0, 10, 10), (0, 0)),  # and moves into the picture
        ((1910, 1070, 1920, 1080), (1920 - MIN_SIDE, 1080 - MIN_SIDE)),
    ],
)
def test_small_boxes_grow_and_stay_in_the_picture(joints, expected):
    left, top, right, bottom = edges(box_of(skeleton({7: standing(*joints)})))
    np.testing.assert_allclose((left, top), expected)
    np.testing.assert_allclose((right - left, bottom - top), MIN_SIDE)


def test_a_person_that_fills_the_picture_gives_no_crop():
    box = box_of(skeleton({7: standing(0, 0, *COLOUR)}))
    assert box == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (skeleton({}, {}), "no frame holds a body"),
        (skeleton({7: np.full((25, 2), np.nan)}), "no joint is in the picture"),
        (skeleton({7: standing(0, 0, 9, 9)})[:-300], "line"),
        (b"not a skeleton", "line 1"),
    ],
)
def test_files_without_a_person_are_refused(data, reason):
    with pytest.raises(ValueError, match=reason):
        box_of(data)


def write_video(path, width=640, height=360, frames=8):
    """Dark, and bright in the right half of the lower half."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=20)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        shown = np.full((height, width, 3), 40, np.uint8)
        shown[height // 2 :, width // 2 :] = 200
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("size", [128, 320, 640])
def test_a_crop_has_no_more_pixels_than_the_whole_frame(tmp_path, size):
    write_video(tmp_path / "clip.avi")
    box = Box(0.55, 0.55, 0.7, 1.0)  # 96 x 162 pixels of 640 x 360
    frames = read_frames(tmp_path / "clip.avi", 2, size, box)
    for jpeg in frames.jpegs:
        picture = Image.open(io.BytesIO(jpeg)).convert("L")
        width, height = picture.size
        assert width % 2 == height % 2 == 0 and width * height <= size * size * 360 / 640
        assert abs(width / height - 96 / 162) < 0.03
        np.testing.assert_allclose(np.asarray(picture), 200, atol=8)
        assert frames.gain == pytest.approx(height / 162 / (size / 640), rel=0.05)
    assert frames.gain <= 640 / size + 1e-9  # never enlarged
    whole = read_frames(tmp_path / "clip.avi", 2, size)
    assert whole.gain == 1 and Image.open(io.BytesIO(whole.jpegs[0])).width == size


def test_the_real_clip_is_shown_at_over_three_times_the_resolution(shared):
    with tarfile.open(shared / "data/ntu_sample/skeletons.tar.xz") as archive:
        data = next(archive.extractfile(i).read() for i in archive if CLIP in i.name)
    box = box_of(data)
    rows = [line.split() for line in data.splitlines()]
    joints = np.array([row[5:7] for row in rows if len(row) == 12], float) / COLOUR
    assert (joints > box[:2]).all() and (joints < box[2:]).all()
    frames = read_frames(shared / f"data/clips/{CLIP}_rgb.avi", 8, 512, box)
    sizes = {Image.open(io.BytesIO(jpeg)).size for jpeg in frames.jpegs}
    assert frames.gain > 3 and all(width * height <= 512 * 288 for width, height in sizes)


def test_clips_without_a_skeleton_are_shown_whole_and_counted(tmp_path, capsys):
    for name in ("near", "lost", "alone", "torn"):
        (tmp_path / "videos").mkdir(exist_ok=True)
        write_video(tmp_path / f"videos/{name}_rgb.avi")
    (tmp_path / "skeletons/deep").mkdir(parents=True)
    near = skeleton({7: standing(1100, 600, 1300, 1000)})
    (tmp_path / "skeletons/deep/near.skeleton").write_bytes(near)
    (tmp_path / "skeletons/lost.skeleton").write_bytes(skeleton({}))
    (tmp_path / "skeletons/torn.skeleton").write_bytes(near[:-300])
    with serve(lambda *_: GOOD) as server:
        more = ("--skeletons", str(tmp_path / "skeletons"), "--size", "320", "--frames", "1")
        assert main(command(tmp_path, server.url, *more)) == 0
    bright = [images(request)[0][0].mean() > 150 for request in server.requests]
    assert sorted(bright) == [False, False, False, True]
    out, err = capsys.readouterr()
    assert "4 written" in out and "cropped to the joints: 1, at 2.0 times the resolution" in out
    assert "shown whole, without a skeleton: 1 (alone)" in out
    assert "shown whole, with a skeleton that shows nobody: 1 (lost)" in out
    assert "shown whole, with a damaged skeleton: 1 (torn)" in out
    assert "torn.skeleton: line " in err


def test_sources_without_skeletons_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_skeletons(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no \.skeleton files"):
        find_skeletons(tmp_path)
    (tmp_path / "a.skeleton").write_bytes(b"x")
    (tmp_path / "again").mkdir()
    (tmp_path / "again/a.skeleton").write_bytes(b"y")
    with pytest.raises(UserError, match=r"a\.skeleton and again/a\.skeleton are of one clip"):
        find_skeletons(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "a.skeleton", "a.skeleton")
    with pytest.raises(UserError, match="is a tar; unpack it"):
        find_skeletons(tmp_path / "a.tar")
