"""JSON of pose estimators: OpenPose, Kinetics-skeleton, AlphaPose, COCO, MediaPipe; and NW-UCLA."""

import numpy as np
import pytest
from reader_files import BODY, PIXELS, RNG, openpose, save, with_scores

from hocslm_jax.data.clip import Nobody
from hocslm_jax.data.prepare.readers.formats import read_recording
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, UCLA20


def test_openpose_folder(tmp_path):
    points = RNG.uniform(50, 400, (4, 2, 25, 2)).round(2)
    for number, frame in zip((7, 8, 10, 11), points, strict=True):
        save(tmp_path, f"walk_{number:012}_keypoints.json", openpose(frame))
    recording = read_recording(tmp_path)
    assert recording.joints.shape == (5, 2, 25, 2)
    np.testing.assert_allclose(recording.joints[[0, 1, 3, 4]], points, rtol=1e-5)
    assert np.isnan(recording.joints[2]).all()  # frame 9 has no file
    assert (recording.layout.name, recording.unit, recording.up) == ("openpose25", "px", "-y")
    np.testing.assert_allclose(recording.confidence[0], 0.9, rtol=1e-5)
    save(tmp_path, "other_000000000000_keypoints.json", openpose(points[0]))
    with pytest.raises(UserError, match="several videos"):
        read_recording(tmp_path)


def test_openpose_file(tmp_path):
    body = RNG.uniform(0.1, 0.9, (18, 2))
    content = openpose([body])
    keypoints = content["people"][0]["pose_keypoints_2d"]
    keypoints[3:6] = [0, 0, 0]  # not found
    recording = read_recording(save(tmp_path, "frame.json", content))
    assert (recording.layout.name, recording.unit) == ("openpose18", "normalised")
    assert np.isnan(recording.joints[0, 0, 1]).all() and recording.confidence[0, 0, 1] == 0
    empty = {"version": 1.3, "people": []}
    recording = read_recording(save(tmp_path, "frames.json", [empty, content, empty]))
    assert recording.joints.shape == (3, 1, 18, 2)
    assert np.isnan(recording.joints[[0, 2]]).all()
    with pytest.raises(UserError, match="nobody"):
        read_recording(save(tmp_path, "empty.json", empty))
    keypoints.pop()
    with pytest.raises(UserError, match="53 values"):
        read_recording(save(tmp_path, "short.json", content))
    with pytest.raises(UserError, match="15 keypoints"):
        read_recording(save(tmp_path, "mpi.json", openpose([body[:15]])))


def test_openpose_ids_order_people(tmp_path):
    first, second = RNG.uniform(50, 400, (2, 18, 2)).round(2)
    frames = [openpose([first, second]), openpose([second, first])]
    for frame, ids in zip(frames, ((3, 5), (5, 3)), strict=True):
        for person, number in zip(frame["people"], ids, strict=True):
            person["person_id"] = [number]
    recording = read_recording(save(tmp_path, "frames.json", frames))
    np.testing.assert_allclose(recording.joints[1], [first, second], rtol=1e-5)
    assert recording.tracks == ("id 3", "id 5")


def test_kinetics_skeleton(tmp_path):
    points = RNG.uniform(0.1, 0.9, (3, 18, 2)).round(3)
    skeletons = [[{"pose": p.ravel().tolist(), "score": [0.5] * 18}] for p in points]
    data = [
        {"frame_index": number, "skeleton": skeleton}
        for number, skeleton in zip((1, 2, 4, 5), [*skeletons, []], strict=True)
    ]
    content = {"data": data, "label": "abseiling", "label_index": 0}
    recording = read_recording(save(tmp_path, "-1q7jA3DXQM.json", content))
    assert recording.joints.shape == (5, 1, 18, 2)
    np.testing.assert_allclose(recording.joints[[0, 1, 3], 0], points, rtol=1e-6)
    assert (recording.layout.name, recording.unit) == ("openpose18", "normalised")
    data[0]["skeleton"][0]["pose"].pop()
    with pytest.raises(UserError, match="35 coordinates"):
        read_recording(save(tmp_path, "short.json", content))


@pytest.mark.parametrize("count", [17, 26])
def test_alphapose(tmp_path, count):
    body = RNG.uniform(50, 400, (6, count, 2)).round(2)
    entries = [
        {"image_id": f"{n}.jpg", "category_id": 1, "keypoints": with_scores(body[n], 2.5),
         "score": 3.1, "box": [1, 2, 3, 4], "idx": 7}
        for n in (5, 0, 1, 3)
    ]  # fmt: skip
    recording = read_recording(save(tmp_path, "alphapose-results.json", entries))
    assert recording.joints.shape == (6, 1, 17, 2) and recording.tracks == ("7",)
    np.testing.assert_allclose(
        recording.joints[[0, 1, 3, 5], 0], body[[0, 1, 3, 5], :17], rtol=1e-5
    )
    assert np.isnan(recording.joints[[2, 4]]).all()
    assert recording.layout.name == "coco17" and recording.confidence[0, 0, 0] == 2.5
    entries.append(entries[0])
    with pytest.raises(UserError, match="frame 5 twice"):
        read_recording(save(tmp_path, "twice.json", entries))


def test_coco_annotations(tmp_path):
    flags = with_scores(PIXELS[0, 0], 2)
    flags[2] = 0  # the nose is not labelled
    images = [{"id": 100 + n, "file_name": f"clip/{n:06}.png"} for n in range(4)]
    annotations = [
        {"id": 1, "image_id": 101, "category_id": 1, "keypoints": flags, "track_id": 4},
        {"id": 2, "image_id": 102, "category_id": 1, "keypoints": [0] * 51, "track_id": 9},
        {"id": 3, "image_id": 102, "category_id": 1, "keypoints": flags, "track_id": 4},
    ]
    names = [name.replace(" ", "_") for name in GRAPHS["coco17"].joints]
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    }
    recording = read_recording(save(tmp_path, "annotations.json", content))
    assert recording.joints.shape == (4, 1, 17, 2) and recording.layout.name == "coco17"
    assert np.isnan(recording.joints[[0, 3]]).all() and np.isnan(recording.joints[1, 0, 0]).all()
    np.testing.assert_allclose(recording.joints[2, 0, 1:], PIXELS[0, 0, 1:], rtol=1e-5)
    assert recording.confidence[1, 0].tolist() == [0, *[1] * 16]


def test_coco_results_of_photographs_are_refused(tmp_path):
    entries = [
        {"image_id": n, "category_id": 1, "keypoints": with_scores(PIXELS[0, 0]), "score": 0.5}
        for n in (37777, 397133, 139)
    ]
    with pytest.raises(UserError, match="not frame numbers"):
        read_recording(save(tmp_path, "person_keypoints.json", entries))


def test_nw_ucla(tmp_path):
    content = {"file_name": "a", "label": 1, "skeletons": BODY[:, 0, :20].tolist()}
    recording = read_recording(save(tmp_path, "a.json", content))
    np.testing.assert_allclose(recording.joints, BODY[:, :, :20], rtol=1e-6)
    assert recording.layout is UCLA20


def landmarks(points, visibility=0.75):
    return [
        {**dict(zip("xyz", map(float, point), strict=True)), "visibility": visibility}
        for point in points
    ]


WORLD = RNG.uniform(-1, 1, (3, 33, 3)).round(4)


@pytest.mark.parametrize(
    "content",
    [
        [{"pose_world_landmarks": landmarks(p), "pose_landmarks": landmarks(p)} for p in WORLD],
        [{"pose_world_landmarks": {"landmark": landmarks(p)}} for p in WORLD],
        [{"landmarks": [landmarks(p)], "worldLandmarks": [landmarks(p)]} for p in WORLD],
        {"fps": 30, "frames": [{"frame": n, "poseWorldLandmarks": landmarks(p)}
                               for n, p in enumerate(WORLD)]},
        [{"pose_world_landmarks": [[*p, 0.75] for p in body.tolist()]} for body in WORLD],
    ],
)  # fmt: skip
def test_mediapipe_world_landmarks(tmp_path, content):
    recording = read_recording(save(tmp_path, "pose.json", content))
    np.testing.assert_allclose(recording.joints[:, 0], WORLD, rtol=1e-6)
    np.testing.assert_allclose(recording.confidence, 0.75)
    assert (recording.layout.name, recording.unit, recording.up) == ("blazepose33", "m", "-y")


def test_mediapipe_image_landmarks(tmp_path):
    frames = [{"pose_landmarks": landmarks(np.abs(p))} for p in WORLD]
    frames.insert(1, {"pose_landmarks": None})  # nobody is seen
    recording = read_recording(save(tmp_path, "pose.json", frames))
    assert recording.joints.shape == (4, 1, 33, 2) and recording.unit == "normalised"
    assert np.isnan(recording.joints[1]).all()
    bare = [landmarks(p) for p in WORLD]
    assert read_recording(save(tmp_path, "bare.json", bare)).joints.shape == (3, 1, 33, 2)
    frames[0]["pose_landmarks"].pop()
    with pytest.raises(UserError, match="32 landmarks"):
        read_recording(save(tmp_path, "short.json", frames))


def test_a_damaged_or_foreign_file_does_not_show_nobody(tmp_path):
    """Files without any keypoints are of another kind, and are not left out as empty clips."""
    boxes = {"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    twice = [{"id": 1, "file_name": "1.jpg"}, {"id": 1, "file_name": "2.jpg"}]
    pose = {"image_id": 1, "category_id": 1, "keypoints": with_scores(PIXELS[0, 0])}
    for content, word in (
        ({"images": twice[:1], "annotations": [boxes]}, "no annotation has keypoints"),
        ({"images": twice, "annotations": [pose]}, "two images have the id '1'"),
        ([{"version": 1.3, "people": [{"face": [1]}]}], "without pose_keypoints_2d; it has 'face'"),
    ):
        with pytest.raises(UserError, match=word) as caught:
            read_recording(save(tmp_path, "clip.json", content))
        assert not isinstance(caught.value, Nobody)
    for content in ({"images": [], "annotations": []}, [openpose([]), openpose([])]):
        with pytest.raises(Nobody):
            read_recording(save(tmp_path, "clip.json", content))
