"""A file of any format as a clip of one skeleton, for `prepare folder` and `predict`.

In: a path and the skeleton wanted. Out: joints float32 [T, M, V, 3] in metres, upright, in the
order of that skeleton; short gaps are filled over time, and what is still missing is 0.
"""

from pathlib import Path

import numpy as np

from hocslm_jax.data.gaps import fill_gaps
from hocslm_jax.data.prepare.readers.formats import FORMATS, as_declared, read_recording
from hocslm_jax.data.prepare.readers.recording import as_layout, in_metres, turned_up
from hocslm_jax.errors import few
from hocslm_jax.graph import Graph

SUFFIXES = tuple(dict.fromkeys(suffix for kind in FORMATS.values() for suffix in kind.suffixes))


def read_as(path: Path, graph: Graph | None) -> np.ndarray:
    """The clip in a file, in the joints of `graph`, or without one in its own.

    Raises:
      ValueError: 2D coordinates, an unknown unit or layout, or joints that `graph` has and the file
        has no source for.
      UserError: the file cannot be read.
    """
    recording = read_recording(path)
    if recording.joints.shape[-1] != 3:
        raise ValueError("its joints have two coordinates; three are needed")
    if recording.unit is None:
        raise ValueError("its unit cannot be told from the size of a body; convert it to metres")
    recording = turned_up(in_metres(recording), graph.up if graph else "y")
    if graph:
        if recording.layout is None and recording.joints.shape[2] == graph.num_joints:
            recording = as_declared(recording, graph)
        recording, missing = as_layout(recording, graph)
        if missing.any():
            lost = few(graph.joints[v] for v in np.flatnonzero(missing))
            raise ValueError(f"it has no joints for {lost} of {graph.name}")
    joints, _ = fill_gaps(recording.joints)
    return np.nan_to_num(joints, nan=0.0)
