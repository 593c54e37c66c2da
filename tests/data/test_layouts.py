"""Layouts by name, and conversion of clips between them."""

import numpy as np
import pytest

from hocslm_jax.data.joint_names import MADE_OF, common_names
from hocslm_jax.data.layouts import conversion, convert_layout
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, NTU25, UCLA20, Graph, other_side, resolve_graph

# How many joints of the layout above the layout at the left has, too.
COLUMNS = ("ntu25", "ucla20", "azure32", "coco17", "openpose25", "blazepose33", "h36m17", "smpl24")
SHARED = {
    "ntu25": (25, 20, 24, 12, 14, 14, 17, 20),
    "ucla20": (20, 20, 19, 12, 14, 12, 16, 19),
    "kinect20": (20, 20, 19, 12, 14, 12, 16, 19),
    "utd20": (20, 20, 19, 12, 14, 12, 16, 19),
    "azure32": (24, 19, 32, 17, 18, 19, 16, 23),
    "coco17": (12, 12, 17, 17, 17, 17, 12, 12),
    "openpose18": (13, 13, 17, 17, 18, 17, 13, 12),
    "openpose25": (14, 14, 18, 17, 25, 19, 14, 13),
    "blazepose33": (14, 12, 19, 17, 19, 33, 12, 12),
    "h36m17": (17, 16, 16, 12, 14, 12, 17, 16),
    "smpl22": (18, 17, 21, 12, 13, 12, 16, 22),
    "smpl24": (20, 19, 23, 12, 13, 12, 16, 24),
}


def shared_joints(source, target):
    """The joints of `target` that `source` also has."""
    known = {*source.joints, *common_names(source.joints)}
    names = zip(target.joints, common_names(target.joints), strict=True)
    return tuple(name for name, common in names if name in known or common in known)


def clip(graph, channels=3, seed=0):
    shape = (4, 2, graph.num_joints, channels)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_layout_is_a_symmetric_tree(name):
    graph = resolve_graph(name)
    assert (graph.name, str(graph.num_joints)) == (name, name[-2:])
    swap = other_side(graph)
    bones = {frozenset(edge) for edge in graph.edges}
    assert {frozenset(swap[list(edge)].tolist()) for edge in graph.edges} == bones
    assert {swap[graph.root], swap[graph.centre]} == {graph.root, graph.centre}  # on the midline
    assert len(set(common_names(graph.joints))) == graph.num_joints


def test_known_places():
    """A joint here and there, by the numbers in each layout's documentation."""
    places = {
        "coco17": {"nose": 0, "left shoulder": 5, "right ankle": 16},
        "openpose18": {"right wrist": 4, "left ankle": 13, "left ear": 17},
        "openpose25": {"hip centre": 8, "left big toe": 19, "right heel": 24},
        "blazepose33": {"left mouth": 9, "left hip": 23, "right foot index": 32},
        "h36m17": {"right hip": 1, "left hip": 4, "head": 10, "right wrist": 16},
        "smpl24": {"left foot": 10, "head": 15, "left wrist": 20, "right hand": 23},
        "azure32": {"left hand tip": 9, "right foot": 25, "head": 26, "right ear": 31},
        "utd20": {"head": 0, "left hand": 7, "right foot": 19},
    }
    for name, expected in places.items():
        joints = resolve_graph(name).joints
        assert {joint: joints.index(joint) for joint in expected} == expected


def test_other_names_lead_to_the_same_layouts():
    assert resolve_graph("kinect_v2") is NTU25
    assert resolve_graph("body25") is resolve_graph("openpose25")
    with pytest.raises(UserError, match="did you mean 'coco17'"):
        resolve_graph("coco-17")


@pytest.mark.parametrize("name", GRAPHS)
def test_a_layout_to_itself_is_the_identity(name):
    graph = GRAPHS[name]
    joints = clip(graph)
    converted, missing = convert_layout(joints, graph, graph)
    np.testing.assert_array_equal(converted, joints)
    assert not missing.any()


@pytest.mark.parametrize("name", SHARED)
def test_the_number_of_shared_joints(name):
    source = GRAPHS[name]
    assert tuple(len(shared_joints(source, GRAPHS[target])) for target in COLUMNS) == SHARED[name]
    assert set(SHARED) == set(GRAPHS)


def test_there_and_back_keeps_the_shared_joints():
    coco, joints = GRAPHS["coco17"], clip(NTU25)
    there, lost = convert_layout(joints, NTU25, coco)
    assert not lost.any() and not np.isnan(there).any()
    back, _ = convert_layout(there, coco, NTU25)
    for name in shared_joints(coco, NTU25):
        v = NTU25.joints.index(name)
        np.testing.assert_array_equal(back[:, :, v], joints[:, :, v])


def test_joints_in_the_middle_of_others_are_made():
    coco = GRAPHS["coco17"]
    joints = clip(coco, channels=2)
    made, missing = convert_layout(joints, coco, UCLA20)
    of = {name: joints[:, :, v] for v, name in enumerate(coco.joints)}
    hips = (of["left hip"] + of["right hip"]) / 2
    shoulders = (of["left shoulder"] + of["right shoulder"]) / 2
    for name, expected in {
        "hip centre": hips,
        "shoulder centre": shoulders,
        "spine": (hips + shoulders) / 2,
        "head": (of["left ear"] + of["right ear"]) / 2,
    }.items():
        found = made[:, :, UCLA20.joints.index(name)]
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not missing.any()


def test_untracked_limb_end_takes_the_last_tracked_joint():
    coco, joints = GRAPHS["coco17"], clip(GRAPHS["coco17"])
    for target in (UCLA20, NTU25):
        made, _ = convert_layout(joints, coco, target)
        for side in ("left", "right"):
            for end, last in {"hand": "wrist", "foot": "ankle"}.items():
                found = made[:, :, target.joints.index(f"{side} {end}")]
                wanted = joints[:, :, coco.joints.index(f"{side} {last}")]
                np.testing.assert_array_equal(found, wanted)
    tip = made[:, :, NTU25.joints.index("left hand tip")]
    np.testing.assert_array_equal(tip, joints[:, :, coco.joints.index("left wrist")])


def test_a_joint_without_a_rule_is_missing():
    cat = Graph("cat", ("head", "neck", "tail"), ((0, 1), (2, 1)), 1)
    made, missing = convert_layout(clip(NTU25), NTU25, cat)
    assert missing.tolist() == [False, False, True]
    assert np.isnan(made[:, :, 2]).all() and not np.isnan(made[:, :, :2]).any()


@pytest.mark.parametrize("value", [0, np.nan])
def test_joint_missing_in_all_frames_is_made_from_others(value):
    blaze = GRAPHS["blazepose33"]
    joints = clip(blaze)
    fingers = [blaze.joints.index(f"left {name}") for name in ("index", "pinky", "thumb")]
    joints[:, :, fingers] = value
    hand, wrist = UCLA20.joints.index("left hand"), blaze.joints.index("left wrist")
    made, missing = convert_layout(joints, blaze, UCLA20)
    np.testing.assert_array_equal(made[:, :, hand], joints[:, :, wrist])
    assert not missing.any()
    joints[2, 0, fingers] = 1  # seen once: all else is a gap, not another skeleton
    made, _ = convert_layout(joints, blaze, UCLA20)
    assert (made[2, 0, hand] == 1).all() and not np.nan_to_num(made[0, 0, hand]).any()


def test_a_confidence_is_mapped_with_the_coordinates():
    coco = GRAPHS["coco17"]
    joints = clip(coco, channels=3)
    joints[..., 2] = np.arange(17) / 17
    made, _ = convert_layout(joints, coco, UCLA20)
    hips = [coco.joints.index(f"{side} hip") / 17 for side in ("left", "right")]
    np.testing.assert_allclose(made[..., UCLA20.joints.index("hip centre"), 2], np.mean(hips))


def test_what_is_absent_is_not_averaged():
    coco = GRAPHS["coco17"]
    joints = clip(coco)
    left, right = coco.joints.index("left hip"), coco.joints.index("right hip")
    joints[0, 0, left] = 0  # the product's mark of a joint that is not there
    joints[1, 0, right] = np.nan
    joints[:, 1] = 0  # nobody
    made, _ = convert_layout(joints, coco, UCLA20)
    hips = made[:, :, UCLA20.joints.index("hip centre")]
    assert not hips[0, 0].any() and np.isnan(hips[1, 0]).all()
    assert not np.nan_to_num(made[:, 1]).any()


@pytest.mark.parametrize("source", GRAPHS)
def test_shares_add_up_to_one(source):
    for target in GRAPHS.values():
        for weights in conversion(GRAPHS[source], target):
            assert not weights or abs(sum(weights.values()) - 1) < 1e-6


def test_clips_and_skeletons_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="25"):
        convert_layout(clip(UCLA20), NTU25, UCLA20)
    rope = Graph("rope", ("a", "b"), ((1, 0),), 0)
    with pytest.raises(UserError, match="no joint of rope"):
        convert_layout(clip(rope), rope, NTU25)


@pytest.mark.parametrize(
    ("written", "common"),
    [
        (("LShoulder", "l_shoulder", "SHOULDER_LEFT", "Left Shoulder"), "left shoulder"),
        (("ShoulderRight", "right-shoulder", "R_Shoulder"), "right shoulder"),
        (("SpineBase", "MidHip", "Pelvis", "hips", "HipCenter"), "hip centre"),
        (("SpineMid", "spine2", "SPINE_NAVEL"), "spine"),
        (("HandTipLeft", "HANDTIP_LEFT"), "left hand tip"),
    ],
)
def test_names_as_people_write_them(written, common):
    assert {common_names([name])[0] for name in written} == {common}


def test_animation_bones_are_named_by_their_start():
    bones = ("Hips", "LeftUpLeg", "LeftLeg", "LeftFoot", "LeftToeBase")
    arms = ("LeftShoulder", "mixamorig:LeftArm", "LeftForeArm", "LeftHand")
    assert common_names(bones + arms) == (
        *("hip centre", "left hip", "left knee", "left ankle", "left foot"),
        *("left collar", "left shoulder", "left elbow", "left wrist"),
    )


def test_rules_speak_the_vocabulary():
    for name, groups in MADE_OF.items():
        for group in groups:
            assert common_names((name, *group)) == (name, *group)
