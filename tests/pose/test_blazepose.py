"""People are detected, tracked, lost and found again, with the real models on a real video."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from hocslm_jax.errors import UserError
from hocslm_jax.files.videos import pictures
from hocslm_jax.pose import blazepose, estimators
from hocslm_jax.pose.blazepose import Landmarks, find_models, track
from hocslm_jax.pose.estimators import Pose, assemble, estimate, open_pose
from hocslm_jax.pose.regions import Region

FRAMES = [Image.new("RGB", (640, 480))] * 40


def scripted(where):
    """(look, measure, calls of look); `where(frame)` gives the x of every person in a frame."""
    state = {"frame": -1, "looks": []}

    def look(image):
        state["looks"].append(state["frame"])
        return [Region(x, 200, 100, 0) for x in where(state["frame"])]

    def measure(image, region):
        near = [x for x in where(state["frame"]) if abs(x - region.x) < 30]
        x = near[0] if near else region.x
        world = np.zeros((33, 3)) + np.linspace(-0.3, 0.3, 33)[:, None]
        pixels = np.stack([x + 100 * world[:, 0], 200 + 100 * world[:, 1]], axis=1)
        score = 1.0 if near else 0.1
        return Landmarks(world, pixels, np.ones(33), score, Region(x, 200, 100, 0))

    def frames():
        for number, image in enumerate(FRAMES):
            state["frame"] = number
            yield image

    return frames(), look, measure, state["looks"]


def tracks(where, persons):
    frames, look, measure, looks = scripted(where)
    found = list(track(frames, look, measure, persons))
    return [[body.track for body in bodies] for bodies in found], looks


def test_a_tracked_person_is_not_detected_again():
    found, looks = tracks(lambda t: [100 + t], 1)
    assert found == [[0]] * 40 and looks == [0]


def test_lost_person_is_searched_until_found():
    found, looks = tracks(lambda t: [100] if not 10 <= t < 14 else [], 1)
    assert found == [[0]] * 10 + [[]] * 4 + [[0]] * 26
    assert looks == [0, 11, 12, 13, 14]


def test_a_second_person_is_found_and_both_keep_their_numbers():
    both = lambda t: [100] if t < 5 else [300] if 20 <= t < 24 else [100, 300]  # noqa: E731
    found, _ = tracks(both, 2)
    assert found[4] == [0] and found[16] == [0, 1] and found[21] == [1] and found[39] == [0, 1]


def test_one_person_never_has_two_numbers():
    meeting = lambda t: [100, 300 - 10 * min(t, 20)]  # noqa: E731
    found, _ = tracks(meeting, 2)
    assert found[0] == [0, 1] and found[25] == [0]


def test_at_most_the_requested_number_of_people_is_tracked():
    assert tracks(lambda t: [100, 300, 500], 1)[0] == [[0]] * 40


def test_arrays_leave_out_short_tracks():
    frames, look, measure, _ = scripted(lambda t: [100] if t < 30 else [100, 300])
    joints, pixels, sure = assemble(list(track(frames, look, measure, 2)))
    assert joints.shape == (40, 2, 33, 3) and sure.shape == pixels.shape[:3] == (40, 2, 33)
    assert np.isnan(joints[:30, 1]).all() and not np.isnan(joints[30:]).any()
    frames, look, measure, _ = scripted(lambda t: [100] if t < 35 else [100, 300])
    joints, *_ = assemble(list(track(frames, look, measure, 2)))
    assert joints.shape[1] == 1, "somebody in 5 of 40 frames only passes by"
    with pytest.raises(ValueError, match="no person"):
        assemble([[], []])


def test_missing_models_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"npm pack @mediapipe/pose.*--pose-model"):
        find_models(tmp_path, "full")
    inside = tmp_path / "node_modules/@mediapipe/pose"
    inside.mkdir(parents=True)
    for name in (blazepose.DETECTOR[1], "pose_landmark_full.tflite"):
        (inside / name).touch()
    assert find_models(tmp_path, "full")[0].parent == inside
    with pytest.raises(UserError, match=r"no pose_landmark_lite\.tflite"):
        find_models(tmp_path, "lite")


def test_files_that_are_not_models_are_refused(tmp_path):
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    for name in (blazepose.DETECTOR[0], "pose_landmark_full.tflite"):
        (tmp_path / name).write_bytes(b"no model")
    with pytest.raises(UserError, match="is not a model that LiteRT can read"):
        open_pose(tmp_path)


@pytest.mark.parametrize(("rate", "expected"), [(25, 30), (60, 15), (120, 8)])
def test_fast_videos_are_subsampled(monkeypatch, rate, expected):
    monkeypatch.setattr(estimators, "measure_video", lambda path: (30, float(rate)))
    monkeypatch.setattr(
        estimators, "pictures", lambda path, longest, every, mirrored: FRAMES[:30][::every]
    )
    frames, fps = estimators.bodies("x.mp4", Pose(lambda images, persons: images, "blazepose33"))
    assert len(list(frames)) == expected and fps <= 30


def test_a_truncated_video_gives_no_skeleton(monkeypatch):
    monkeypatch.setattr(estimators, "measure_video", lambda path: (100, 30.0))
    monkeypatch.setattr(estimators, "pictures", lambda *_: FRAMES[:30])
    frames, _ = estimators.bodies("x.mp4", Pose(lambda images, persons: images, "blazepose33"))
    with pytest.raises(ValueError, match="cut off: 30 of 100"):
        list(frames)


@pytest.fixture(scope="module")
def models():
    """The folder of the real models; HOCSLM_POSE_MODEL names it."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install .[video]")
    pytest.importorskip("av", reason="PyAV is not installed: pip install .[video]")
    folder = Path(os.environ.get("HOCSLM_POSE_MODEL", "package"))
    if not (folder / "pose_landmark_full.tflite").is_file():
        pytest.skip(f"no pose models in {folder}; HOCSLM_POSE_MODEL names the npm package's folder")
    return folder


@pytest.fixture(scope="module")
def video(shared):
    return shared / "data/clips/S001C001P001R001A001_rgb.avi"


def test_a_real_video_against_its_depth_sensor(models, video, shared, tmp_path):
    """NTU's videos are mirror images; the sensor's left hand was lost, so it is left out."""
    import tarfile

    from benchmarks.pose_error import errors, in_ntu
    from hocslm_jax.graph import GRAPHS, NTU25
    from hocslm_jax.predict.clip_files import load_clip

    with tarfile.open(shared / "data/ntu_sample/skeletons.tar.xz") as archive:
        member = next(m for m in archive if m.name.endswith("S001C001P001R001A001.skeleton"))
        (tmp_path / "measured.skeleton").write_bytes(archive.extractfile(member).read())
    measured = load_clip(tmp_path / "measured.skeleton")
    poses = estimate(video, open_pose(models, mirrored=True))
    assert poses.joints.shape == (103, 1, 33, 3) and poses.fps == 30
    assert not np.isnan(poses.joints).any() and 0 <= poses.confidence.min() <= 1
    off = errors(in_ntu(poses.joints, GRAPHS[poses.layout])[:, 0], measured[:, 0]).mean(axis=0)
    means = dict(zip(NTU25.joints, off, strict=True))
    assert off.mean() < 13
    assert max(means[f"right {joint}"] for joint in ("elbow", "wrist", "knee", "ankle")) < 14


def test_two_people_and_lying_people(models, video):
    first = ImageOps.mirror(next(pictures(video, 1280)))
    person = first.crop((440, 100, 760, 600))
    pair = Image.new("RGB", (960, 500), "white")
    pair.paste(person, (60, 0))
    pair.paste(person, (580, 0))
    follow = open_pose(models).follow
    bodies = list(follow([pair] * 3, 2))
    assert [len(found) for found in bodies] == [2, 2, 2]
    left, right = sorted(bodies[-1], key=lambda body: body.pixels[0, 0])
    assert right.pixels[0, 0] - left.pixels[0, 0] == pytest.approx(520, abs=15)
    assert right.joints[0, 0] - left.joints[0, 0] > 1, "they stand beside each other"
    standing, lying = (
        next(iter(follow([image], 1)))[0].joints
        for image in (person, person.rotate(90, expand=True))
    )
    centred = [body - body[23:25].mean(axis=0) for body in (standing, lying)]
    turned = np.stack([centred[0][:, 1], -centred[0][:, 0], centred[0][:, 2]], axis=1)
    assert np.linalg.norm(turned - centred[1], axis=1).mean() < 0.1
