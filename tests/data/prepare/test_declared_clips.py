"""Own folders in 2D, with a confidence, of another layout or axes, or with missing joints."""

import json
import pickle

import numpy as np
import pytest

from hocslm_jax.__main__ import main
from hocslm_jax.data.layouts import convert_layout
from hocslm_jax.data.prepare.importers import pyskl
from hocslm_jax.data.prepare.ntu.bodies import COMPAT
from hocslm_jax.data.prepare.readers.clips import Reading, as_clip, read_clip, reading_of
from hocslm_jax.data.store import open_store
from hocslm_jax.graph import GRAPHS, NTU25, UCLA20
from hocslm_jax.predict.clip_files import check_clip

COCO = GRAPHS["coco17"]
RNG = np.random.default_rng(0)
PIXELS = (300 + RNG.normal(size=(12, 1, 17, 2)) * 60).astype(np.float32)
SURE = RNG.uniform(0.3, 1, (12, 1, 17)).astype(np.float32)
METRES = (RNG.uniform(-0.8, 0.8, (9, 1, 25, 3))).astype(np.float32)


def prepare(tmp_path, files, *more, graph="coco17"):
    """Prepares a folder of these files, {name: array or JSON}; returns the status."""
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    rows = ["id,file,label,split"]
    for name, content in files.items():
        path = source / name
        if name.endswith(".npy"):
            np.save(path, content)
        elif name.endswith(".npz"):
            np.savez(path, **content)
        else:
            path.write_text(json.dumps(content))
        rows.append(f"{path.stem},{name},{'ab'[len(rows) % 2]},{('train', 'test')[len(rows) % 2]}")
    (source / "clips.csv").write_text("\n".join(rows))
    command = ["prepare", "folder", "--name", "mine", "--source", source, "--data-dir", tmp_path]
    return main([*map(str, command), "--graph", graph, *more])


def opened(tmp_path):
    return open_store("mine", tmp_path)


def openpose(points, sure):
    """OpenPose's JSON of [T, 1, 18, 2] and [T, 1, 18]."""
    flat = np.concatenate([points, sure[..., None]], axis=-1)
    return [
        {"people": [{"pose_keypoints_2d": person.ravel().tolist()} for person in frame]}
        for frame in flat
    ]


@pytest.mark.parametrize(
    ("channels", "array"),
    [
        ("xy", PIXELS),
        ("xyc", np.concatenate([PIXELS, SURE[..., None]], axis=-1)),
        ("xyzc", np.concatenate([PIXELS / 300, PIXELS[..., :1] / 300, SURE[..., None]], axis=-1)),
    ],
)
def test_arrays_of_each_kind_become_a_dataset(tmp_path, capsys, channels, array):
    assert prepare(tmp_path, {"a.npy": array, "b.npy": array[:5, 0]}) == 0
    store = opened(tmp_path)
    assert (
        store.channels
        == channels
        == json.loads((tmp_path / "mine/index.json").read_text())["channels"]
    )
    np.testing.assert_array_equal(store.joints(0), array)
    np.testing.assert_array_equal(store.joints(1), array[:5])
    notes = capsys.readouterr().err
    assert f"channels {channels}" in notes and "is it in" not in notes
    command = ["prepare", "folder", "--name", "mine", "--check", "--data-dir", str(tmp_path)]
    assert main(command) == 0
    np.testing.assert_array_equal(open_store("mine", tmp_path, "ram").joints(1), array[:5])


def test_pose_estimators_and_arrays_in_one_dataset(tmp_path, capsys):
    """OpenPose's 18 joints are mapped by name; who has no confidence is sure."""
    points, sure = PIXELS.repeat(2, axis=2)[:, :, :18], SURE.repeat(2, axis=2)[:, :, :18].copy()
    sure[3, 0, 7] = 0  # the left wrist, once
    files = {"a.json": openpose(points, sure), "b.npy": PIXELS}
    assert prepare(tmp_path, files) == 0, capsys.readouterr().err
    store = opened(tmp_path)
    assert store.channels == "xyc"
    for name in ("nose", "right elbow", "left ankle"):
        here, there = COCO.joints.index(name), GRAPHS["openpose18"].joints.index(name)
        np.testing.assert_allclose(store.joints(0)[:, 0, here, :2], points[:, 0, there], rtol=1e-6)
        np.testing.assert_allclose(store.joints(0)[:, 0, here, 2], sure[:, 0, there], rtol=1e-6)
    wrist = store.joints(0)[:, 0, COCO.joints.index("left wrist")]
    np.testing.assert_allclose(wrist[3, :2], (wrist[2, :2] + wrist[4, :2]) / 2, rtol=1e-5)
    assert wrist[3, 2] == 0 and wrist[2, 2] > 0  # filled, but not seen
    np.testing.assert_array_equal(store.joints(1)[..., :2], PIXELS)
    assert (store.joints(1)[..., 2] == 1).all()


def test_three_coordinates_among_two_are_told(tmp_path, capsys):
    files = {"a.npy": PIXELS, "b.npy": RNG.normal(size=(5, 17, 3))}
    assert prepare(tmp_path, files) == 2
    assert (
        "bad file clips.csv:3 (b): shape (5, 1, 17, 3), expected (T, 17, 2)"
        in capsys.readouterr().err
    )
    assert prepare(tmp_path, {"a.npy": RNG.normal(size=(5, 17, 3))}, "--channels", "xyc") == 2
    assert "is not a confidence" in capsys.readouterr().err


def test_a_confidence_can_be_left_out(tmp_path):
    files = {"a.npz": {"keypoint": PIXELS, "keypoint_score": SURE}}
    assert prepare(tmp_path, files, "--channels", "xy", "--axes", "TMVC") == 0
    np.testing.assert_array_equal(opened(tmp_path).joints(0), PIXELS)


def test_axes_and_layout_are_declared(tmp_path, capsys):
    array = np.repeat(METRES, 25, axis=0)[:25].transpose(3, 0, 2, 1)  # C T V M, 25 frames
    assert (
        prepare(tmp_path, {"a.npy": array}, "--axes", "ctvm", "--layout", "ntu25", graph="ucla20")
        == 0
    )
    wanted, _ = convert_layout(array.transpose(1, 3, 2, 0), NTU25, UCLA20)
    np.testing.assert_allclose(opened(tmp_path).joints(0), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--axes", "TVX"], "axes 'TVX': write T, V, C"),
        (["--layout", "coco-17"], "did you mean 'coco17'"),
        (["--layout", "ntu25"], "can be TVC or VTC; name its axes"),
        (["--axes", "TVC", "--layout", "coco17"], "25 joints, coco17 has 17"),
        (["--gap", "-1"], "--gap -1"),
        (["--missing", "nan"], "NaN is missing anyway"),
    ],
)
def test_ambiguous_files_are_refused_in_one_line(tmp_path, capsys, more, message):
    array = np.repeat(METRES, 25, axis=0)[:25, 0]  # [25, 25, 3]
    assert prepare(tmp_path, {"a.npy": array}, *more, graph="ucla20") == 2
    told = [line for line in capsys.readouterr().err.splitlines() if message in line]
    assert len(told) == 1


def test_joints_that_a_layout_lacks_are_missing_and_named(tmp_path, capsys):
    """A human has no tail; the end of a leg is where the leg is last seen."""
    (tmp_path / "cat.json").write_text(
        '{"name": "cat", "joints": ["head", "neck", "tail", "left foot"], "root": "neck",'
        ' "edges": [["head", "neck"], ["tail", "neck"], ["left foot", "neck"]]}'
    )
    (tmp_path / "source").mkdir()
    (tmp_path / "cat.json").rename(tmp_path / "source/graph.json")
    files = {"a.npz": {"joints": METRES[:, :, :17]}}
    assert prepare(tmp_path, files, "--axes", "TMVC", "--layout", "coco17", graph="") == 0
    joints = opened(tmp_path).joints(0)
    assert not joints[:, :, 2].any() and joints[:, :, [0, 1, 3]].all()
    ankle = METRES[:, :, COCO.joints.index("left ankle")] * [-1, -1, 1]  # COCO's y points down
    np.testing.assert_array_equal(joints[:, :, 3], ankle.astype(np.float32))
    assert "joint 'tail' has no place in all clips" in capsys.readouterr().err


@pytest.mark.parametrize("value", [np.nan, 0, -1])
def test_short_gaps_are_filled_and_long_ones_masked(tmp_path, value):
    clip = np.arange(40 * 25 * 3, dtype=np.float32).reshape(40, 1, 25, 3) / 1e4 + 1
    damaged = clip.copy()
    damaged[5:8, 0, 3], damaged[10:14, 0, 4], damaged[30:, 0, 5] = value, value, value
    assert (
        prepare(tmp_path, {"a.npy": damaged}, "--missing", "-1", "--gap", "3", graph="ntu25") == 0
    )
    wanted = clip.copy()
    wanted[10:14, 0, 4], wanted[30:, 0, 5] = 0, 0
    if value == 0:  # not declared: exactly 0 is missing, but not filled
        wanted[5:8, 0, 3] = 0
    np.testing.assert_allclose(opened(tmp_path).joints(0), wanted, rtol=1e-5)
    assert opened(tmp_path).about["reading"] == {"missing": -1.0, "gap": 3}


@pytest.mark.parametrize("frames", [range(20), range(15, 35), range(25, 40)])
def test_frames_without_anybody_lose_nothing_else(frames):
    clip = RNG.normal(size=(40, 1, 25, 3)).astype(np.float32)
    damaged = clip.copy()
    damaged[list(frames)] = np.nan
    found = as_clip(damaged, 25)
    rest = [t for t in range(40) if t not in frames]
    np.testing.assert_array_equal(found[rest], clip[rest])
    assert not found[list(frames)].any()


def test_reading_twice_is_reading_once():
    damaged = np.concatenate([PIXELS, SURE[..., None]], axis=-1)
    damaged[2:4, 0, 3], damaged[5, 0, 4, 2] = np.nan, 0
    reading = Reading("xyc", missing=0.0, gap=3)
    once = as_clip(damaged, 17, reading)
    np.testing.assert_array_equal(as_clip(once, 17, reading), once)
    assert once[2, 0, 3, 0] > 0 and not once[2:4, 0, 3, 2].any() and not once[5, 0, 4, 2]


def test_what_a_run_says_of_reading_is_checked():
    noted = Reading(missing=-1.0, gap=3).noted()
    assert reading_of(noted, "xyc") == Reading("xyc", -1.0, 3) and reading_of(None) == Reading()
    for bad in ({"gap": -1}, {"gap": "3"}, {"missing": [0]}, {"missing": 1e9}):
        with pytest.raises(ValueError, match="cannot be read with"):
            reading_of(bad)


def annotation(number, **changes):
    fields = {"frame_dir": f"v{number}", "label": number, "total_frames": 12}
    return fields | {"keypoint": PIXELS.swapaxes(0, 1).astype(np.float16) + number} | changes


def test_pickles_in_2d_with_scores(tmp_path):
    score = SURE.swapaxes(0, 1).copy()
    score[0, 4] = 0  # nobody in one frame
    items = [annotation(0, keypoint_score=score), annotation(1)]
    items.append(annotation(2, keypoint=0 * items[0]["keypoint"], keypoint_score=0 * score))
    what = {"split": {"train": ["v0"], "test": ["v1", "v2"]}, "annotations": items}
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(what))
    bad = []
    recipe = pyskl.own_recipe("own", tmp_path / "a.pkl", lambda *b: bad.append(b), COCO)
    clips = [clip for shard in recipe.shards for clip in shard()]
    assert recipe.channels == "xyc" and [clip.id for clip in clips] == ["v0", "v1"]
    np.testing.assert_array_equal(clips[0].joints[..., 2], score.swapaxes(0, 1))
    assert clips[0].joints[4, 0, :, :2].all() and (clips[1].joints[..., 2] == 1).all()
    ((where, reason, empty),) = bad
    assert "(v2)" in where and "nobody" in reason and empty


def test_a_clip_of_one_layout_for_a_model_of_another(tmp_path):
    np.save(tmp_path / "a.npy", METRES.transpose(1, 0, 2, 3))
    reading = Reading(layout="ntu25", axes="MTVC")
    found = read_clip(tmp_path / "a.npy", UCLA20, reading)
    np.testing.assert_allclose(found, convert_layout(METRES, NTU25, UCLA20)[0], rtol=1e-6)


def test_an_array_of_another_layout_in_python():
    reading = Reading(layout="coco17")
    found = check_clip(METRES[:, 0, :17], UCLA20, None, reading)
    wanted, _ = convert_layout(METRES[:, :, :17] * np.float32([-1, -1, 1]), COCO, UCLA20)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    with pytest.raises(ValueError, match=r"17 joints, .* ucla20 20; name their layout"):
        check_clip(METRES[:, :, :17], UCLA20)
    with pytest.raises(ValueError, match="25 joints, coco17 has 17"):
        check_clip(METRES, UCLA20, None, reading)


def test_missing_joints_are_not_moved_by_centring(tmp_path):
    """For a model of NTU the sensor's coordinates are centred; missing joints stay 0."""
    clip = METRES + np.float32([0.5, 0.2, 3])
    clip[:, :, NTU25.joints.index("left thumb")] = 0
    found = check_clip(clip, NTU25, COMPAT["ntu60"])
    assert not found[:, :, NTU25.joints.index("left thumb")].any()
    np.testing.assert_allclose(found[0, 0, 3], clip[0, 0, 3] - clip[0, 0, 1], rtol=1e-5)
