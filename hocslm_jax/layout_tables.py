"""Tables of common skeleton layouts: the joints in order, and the parent of each.

A layout's joints are written as `joint: parent`, in the order of its V axis; the one without a
parent is the root. Equivalent joints of two layouts have the same name, so that clips can be
converted by name; a comment gives the layout's own term if it differs. Left and right are the
person's own. `graph.GRAPHS` builds Graphs from these tables.
"""

from typing import NamedTuple


class Layout(NamedTuple):
    """A skeleton.

    Attributes:
      joints: `joint: parent`, separated by commas.
      centre: the joint on which clips are centred.
      up: the axis that points up in the usual coordinates of this layout; in images and camera
        coordinates y points down.
    """

    joints: str
    centre: str
    up: str


_KINECT_LIMBS = """
    left shoulder: shoulder centre, left elbow: left shoulder, left wrist: left elbow,
    left hand: left wrist,
    right shoulder: shoulder centre, right elbow: right shoulder, right wrist: right elbow,
    right hand: right wrist,
    left hip: hip centre, left knee: left hip, left ankle: left knee, left foot: left ankle,
    right hip: hip centre, right knee: right hip, right ankle: right knee, right foot: right ankle
"""

_SMPL = """
    pelvis, left hip: pelvis, right hip: pelvis, spine 1: pelvis,
    left knee: left hip, right knee: right hip, spine 2: spine 1,
    left ankle: left knee, right ankle: right knee, spine 3: spine 2,
    left foot: left ankle, right foot: right ankle, neck: spine 3,
    left collar: spine 3, right collar: spine 3, head: neck,
    left shoulder: left collar, right shoulder: right collar,
    left elbow: left shoulder, right elbow: right shoulder,
    left wrist: left elbow, right wrist: right elbow
"""

LAYOUTS = {
    # Kinect v2, as in NTU RGB+D (Shahroudy et al. 2016, figure 3). Root: spine at the shoulders.
    # The parents of the hand tips are the thumbs, as in CTR-GCN's bone list, a quirk of the
    # published bone streams. Microsoft's terms: SpineBase, SpineMid, SpineShoulder.
    "ntu25": Layout(
        """
        base of spine: mid spine, mid spine: shoulder spine, neck: shoulder spine, head: neck,
        left shoulder: shoulder spine, left elbow: left shoulder, left wrist: left elbow,
        left hand: left wrist,
        right shoulder: shoulder spine, right elbow: right shoulder, right wrist: right elbow,
        right hand: right wrist,
        left hip: base of spine, left knee: left hip, left ankle: left knee,
        left foot: left ankle,
        right hip: base of spine, right knee: right hip, right ankle: right knee,
        right foot: right ankle,
        shoulder spine, left hand tip: left thumb, left thumb: left hand,
        right hand tip: right thumb, right thumb: right hand
        """,
        centre="mid spine",
        up="y",
    ),
    # Kinect v1 as in Northwestern-UCLA (Wang et al. 2014), with CTR-GCN's bones. Root: shoulders.
    "ucla20": Layout(
        "hip centre: spine, spine: shoulder centre, shoulder centre, head: shoulder centre,"
        + _KINECT_LIMBS,
        centre="hip centre",
        up="y",
    ),
    # Kinect for Windows SDK 1.8, `JointType` and "Joint Orientation": the root is HipCenter.
    "kinect20": Layout(
        "hip centre, spine: hip centre, shoulder centre: spine, head: shoulder centre,"
        + _KINECT_LIMBS,
        centre="hip centre",
        up="y",
    ),
    # Kinect v1 in the order of UTD-MHAD's `d_skel` (Chen et al. 2015, the dataset's page).
    "utd20": Layout(
        "head: shoulder centre, shoulder centre: spine, spine: hip centre, hip centre,"
        + _KINECT_LIMBS,
        centre="hip centre",
        up="y",
    ),
    # Azure Kinect body tracking joints, learn.microsoft.com/azure/kinect-dk/body-joints.
    "azure32": Layout(
        """
        pelvis, spine navel: pelvis, spine chest: spine navel, neck: spine chest,
        left clavicle: spine chest, left shoulder: left clavicle, left elbow: left shoulder,
        left wrist: left elbow, left hand: left wrist, left hand tip: left hand,
        left thumb: left wrist,
        right clavicle: spine chest, right shoulder: right clavicle, right elbow: right shoulder,
        right wrist: right elbow, right hand: right wrist, right hand tip: right hand,
        right thumb: right wrist,
        left hip: pelvis, left knee: left hip, left ankle: left knee, left foot: left ankle,
        right hip: pelvis, right knee: right hip, right ankle: right knee,
        right foot: right ankle,
        head: neck, nose: head, left eye: head, left ear: head, right eye: head, right ear: head
        """,
        centre="pelvis",
        up="-y",
    ),
    # COCO keypoints 2017 (cocodataset.org, annotations/person_keypoints): the order. Its list of
    # limbs has cycles; this tree leaves the limbs between both eyes, ears, shoulders and hips out.
    "coco17": Layout(
        """
        nose, left eye: nose, right eye: nose, left ear: left eye, right ear: right eye,
        left shoulder: nose, right shoulder: nose,
        left elbow: left shoulder, right elbow: right shoulder,
        left wrist: left elbow, right wrist: right elbow,
        left hip: left shoulder, right hip: right shoulder, left knee: left hip,
        right knee: right hip, left ankle: left knee, right ankle: right knee
        """,
        centre="nose",
        up="-y",
    ),
    # OpenPose's COCO model, `POSE_COCO_BODY_PARTS` and `POSE_COCO_PAIRS` of poseParameters.cpp.
    # What it calls Neck is the middle of both shoulders.
    "openpose18": Layout(
        """
        nose: shoulder centre, shoulder centre,
        right shoulder: shoulder centre, right elbow: right shoulder, right wrist: right elbow,
        left shoulder: shoulder centre, left elbow: left shoulder, left wrist: left elbow,
        right hip: shoulder centre, right knee: right hip, right ankle: right knee,
        left hip: shoulder centre, left knee: left hip, left ankle: left knee,
        right eye: nose, left eye: nose, right ear: right eye, left ear: left eye
        """,
        centre="shoulder centre",
        up="-y",
    ),
    # OpenPose's BODY_25, `POSE_BODY_25_BODY_PARTS` and `POSE_BODY_25_PAIRS` of the same file. Neck
    # and MidHip are the middles of the shoulders and of the hips.
    "openpose25": Layout(
        """
        nose: shoulder centre, shoulder centre,
        right shoulder: shoulder centre, right elbow: right shoulder, right wrist: right elbow,
        left shoulder: shoulder centre, left elbow: left shoulder, left wrist: left elbow,
        hip centre: shoulder centre,
        right hip: hip centre, right knee: right hip, right ankle: right knee,
        left hip: hip centre, left knee: left hip, left ankle: left knee,
        right eye: nose, left eye: nose, right ear: right eye, left ear: left eye,
        left big toe: left ankle, left small toe: left big toe, left heel: left ankle,
        right big toe: right ankle, right small toe: right big toe, right heel: right ankle
        """,
        centre="hip centre",
        up="-y",
    ),
    # MediaPipe's pose landmarker (BlazePose GHUM 3D), developers.google.com/mediapipe, "Pose
    # landmark detection guide": the order. The tree is a subset of `POSE_CONNECTIONS`.
    "blazepose33": Layout(
        """
        nose, left eye inner: nose, left eye: left eye inner, left eye outer: left eye,
        right eye inner: nose, right eye: right eye inner, right eye outer: right eye,
        left ear: left eye outer, right ear: right eye outer, left mouth: nose, right mouth: nose,
        left shoulder: nose, right shoulder: nose,
        left elbow: left shoulder, right elbow: right shoulder,
        left wrist: left elbow, right wrist: right elbow,
        left pinky: left wrist, right pinky: right wrist,
        left index: left wrist, right index: right wrist,
        left thumb: left wrist, right thumb: right wrist,
        left hip: left shoulder, right hip: right shoulder, left knee: left hip,
        right knee: right hip, left ankle: left knee, right ankle: right knee,
        left heel: left ankle, right heel: right ankle,
        left foot index: left heel, right foot index: right heel
        """,
        centre="nose",
        up="-y",
    ),
    # Human3.6M (Ionescu et al. 2014), the 17 of its 32 joints that pose estimation uses (Martinez
    # et al. 2017). What it calls Foot is the ankle, Neck/Nose the neck.
    # Up: z in the world, -y in the cameras.
    "h36m17": Layout(
        """
        hip centre, right hip: hip centre, right knee: right hip, right ankle: right knee,
        left hip: hip centre, left knee: left hip, left ankle: left knee,
        spine: hip centre, thorax: spine, neck: thorax, head: neck,
        left shoulder: thorax, left elbow: left shoulder, left wrist: left elbow,
        right shoulder: thorax, right elbow: right shoulder, right wrist: right elbow
        """,
        centre="hip centre",
        up="z",
    ),
    # SMPL (Loper et al. 2015), `kintree_table` of the model; 22 are the body of SMPL-H and SMPL-X.
    "smpl22": Layout(_SMPL, centre="pelvis", up="y"),
    "smpl24": Layout(
        _SMPL.rstrip() + ", left hand: left wrist, right hand: right wrist", centre="pelvis", up="y"
    ),
}

OTHER_NAMES = {
    "kinect25": "ntu25",
    "kinect_v1": "kinect20",
    "kinect_v2": "ntu25",
    "azure_kinect": "azure32",
    "coco": "coco17",
    "body25": "openpose25",
    "mediapipe33": "blazepose33",
    "h36m": "h36m17",
}
