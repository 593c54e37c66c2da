"""The skeleton as data: joint names, bones and a root.

A `Graph` flows into the streams (which joint is the parent of which) and into the encoders (the
static adjacency that every topology starts from). NTU-25 and NW-UCLA-20 are built in; a user's own
skeleton is a mapping with the same four fields, in a config or in a `graph.json`. NumPy only.
"""

import dataclasses
import difflib
import functools
from collections.abc import Mapping

import numpy as np

from hocslm_jax.errors import UserError

MAX_JOINTS = 1000  # whole-body skeletons with hands and face have 133 to 543


@dataclasses.dataclass(frozen=True)
class Graph:
    """A rooted tree of joints.

    Attributes:
      name: short name, used in messages and records.
      joints: joint names; their order is the order of the V axis.
      edges: the bones as (child, parent) pairs, 0-based, one for every joint but the root.
      root: index of the joint that has no parent.
      centre: index of the joint that clips in a sensor's coordinates are moved to; -1 = the root.

    Raises:
      UserError: when the edges do not form one tree over all joints.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    root: int
    centre: int = -1

    def __post_init__(self):
        _check_tree(self)
        if self.centre == -1:
            object.__setattr__(self, "centre", self.root)

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @property
    def parents(self) -> tuple[int, ...]:
        """Parent of every joint; the root is its own parent."""
        parents = {self.root: self.root} | dict(self.edges)
        return tuple(parents[v] for v in range(self.num_joints))

    def as_mapping(self) -> dict:
        """The fields as plain JSON types, without a usual centre: `resolve_graph`'s inverse."""
        fields = {
            "name": self.name,
            "joints": list(self.joints),
            "edges": [list(edge) for edge in self.edges],
            "root": self.root,
        }
        usual = self.centre == _usual_centre(self.joints, self.root)
        return fields if usual else fields | {"centre": self.centre}


def resolve_graph(spec: str | Mapping | Graph) -> Graph:
    """Turns a built-in name or a mapping (`name`, `joints`, `edges`, `root`) into a Graph.

    A mapping may also have `centre`; by default it is that of the built-in skeleton of these
    joints, else the root.

    Raises:
      UserError: unknown name (with the nearest known one), a missing field, or edges that are no
        tree.
    """
    if isinstance(spec, Graph):
        return spec
    if isinstance(spec, str):
        if spec in GRAPHS:
            return GRAPHS[spec]
        near = difflib.get_close_matches(spec, GRAPHS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(GRAPHS)}"
        raise UserError(f"unknown graph {spec!r}{hint}")
    if not isinstance(spec, Mapping):
        raise UserError(f"a graph is a name or an object with joints, edges and root, not {spec!r}")
    name = str(spec.get("name", "?"))[:50]
    missing = {"joints", "edges", "root"} - set(spec)
    if missing:
        raise UserError(f"graph {name!r} lacks {', '.join(sorted(missing))}")
    if not isinstance(spec["joints"], list | tuple) or len(spec["joints"]) > MAX_JOINTS:
        raise UserError(f"graph {name!r}: joints must be a list of at most {MAX_JOINTS} names")
    try:
        edges = tuple((int(child), int(parent)) for child, parent in spec["edges"])
        joints, root = tuple(map(str, spec["joints"])), int(spec["root"])
        centre = int(spec.get("centre", _usual_centre(joints, root)))
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"graph {name!r}: edges must be [child, parent] index pairs ({error})"
        ) from None
    return Graph(str(spec.get("name", "custom")), joints, edges, root, centre)


def parent_matrix(graph: Graph) -> np.ndarray:
    """P, float32 [V, V]: P[child, parent] = 1; the root's row is zero."""
    matrix = np.zeros((graph.num_joints, graph.num_joints), np.float32)
    for child, parent in graph.edges:
        matrix[child, parent] = 1.0
    return matrix


@functools.lru_cache
def other_side(graph: Graph) -> np.ndarray:
    """For every joint the one that takes its place in a mirror, int [V], by the joints' names.

    "left hand" and "right hand" change places; a joint whose name starts with neither stays.

    Raises:
        UserError: no joint has another side, or one lacks its counterpart.
    """
    places = {name.lower(): v for v, name in enumerate(graph.joints)}
    swap = list(range(graph.num_joints))
    for name, v in places.items():
        for here, there in (("left", "right"), ("right", "left")):
            if not name.startswith(here):
                continue
            other = there + name.removeprefix(here)
            if other not in places:
                raise UserError(f"graph {graph.name!r}: no joint {other!r} to mirror {name!r} with")
            swap[v] = places[other]
    if swap == list(range(graph.num_joints)):
        raise UserError(
            f"graph {graph.name!r} cannot be mirrored: no joint is named 'left …' or 'right …'"
        )
    return np.array(swap)


def adjacency(graph: Graph) -> np.ndarray:
    """The three spatial subsets of CTR-GCN, float32 [3, V, V]; rows receive, columns send.

    Identity, inward (entry [parent, child], columns sum to 1: every child has one parent) and
    outward (entry [child, parent], each column divided by the parent's number of children).
    """
    outward = parent_matrix(graph)  # [V, V]
    inward = outward.T
    children = np.maximum(outward.sum(axis=0, keepdims=True), 1.0)
    identity = np.eye(graph.num_joints, dtype=np.float32)
    return np.stack([identity, inward, outward / children]).astype(np.float32)


def _check_tree(graph: Graph) -> None:
    count = len(graph.joints)
    children = [child for child, _ in graph.edges]
    where = f"graph {graph.name!r}"
    if not count:
        raise UserError(f"{where} has no joints")
    if len(set(graph.joints)) != count:
        raise UserError(f"{where}: joint names must be unique")
    if not 0 <= graph.root < count:
        raise UserError(f"{where}: root {graph.root} is not one of the {count} joints (0-based)")
    if not -1 <= graph.centre < count:
        raise UserError(
            f"{where}: centre {graph.centre} is not one of the {count} joints (0-based)"
        )
    outside = [edge for edge in graph.edges if not all(0 <= v < count for v in edge)]
    if outside:
        raise UserError(f"{where}: edge {outside[0]} names a joint outside 0..{count - 1}")
    if sorted(children) != [v for v in range(count) if v != graph.root]:
        root = graph.joints[graph.root]
        raise UserError(f"{where}: every joint but the root ({root}) needs exactly one parent")
    parents = dict(graph.edges)
    for start in children:
        joint, steps = start, 0
        while joint != graph.root and steps < count:
            joint, steps = parents.get(joint, graph.root), steps + 1
        if joint != graph.root:
            raise UserError(f"{where}: joint {graph.joints[start]!r} is on a cycle")


def _usual_centre(joints: tuple[str, ...], root: int) -> int:
    same = (graph.centre for graph in GRAPHS.values() if graph.joints == joints)
    return next(same, root)


def _one_based(pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    return tuple((child - 1, parent - 1) for child, parent in pairs)


# Kinect v2. Root: spine at the shoulders. The hand tips hang from the thumbs as in CTR-GCN's bone
# list, a quirk that the published bone streams share (22 -> 23 -> 8 in 1-based joint numbers).
NTU25 = Graph(
    name="ntu25",
    joints=(
        *("base of spine", "mid spine", "neck", "head"),
        *("left shoulder", "left elbow", "left wrist", "left hand"),
        *("right shoulder", "right elbow", "right wrist", "right hand"),
        *("left hip", "left knee", "left ankle", "left foot"),
        *("right hip", "right knee", "right ankle", "right foot"),
        *("shoulder spine", "left hand tip", "left thumb", "right hand tip", "right thumb"),
    ),
    edges=_one_based(
        (
            *((1, 2), (2, 21), (3, 21), (4, 3)),
            *((5, 21), (6, 5), (7, 6), (8, 7)),
            *((9, 21), (10, 9), (11, 10), (12, 11)),
            *((13, 1), (14, 13), (15, 14), (16, 15)),
            *((17, 1), (18, 17), (19, 18), (20, 19)),
            *((22, 23), (23, 8), (24, 25), (25, 12)),
        )
    ),
    root=20,
    centre=1,
)

# Kinect v1, as in Northwestern-UCLA. Root: shoulder centre.
UCLA20 = Graph(
    name="ucla20",
    joints=(
        *("hip centre", "spine", "shoulder centre", "head"),
        *("left shoulder", "left elbow", "left wrist", "left hand"),
        *("right shoulder", "right elbow", "right wrist", "right hand"),
        *("left hip", "left knee", "left ankle", "left foot"),
        *("right hip", "right knee", "right ankle", "right foot"),
    ),
    edges=_one_based(
        (
            *((1, 2), (2, 3), (4, 3)),
            *((5, 3), (6, 5), (7, 6), (8, 7)),
            *((9, 3), (10, 9), (11, 10), (12, 11)),
            *((13, 1), (14, 13), (15, 14), (16, 15)),
            *((17, 1), (18, 17), (19, 18), (20, 19)),
        )
    ),
    root=2,
    centre=0,
)

GRAPHS = {graph.name: graph for graph in (NTU25, UCLA20)}
