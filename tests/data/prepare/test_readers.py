"""Skeleton files of every format, as the programs that write them do, and damaged ones."""

import json

import numpy as np
import pytest
import scipy.io

from hocslm_jax.data.prepare.readers.arrays import from_array
from hocslm_jax.data.prepare.readers.formats import FORMATS, describe, read_recording
from hocslm_jax.data.prepare.readers.recording import (
    Detection,
    Recording,
    as_layout,
    assemble,
    guess_unit,
    in_metres,
    turned_up,
)
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, NTU25, UCLA20, resolve_graph

RNG = np.random.default_rng(0)
BODY = RNG.uniform(-1, 1, (6, 1, 25, 3)).astype(np.float32)  # [T, M, V, 3], metres
PIXELS = np.float32(RNG.uniform(50, 400, (6, 2, 17, 2)).round(2))  # [T, M, V, 2]


def save(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
    return path


def with_scores(points, score=0.9):
    """[V, 2] as the flat list x, y, score, …"""
    return np.column_stack([points, np.full(len(points), score)]).round(3).ravel().tolist()


# --- arrays -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "order"),
    [
        ("TMVC", (0, 1, 2, 3)),
        ("MTVC", (1, 0, 2, 3)),
        ("CTVM", (3, 0, 2, 1)),
        ("TVMC", (0, 2, 1, 3)),
    ],
)
def test_axes_are_declared(tmp_path, axes, order):
    path = tmp_path / "clip.npy"
    np.save(path, BODY.transpose(order))
    recording = read_recording(path, axes=axes, layout="ntu25")
    np.testing.assert_array_equal(recording.joints, BODY)
    assert (recording.layout, recording.unit, recording.up) == (NTU25, "m", "y")


@pytest.mark.parametrize(
    ("shape", "layout", "read_as"),
    [
        ((60, 25, 3), "ntu25", (60, 1, 25, 3)),
        ((20, 3, 60), "utd20", (60, 1, 20, 3)),
        ((3, 60, 25, 1), "ntu25", (60, 1, 25, 3)),
        ((1, 60, 25, 3), "ntu25", (60, 1, 25, 3)),
        ((60, 2, 25, 3), "ntu25", (60, 2, 25, 3)),
        ((60, 2, 17, 2), None, (60, 2, 17, 2)),
    ],
)
def test_a_shape_that_can_only_be_read_one_way_needs_no_axes(shape, layout, read_as):
    array = RNG.normal(size=shape)
    recording = from_array(array, layout=resolve_graph(layout) if layout else None)
    assert recording.joints.shape == read_as


@pytest.mark.parametrize(
    ("shape", "axes", "layout", "word"),
    [
        ((60, 25, 3), None, None, "TVC or VTC"),
        ((25, 25, 3), None, "ntu25", "TVC or VTC"),
        ((5, 4, 25, 3), None, "ntu25", "TMVC or MTVC"),
        ((3, 60, 25, 2), None, "ntu25", "MTVC or CTVM"),
        ((60, 75), None, "ntu25", "expected three axes"),
        ((60, 24, 3), None, "ntu25", "none of frames"),
        ((60, 24, 3), "TVC", "ntu25", "24 joints"),
        ((60, 25, 5), "TVC", None, "5 coordinates"),
        ((60, 25, 3), "TMVC", None, "3 axes"),
        ((60, 25, 3), "TVX", None, "write T, V, C"),
        ((60, 25, 3), "TVV", None, "write T, V, C"),
        ((0, 25, 3), "TVC", None, "with frames"),
    ],
)
def test_axes_that_cannot_be_told_are_refused(tmp_path, shape, axes, layout, word):
    path = tmp_path / "clip.npy"
    np.save(path, RNG.normal(size=shape))
    with pytest.raises(UserError, match=word) as caught:
        read_recording(path, axes, layout)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_an_npz_may_hold_confidence_and_fps(tmp_path):
    path, scores = tmp_path / "clip.npz", RNG.uniform(size=(2, 6, 17))
    points = PIXELS.transpose(1, 0, 2, 3)
    np.savez(path, keypoint=points, keypoint_score=scores, fps=25, label=3)
    recording = read_recording(path, "MTVC", "coco17")
    np.testing.assert_array_equal(recording.joints, PIXELS)
    np.testing.assert_allclose(recording.confidence, scores.transpose(1, 0, 2), rtol=1e-6)
    assert (recording.unit, recording.up, recording.fps) == ("px", "-y", 25)
    np.savez(path, a=BODY, b=BODY)
    with pytest.raises(UserError, match="several arrays"):
        read_recording(path, "TMVC")
    np.savez(path, a=BODY, b=np.array("text"))
    assert read_recording(path, "TMVC").joints.shape == BODY.shape


def test_a_confidence_among_the_coordinates():
    scores = RNG.uniform(size=(6, 2, 17, 1))
    for points in (PIXELS, np.concatenate([PIXELS, PIXELS[..., :1]], axis=-1)):
        recording = from_array(np.concatenate([points, scores], axis=-1), "TMVC")
        np.testing.assert_array_equal(recording.joints, points)
        np.testing.assert_allclose(recording.confidence, scores[..., 0], rtol=1e-6)
    with pytest.raises(ValueError, match="no confidence"):
        from_array(np.full((6, 17, 4), 3.0), "TVC")
    assert from_array(np.abs(BODY), "TMVC").confidence is None  # metres, not a confidence


def test_joints_that_are_not_there_are_nan():
    body = BODY.copy()
    body[2, 0, 3, 1] = np.nan
    assert np.isnan(from_array(body, "TMVC").joints[2, 0, 3]).all()
    with pytest.raises(ValueError, match="nobody"):
        from_array(np.full_like(body, np.nan), "TMVC")
    body[0, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="beyond"):
        from_array(body, "TMVC")


# --- .mat --------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_utd_mhad(tmp_path, packed):
    path, skeleton = tmp_path / "a1_s1_t1_skeleton.mat", RNG.uniform(-1, 1, (20, 3, 30))
    scipy.io.savemat(path, {"d_skel": skeleton}, do_compression=packed)
    recording = read_recording(path)
    np.testing.assert_allclose(recording.joints[:, 0], skeleton.transpose(2, 0, 1), rtol=1e-6)
    assert (recording.layout, recording.unit) == (GRAPHS["utd20"], "m")
    converted, missing = as_layout(recording, UCLA20)
    np.testing.assert_array_equal(converted.joints[:, :, 3], recording.joints[:, :, 0])  # head
    assert not missing.any()


def test_the_one_array_of_three_axes(tmp_path):
    path = tmp_path / "clip.mat"
    scipy.io.savemat(path, {"label": 3, "name": "wave", "S": {"x": 1}, "pos": BODY[:, 0]})
    np.testing.assert_array_equal(read_recording(path, layout="ntu25").joints, BODY)
    scipy.io.savemat(path, {"pos": BODY[:, 0], "rot": BODY[:, 0]})
    with pytest.raises(UserError, match="several arrays"):
        read_recording(path)


def test_mat_files_of_other_versions_and_bombs(tmp_path):
    with pytest.raises(UserError, match="save it with -v7"):
        read_recording(save(tmp_path, "a.mat", b"MATLAB 7.3 MAT-file" + bytes(600)))
    with pytest.raises(UserError, match=r"no \.mat file"):
        read_recording(save(tmp_path, "b.mat", b"0" * 600))
    path = tmp_path / "bomb.mat"
    scipy.io.savemat(path, {"d_skel": np.zeros((20, 3, 150_000))}, do_compression=True)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="unpacks to over"):
        read_recording(path)


# --- 2D keypoints in JSON ----------------------------------------------------------------------


def openpose(points):
    people = [
        {"person_id": [-1], "pose_keypoints_2d": with_scores(body), "face_keypoints_2d": []}
        for body in points
    ]
    return {"version": 1.3, "people": people}


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


def test_openpose_people_with_ids_keep_their_place(tmp_path):
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


def test_coco_results_of_photographs_are_no_clip(tmp_path):
    entries = [
        {"image_id": n, "category_id": 1, "keypoints": with_scores(PIXELS[0, 0]), "score": 0.5}
        for n in (37777, 397133, 139)
    ]
    with pytest.raises(UserError, match="no frame numbers"):
        read_recording(save(tmp_path, "person_keypoints.json", entries))


def test_nw_ucla(tmp_path):
    content = {"file_name": "a", "label": 1, "skeletons": BODY[:, 0, :20].tolist()}
    recording = read_recording(save(tmp_path, "a.json", content))
    np.testing.assert_allclose(recording.joints, BODY[:, :, :20], rtol=1e-6)
    assert recording.layout is UCLA20


# --- MediaPipe ---------------------------------------------------------------------------------


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


# --- .csv --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "separator"),
    [("{}_{}", ","), ("{}.{}", ";"), ("{} {}", "\t"), ("{}_{}", ",")],
)
def test_a_column_for_each_coordinate(tmp_path, spelling, separator):
    names = [name.replace(" ", "_") for name in reversed(NTU25.joints)]  # in another order
    header = ["time", *(spelling.format(name, axis) for name in names for axis in "xyz")]
    rows = [[0.1, *row] for row in BODY[:, 0, ::-1].reshape(6, 75).tolist()]
    text = "\n".join(separator.join(map(str, row)) for row in [header, *rows])
    if separator == ";":
        text = "\ufeff" + text.replace(".", ",").replace(",x", ".x").replace(",y", ".y")
        text = text.replace(",z", ".z").replace("\n", "\r\n")
    recording = read_recording(save(tmp_path, "clip.csv", text))
    np.testing.assert_allclose(recording.joints, BODY, rtol=1e-6)
    assert (recording.layout, recording.unit) == (NTU25, "m")


def test_numbered_columns_need_a_layout(tmp_path):
    for spelling in ("joint{0}_{1}", "{1}{0}"):
        header = ",".join(spelling.format(v, axis) for v in range(20) for axis in "xyz")
        rows = [",".join(map(str, row)) for row in BODY[:, 0, :20].reshape(6, 60).tolist()]
        path = save(tmp_path, "clip.csv", "\n".join([header, *rows]))
        assert read_recording(path).layout is None
        recording = read_recording(path, layout="ucla20")
        np.testing.assert_allclose(recording.joints, BODY[:, :, :20], rtol=1e-6)
        with pytest.raises(UserError, match="20 joints"):
            read_recording(path, layout="ntu25")


def test_persons_frames_confidence_and_empty_cells(tmp_path):
    text = """frame,person,hand_x,hand_y,hand_c,foot_x,foot_y,foot_c
        4,a,10,11,0.5,12,13,0.5
        4,b,20,21,0.5,22,23,0.5
        6,b,30,31,0.25,,,0
        """
    recording = read_recording(save(tmp_path, "clip.csv", text))
    assert recording.joints.shape == (3, 2, 2, 2) and recording.tracks == ("a", "b")
    assert recording.names == ("hand", "foot") and recording.layout is None
    assert recording.joints[2, 1, 0].tolist() == [30, 31]
    assert recording.confidence[2, 1].tolist() == [0.25, 0]
    assert np.isnan(recording.joints[2, 1, 1]).all() and np.isnan(recording.joints[1:, 0]).all()
    graph = {"joints": ["foot", "hand"], "edges": [["hand", "foot"]], "root": "foot"}
    declared = read_recording(save(tmp_path, "clip.csv", text), layout=resolve_graph(graph))
    assert declared.joints[0, 0].tolist() == [[12, 13], [10, 11]]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a,b\n1,2", "its header is 'a', 'b'"),
        ("", "nothing"),
        ("hand_x,hand_y,foot_x\n1,2,3", "'foot' has no column for y"),
        ("hand_x,hand_y\n1,left", "'left' is no number"),
        ("hand_x,hand_y\n1,2,3", "line 2 has 3 cells"),
        ("hand_x,hand_x,hand_y\n1,2,3", "twice"),
        ("hand_x,hand_y", "nobody"),
        ("hand_x,hand_y\n,", "nobody"),
        ("frame,hand_x,hand_y\n1,1,2\n1,1,2", "frame 1 twice"),
        ("frame,hand_x,hand_y\n1.5,1,2", "no frame number"),
        ("hand_x,hand_y\n1,1e30", "beyond"),
    ],
)
def test_tables_that_are_refused(tmp_path, text, word):
    with pytest.raises(UserError, match=word):
        read_recording(save(tmp_path, "clip.csv", text))


# --- BVH ---------------------------------------------------------------------------------------

BVH = """HIERARCHY
ROOT Hips
{
  OFFSET 0 1 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
  JOINT LeftUpLeg
  {
    OFFSET 0.5 0 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    JOINT LeftLeg
    {
      OFFSET 0 -0.5 0
      CHANNELS 3 Zrotation Xrotation Yrotation
      End Site
      {
        OFFSET 0 -0.5 0
      }
    }
  }
}
MOTION
Frames: 3
Frame Time: 0.04
0 0 0  0 0 0  0 0 0  0 0 0
1 2 3  0 0 0  0 0 0  0 0 0
0 0 0  90 0 0  0 90 0  0 0 0
"""


def test_bvh(tmp_path):
    recording = read_recording(save(tmp_path, "walk.bvh", BVH))
    assert recording.layout.joints == ("Hips", "LeftUpLeg", "LeftLeg")
    assert recording.layout.parents == (0, 0, 1)
    assert (recording.fps, recording.up, recording.unit) == (25.0, "y", "m")
    rest = np.array([[0, 1, 0], [0.5, 1, 0], [0.5, 0.5, 0]])
    np.testing.assert_allclose(recording.joints[0, 0], rest, atol=1e-6)
    np.testing.assert_allclose(recording.joints[1, 0], rest + np.array([1, 2, 3]), atol=1e-6)
    # The hips turn a quarter about z: the leg's x axis becomes y. The thigh then turns a quarter
    # about its own x, so that its -y, which would be x, becomes -z of the hips.
    np.testing.assert_allclose(
        recording.joints[2, 0], [[0, 1, 0], [0, 1.5, 0], [0, 1.5, -0.5]], atol=1e-6
    )
    converted, missing = as_layout(recording, NTU25)
    knee = NTU25.joints.index("left knee")
    np.testing.assert_array_equal(converted.joints[:, :, knee], recording.joints[:, :, 2])
    assert missing.sum() == 22


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("MOTION", "", "HIERARCHY and MOTION"),
        ("Frames: 3", "Frames: 4", "36 values for 4 frames"),
        ("Frames: 3", "Frames: 999999999", "too many"),
        ("90 0 0", "x 0 0", "no numbers"),
        ("90 0 0", "nan 0 0", "not finite"),
        ("OFFSET 0.5 0 0", "OFFSET a 0 0", "no number"),
        ("Zrotation Xrotation", "Wrotation Xrotation", "unknown channel"),
        ("JOINT LeftLeg", "BONE LeftLeg", "'BONE' is not expected"),
        ("JOINT LeftLeg", "ROOT LeftLeg", "not expected"),
        ("}\n}\nMOTION", "}\nMOTION", "cut off"),
    ],
)
def test_damaged_bvh(tmp_path, old, new, word):
    with pytest.raises(UserError, match=word):
        read_recording(save(tmp_path, "walk.bvh", BVH.replace(old, new, 1)))


# --- what is common to all ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"poses": [], "version": 2}, "an object with the keys 'poses', 'version'"),
        ([[1, 2], [3]], "a list of 2, the first list"),
        ([{"a": 1}], "the first an object with the keys 'a'"),
        ([], "a list of 0"),
        ('"text"', "str"),
        ("[1, 2", "delimiter"),
        ("[" * 5000, "recursion"),
        ("", "Expecting value"),
    ],
)
def test_unknown_json_is_described(tmp_path, content, word):
    with pytest.raises(UserError, match=word) as caught:
        read_recording(save(tmp_path, "clip.json", content))
    assert len(str(caught.value)) <= 300 + len(str(tmp_path))


def test_what_is_no_file_of_any_format(tmp_path):
    for path, word in (
        (tmp_path / "absent.npy", "no such file"),
        (tmp_path / "absent.json", "no such file"),
        (tmp_path, "a folder without"),
        (save(tmp_path, "clip.txt", "1"), "'.txt' are not read"),
        (save(tmp_path, "clip.csv", b"\xff\xff"), "UTF-8"),
    ):
        with pytest.raises(UserError, match=word):
            read_recording(path)
    with pytest.raises(UserError, match="axes are of arrays"):
        read_recording(save(tmp_path, "walk.bvh", BVH), axes="TVC")
    with pytest.raises(UserError, match="its joints are openpose18"):
        path = save(tmp_path, "frame.json", openpose([PIXELS[0, 0, :1].repeat(18, 0)]))
        read_recording(path, layout="coco17")


def test_ntu_skeleton(tmp_path):
    joint = "0.1 0.2 3.0 1 2 3 4 0 0 0 1 2"
    body = "\n".join(["72057594037931101 0 1 1 1 1 0 0.5 0.1 2", "25", *[joint] * 25])
    path = save(tmp_path, "S001C001P001R001A001.skeleton", f"2\n1\n{body}\n1\n{body}\n")
    recording = read_recording(path)
    assert recording.joints.shape == (2, 1, 25, 3) and recording.layout is NTU25


def test_units():
    assert [guess_unit(BODY * scale) for scale in (1, 100, 1000, 1e5)] == ["m", "cm", "mm", None]
    for unit, scale in (("mm", 1000), ("cm", 100)):
        recording = in_metres(Recording(BODY * scale, unit=unit))
        np.testing.assert_allclose(recording.joints, BODY, rtol=1e-5)
        assert recording.unit == "m"
    pixels = Recording(PIXELS, unit="px")
    assert in_metres(pixels) is pixels


@pytest.mark.parametrize("up", ["x", "-x", "y", "-y", "z", "-z"])
def test_turning_keeps_bodies_and_their_handedness(up):
    joints = BODY.copy()
    joints[0, 0, 0] = np.nan
    turned = turned_up(Recording(joints, up="z"), up)
    there = turned.joints[1:].reshape(-1, 3)
    before = joints[1:].reshape(-1, 3)
    turn = np.linalg.lstsq(before, there, rcond=None)[0]
    assert np.isclose(np.linalg.det(turn), 1)
    axis = np.zeros(3)
    axis["xyz".index(up[-1])] = -1 if up[0] == "-" else 1
    np.testing.assert_allclose([0, 0, 1] @ turn, axis, atol=1e-5)
    assert np.isnan(turned.joints[0, 0, 0]).all() and np.isnan(turned.joints).sum() == 3


def test_images_only_change_the_direction_of_y():
    turned = turned_up(Recording(PIXELS, up="-y"), "y")
    np.testing.assert_array_equal(turned.joints, PIXELS * np.float32([1, -1]))
    same = Recording(PIXELS, up="-y")
    assert turned_up(same, "z") is same


def test_persons_get_the_same_place_in_every_frame():
    points = np.ones((5, 2), np.float32)
    found = [Detection(4, "b", points, None), Detection(6, "a", points * 2, None)]
    joints, confidence, tracks = assemble([*found, Detection(6, "b", points, None)])
    assert joints.shape == (3, 2, 5, 2) and tracks == ("b", "a") and confidence is None
    assert np.isnan(joints[1]).all() and (joints[2, 1] == 2).all()
    with pytest.raises(ValueError, match="too many"):
        assemble([Detection(n, n, points, None) for n in range(2000)])


def test_the_table_covers_what_the_documentation_lists():
    assert {"npy", "npz", "mat", "csv", "bvh", "openpose", "kinetics", "mediapipe"} <= set(FORMATS)
    assert {"alphapose", "coco", "ntu", "nw_ucla"} <= set(FORMATS)
    assert describe(3) == "int"
