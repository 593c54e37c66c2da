"""Built-in skeletons and a user's own: trees, subsets, and what is refused."""

import numpy as np
import pytest

from hocslm_jax.errors import UserError
from hocslm_jax.graph import (
    NTU25,
    UCLA20,
    Graph,
    adjacency,
    other_side,
    parent_matrix,
    resolve_graph,
)

BODY = {"name": "arm", "joints": ["s", "e", "w"], "edges": [[1, 0], [2, 1]], "root": 0}


@pytest.mark.parametrize(("graph", "joints", "root"), [(NTU25, 25, 20), (UCLA20, 20, 2)])
def test_built_in_trees(graph, joints, root):
    assert graph.num_joints == joints
    assert graph.root == root
    assert len(graph.edges) == joints - 1
    assert graph.parents[root] == root


def test_hand_tips_hang_from_the_thumbs():
    """CTR-GCN's bone list: tip 21 from thumb 22, thumb 22 from hand 7 (0-based)."""
    assert (NTU25.parents[21], NTU25.parents[22]) == (22, 7)
    assert (NTU25.parents[23], NTU25.parents[24]) == (24, 11)


@pytest.mark.parametrize("graph", [NTU25, UCLA20, resolve_graph(BODY)])
def test_subsets(graph):
    identity, inward, outward = adjacency(graph)
    parents = parent_matrix(graph)
    np.testing.assert_array_equal(identity, np.eye(graph.num_joints))
    np.testing.assert_array_equal(inward, parents.T)
    assert np.count_nonzero(outward) == graph.num_joints - 1
    np.testing.assert_array_equal(outward > 0, parents > 0)
    sums = outward.sum(axis=0)
    np.testing.assert_allclose(sums[parents.sum(axis=0) > 0], 1.0, rtol=1e-6)


def test_a_mapping_may_name_its_joints():
    named = {"edges": [["e", "s"], ["w", "e"]], "root": "s", "centre": "e"}
    assert resolve_graph(BODY | named) == resolve_graph(BODY | {"centre": 1})


def test_mapping_round_trip():
    graph = resolve_graph(BODY)
    assert resolve_graph(graph.as_mapping()) == graph
    assert resolve_graph("ntu25") is NTU25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"edges": [[1, 0]]}, "joint 'w' is unconnected"),
        ({"edges": [[1, 2], [2, 1]]}, "cycle"),
        ({"edges": [[1, 0], [2, 1], [2, 0]]}, "'w' has two parents, 'e' and 's'"),
        ({"edges": [[1, 0], [2, 1], [0, 1]]}, "root 's' has the parent 'e'"),
        ({"edges": [["e", "s"], ["w", "elbow"]]}, "'elbow' is not one of its joints"),
        ({"root": "shoulder"}, "'shoulder' is not one of its joints"),
        ({"centre": "hip"}, "'hip' is not one of its joints"),
        ({"up": "w"}, "up is 'w'"),
        ({"edges": [[1, 0], [3, 0]]}, "outside 0..2"),
        ({"root": 3}, "root 3"),
        ({"joints": ["s", "s", "w"]}, "unique"),
        ({"joints": []}, "no joints"),
        ({"edges": [[1], [2, 1]]}, "child, parent"),
    ],
)
def test_what_is_no_tree_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        resolve_graph(BODY | changes)


def test_unknown_names_and_missing_fields():
    with pytest.raises(UserError, match="did you mean 'ntu25'"):
        resolve_graph("ntu_25")
    with pytest.raises(UserError, match="lacks root"):
        resolve_graph({"name": "x", "joints": ["a"], "edges": []})


def test_other_side_pairs_left_with_right():
    for graph in (NTU25, UCLA20):
        swap = other_side(graph)
        assert (swap[swap] == np.arange(graph.num_joints)).all()
        for v, name in enumerate(graph.joints):
            left = name.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")
            assert graph.joints[swap[v]] == left
        bones = {frozenset(edge) for edge in graph.edges}
        assert {frozenset(swap[list(edge)].tolist()) for edge in graph.edges} == bones


def test_names_without_sides_cannot_be_mirrored():
    with pytest.raises(UserError, match="cannot be mirrored"):
        other_side(Graph("rope", ("a", "b"), ((1, 0),), 0))
    with pytest.raises(UserError, match="no joint 'right arm'"):
        other_side(Graph("half", ("trunk", "Left Arm"), ((1, 0),), 0))
