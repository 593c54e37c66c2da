"""Input streams: ten linear views of the joints.

Two families. `joint` and `bone` are CTR-GCN's: a bone is child minus parent, the root's is zero.
`k1`, `k2` and `kK` are InfoGCN's k-order modes (I - P^k) x, P[child, parent] = 1: a joint minus its
k-th ancestor, or the joint itself if it has fewer than k ancestors. With the suffix `_motion` each
is replaced by its difference to the next frame. NumPy only.
"""

import difflib
import functools
from collections.abc import Iterable

import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.graph import Graph

_POSES = ("joint", "bone", "k1", "k2", "kK")
_MOTION = "_motion"
STREAMS = (*_POSES, *(name + _MOTION for name in _POSES))

# HocSLM's six: joint, bone, second-order bone and their motions. We take its "bone" to be
# CTR-GCN's, because the paper uses that pipeline and every published bone score does too. `k1`
# differs only in the root joint, which it keeps instead of zeroing.
PAPER_STREAMS = ("joint", "bone", "k2", "joint_motion", "bone_motion", "k2_motion")


def make_stream(x: np.ndarray, name: str, graph: Graph) -> np.ndarray:
    """One stream of a clip.

    Args:
      x: float32 [M, T, V, C] joint coordinates, after cropping, normalising and augmenting.
      name: one of `STREAMS`.
      graph: the skeleton whose tree defines parents and ancestors.

    Returns:
      float32 [M, T, V, C]; it may be `x` itself, so do not write to it. The last frame of a motion
      is 0.

    Raises:
      UserError: unknown name.
    """
    check_choice("stream", name, STREAMS)
    pose = name.removesuffix(_MOTION)
    out = _pose(x, pose, graph)
    return _motion(out) if name.endswith(_MOTION) else out


def order(graph: Graph) -> int:
    """K, the smallest k with P^k = 0: the number of joints on the longest path from the root."""
    k, ancestors = 0, np.arange(graph.num_joints)
    while (ancestors >= 0).any():
        k += 1
        ancestors = ancestor(graph, k)
    return k


def check_choice(what: str, name: str, known: Iterable[str]) -> None:
    """Raises UserError with the nearest known name unless `name` is a known one."""
    known = tuple(known)
    if name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    raise UserError(f"unknown {what} {name!r}; {hint}")


@functools.lru_cache
def ancestor(graph: Graph, k: int) -> np.ndarray:
    """The k-th ancestor of every joint, int [V]; -1 where the path to the root is shorter."""
    parents = [-1 if v == graph.root else parent for v, parent in enumerate(graph.parents)]
    found = list(range(graph.num_joints))
    for _ in range(k):
        found = [-1 if v < 0 else parents[v] for v in found]
    return np.array(found)


def _pose(x: np.ndarray, pose: str, graph: Graph) -> np.ndarray:
    if pose in ("joint", "kK"):  # P^K = 0, so kK equals the joints
        return x
    origin, absent = _origin(pose, graph)
    out = np.take(x, origin, axis=2)
    if len(absent):
        out[:, :, absent] = 0
    return np.subtract(x, out, out=out)


@functools.lru_cache
def _origin(pose: str, graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """The joint to subtract from every joint, int [V], and the joints that have none."""
    if pose == "bone":
        return np.array(graph.parents), np.array([], int)
    origin = ancestor(graph, int(pose[1:]))
    return origin.clip(0), np.flatnonzero(origin < 0)


def _motion(x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    np.subtract(x[:, 1:], x[:, :-1], out=out[:, :-1])
    out[:, -1] = 0
    return out
