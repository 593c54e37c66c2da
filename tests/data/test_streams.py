"""The ten streams, on random clips and against the published second-order pairs."""

import numpy as np
import pytest

from hocslm_jax.data.streams import PAPER_STREAMS, STREAMS, ancestor, make_stream, order
from hocslm_jax.errors import UserError
from hocslm_jax.graph import NTU25, UCLA20, parent_matrix

# Joint minus grandparent on the NTU tree, 0-based, -1 keeps the joint: the list LA-GCN publishes.
SECOND_ORDER_NTU = (
    *(20, -1, -1, 20, -1, 20, 4, 5, -1, 20, 8, 9, 1),
    *(0, 12, 13, 1, 0, 16, 17, -1, 7, 6, 11, 10),
)


def clip(graph, frames=6, persons=2):
    rng = np.random.default_rng(0)
    return rng.normal(size=(persons, frames, graph.num_joints, 3)).astype(np.float32)


def test_second_order_pairs_are_the_published_ones():
    assert tuple(ancestor(NTU25, 2)) == SECOND_ORDER_NTU


@pytest.mark.parametrize("graph", [NTU25, UCLA20], ids=lambda graph: graph.name)
def test_order_is_the_smallest_vanishing_power(graph):
    parent = parent_matrix(graph)
    assert order(graph) == 7
    assert np.linalg.matrix_power(parent, 6).any()
    assert not np.linalg.matrix_power(parent, 7).any()


@pytest.mark.parametrize("graph", [NTU25, UCLA20], ids=lambda graph: graph.name)
@pytest.mark.parametrize(("name", "k"), [("k1", 1), ("k2", 2), ("kK", 7)])
def test_k_order_streams_are_the_matrix_form(graph, name, k):
    x = clip(graph)
    matrix = np.eye(graph.num_joints) - np.linalg.matrix_power(parent_matrix(graph), k)
    np.testing.assert_allclose(make_stream(x, name, graph), matrix @ x, atol=1e-6)


def test_highest_order_is_the_joints():
    x = clip(NTU25)
    np.testing.assert_array_equal(make_stream(x, "kK", NTU25), make_stream(x, "joint", NTU25))


def test_bone_is_child_minus_parent_with_zero_root():
    x = clip(UCLA20)
    bone = make_stream(x, "bone", UCLA20)
    for child, parent in UCLA20.edges:
        np.testing.assert_array_equal(bone[:, :, child], x[:, :, child] - x[:, :, parent])
    assert not bone[:, :, UCLA20.root].any()


def test_bone_and_first_order_differ_at_the_root_alone():
    x = clip(NTU25)
    bone, first = make_stream(x, "bone", NTU25), make_stream(x, "k1", NTU25)
    differs = (bone != first).any(axis=(0, 1, 3))
    assert np.flatnonzero(differs).tolist() == [NTU25.root]
    np.testing.assert_array_equal(first[:, :, NTU25.root], x[:, :, NTU25.root])


@pytest.mark.parametrize("pose", ["joint", "bone", "k1", "k2", "kK"])
def test_motion_is_the_step_to_the_next_frame_and_ends_in_zero(pose):
    x = clip(NTU25)
    still, motion = make_stream(x, pose, NTU25), make_stream(x, f"{pose}_motion", NTU25)
    np.testing.assert_array_equal(motion[:, :-1], still[:, 1:] - still[:, :-1])
    assert not motion[:, -1].any()


def test_one_frame_has_no_motion():
    assert not make_stream(clip(NTU25, frames=1), "joint_motion", NTU25).any()


@pytest.mark.parametrize("name", STREAMS)
def test_streams_keep_shape_and_type_and_do_not_change_the_clip(name):
    x = clip(NTU25)
    before = x.copy()
    out = make_stream(x, name, NTU25)
    assert out.shape == x.shape
    assert out.dtype == np.float32
    np.testing.assert_array_equal(x, before)


def test_the_papers_six_are_six_different_streams():
    x = clip(NTU25)
    outs = [make_stream(x, name, NTU25) for name in PAPER_STREAMS]
    assert len(outs) == 6
    assert all(not np.array_equal(a, b) for i, a in enumerate(outs) for b in outs[:i])


def test_unknown_stream_names_the_nearest():
    with pytest.raises(UserError, match=r"'bone_motoin'.*'bone_motion'"):
        make_stream(clip(NTU25), "bone_motoin", NTU25)
