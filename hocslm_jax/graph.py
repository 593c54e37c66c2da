"""The skeleton as data: joint names, bones and a root.

Streams use a `Graph` to find the parent of each joint, and encoders to build the static adjacency
that every topology starts from. Common layouts are built in (`layout_tables`); users describe their
own skeleton by a mapping with the same fields, in a config or in a `graph.json`. NumPy only.
"""

import collections
import dataclasses
import difflib
import functools
from collections.abc import Mapping

import numpy as np

from hocslm_jax.errors import UserError, few
from hocslm_jax.layout_tables import LAYOUTS, OTHER_NAMES, Layout

MAX_JOINTS = 1000  # whole-body skeletons with hands and face have 133 to 543
UPWARDS = ("x", "-x", "y", "-y", "z", "-z")


@dataclasses.dataclass(frozen=True)
class Graph:
    """A rooted tree of joints.

    Attributes:
      name: short name, used in messages and records.
      joints: joint names; their order is the order of the V axis.
      edges: the bones as (child, parent) pairs, 0-based, one for every joint except the root.
      root: index of the joint that has no parent.
      centre: index of the joint that clips in a sensor's coordinates are centred on; -1 = root.
      up: the axis that points up, of `UPWARDS`.

    Raises:
      UserError: the edges do not form one tree over all joints.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    root: int
    centre: int = -1
    up: str = "y"

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
        """The fields as plain JSON types; the inverse of `resolve_graph`.

        Default values of `centre` and `up` are left out, so that an index written before these
        fields existed is equal.
        """
        fields = {
            "name": self.name,
            "joints": list(self.joints),
            "edges": [list(edge) for edge in self.edges],
            "root": self.root,
        }
        centre, up = _usual(self.joints, self.root)
        fields |= {} if self.centre == centre else {"centre": self.centre}
        return fields if self.up == up else fields | {"up": self.up}


def resolve_graph(spec: str | Mapping | Graph) -> Graph:
    """Turns a built-in name or a mapping (`name`, `joints`, `edges`, `root`) into a Graph.

    A mapping gives joints by name or by 0-based index. It may also have `centre` and `up`; they
    default to those of the built-in skeleton with the same joints, otherwise to the root and y.

    Raises:
      UserError: unknown name (with the nearest known one), a missing field, an unknown joint, or
        edges that do not form a tree.
    """
    if isinstance(spec, Graph):
        return spec
    if isinstance(spec, str):
        return _built_in(spec)
    if not isinstance(spec, Mapping):
        raise UserError(f"a graph is a name or an object with joints, edges and root, not {spec!r}")
    where = f"graph {str(spec.get('name', '?'))[:50]!r}"
    missing = {"joints", "edges", "root"} - set(spec)
    if missing:
        raise UserError(f"{where} lacks {', '.join(sorted(missing))}")
    if not isinstance(spec["joints"], list | tuple) or len(spec["joints"]) > MAX_JOINTS:
        raise UserError(f"{where}: joints must be a list of at most {MAX_JOINTS} names")
    joints = tuple(map(str, spec["joints"]))
    places = {name: v for v, name in enumerate(joints)}
    try:
        edges = tuple(
            (_place(child, places), _place(parent, places)) for child, parent in spec["edges"]
        )
        root = _place(spec["root"], places)
        centre, up = _usual(joints, root)
        centre = _place(spec["centre"], places) if "centre" in spec else centre
    except KeyError as error:
        raise UserError(
            f"{where}: {str(error.args[0])[:50]!r} is not one of its joints: {few(joints)}"
        ) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{where}: edges must be [child, parent] pairs of joint names or indices ({error})"
        ) from None
    return Graph(str(spec.get("name", "custom")), joints, edges, root, centre, spec.get("up", up))


def _place(joint: object, places: Mapping[str, int]) -> int:
    """Index of a joint given by name or index. Raises KeyError for an unknown name."""
    return places[joint] if isinstance(joint, str) else int(joint)


def _built_in(name: str) -> Graph:
    name = OTHER_NAMES.get(name, name)
    if name in GRAPHS:
        return GRAPHS[name]
    near = difflib.get_close_matches(name, (*GRAPHS, *OTHER_NAMES), n=1)
    hint = f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(GRAPHS)}"
    raise UserError(f"unknown graph {name!r}{hint}")


def parent_matrix(graph: Graph) -> np.ndarray:
    """P, float32 [V, V]: P[child, parent] = 1; the root's row is zero."""
    matrix = np.zeros((graph.num_joints, graph.num_joints), np.float32)
    for child, parent in graph.edges:
        matrix[child, parent] = 1.0
    return matrix


@functools.lru_cache
def other_side(graph: Graph) -> np.ndarray:
    """Index of every joint's mirror image, int [V], found by the joints' names.

    "left hand" and "right hand" swap; a joint whose name starts with neither side keeps its index.

    Raises:
        UserError: no joint has a side, or one lacks its counterpart.
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
    joints, count, where = graph.joints, len(graph.joints), f"graph {graph.name!r}"
    if not count:
        raise UserError(f"{where} has no joints")
    if twice := [name for name, times in collections.Counter(joints).items() if times > 1]:
        raise UserError(f"{where}: two joints are named {twice[0]!r}; names must be unique")
    if not 0 <= graph.root < count:
        raise UserError(f"{where}: root {graph.root} is not one of the {count} joints (0-based)")
    if not -1 <= graph.centre < count:
        raise UserError(
            f"{where}: centre {graph.centre} is not one of the {count} joints (0-based)"
        )
    if graph.up not in UPWARDS:
        raise UserError(f"{where}: up is {str(graph.up)[:50]!r}, not one of {', '.join(UPWARDS)}")
    outside = [edge for edge in graph.edges if not all(0 <= v < count for v in edge)]
    if outside:
        raise UserError(f"{where}: edge {outside[0]} names a joint outside 0..{count - 1}")
    _check_parents(graph, where)


def _check_parents(graph: Graph, where: str) -> None:
    """Checks that every joint but the root has one parent, and that every path ends at the root."""
    joints, parents = graph.joints, {}
    for child, parent in graph.edges:
        if child == graph.root:
            raise UserError(
                f"{where}: the root {joints[child]!r} has the parent {joints[parent]!r}; "
                "a bone is [child, parent]"
            )
        if child in parents:
            both = f"{joints[parents[child]]!r} and {joints[parent]!r}"
            raise UserError(f"{where}: joint {joints[child]!r} has two parents, {both}")
        parents[child] = parent
    for v, name in enumerate(joints):
        if v != graph.root and v not in parents:
            raise UserError(
                f"{where}: joint {name!r} is unconnected: no edge gives it a parent, and the root "
                f"is {joints[graph.root]!r}"
            )
    for start in parents:
        joint, steps = start, 0
        while joint != graph.root and steps < len(joints):
            joint, steps = parents[joint], steps + 1
        if joint != graph.root:
            raise UserError(f"{where}: joint {joints[start]!r} is on a cycle")


def _usual(joints: tuple[str, ...], root: int) -> tuple[int, str]:
    """(centre, up) of the built-in skeleton with these joints, otherwise the root and y."""
    same = ((graph.centre, graph.up) for graph in GRAPHS.values() if graph.joints == joints)
    return next(same, (root, "y"))


def _from_table(name: str, layout: Layout) -> Graph:
    rows = [row.partition(":") for row in layout.joints.split(",")]
    joints = tuple(joint.strip() for joint, _, _ in rows)
    parents = [parent.strip() for _, _, parent in rows]
    edges = tuple((v, joints.index(parent)) for v, parent in enumerate(parents) if parent)
    return Graph(name, joints, edges, parents.index(""), joints.index(layout.centre), layout.up)


GRAPHS = {name: _from_table(name, layout) for name, layout in LAYOUTS.items()}
NTU25, UCLA20 = GRAPHS["ntu25"], GRAPHS["ucla20"]
