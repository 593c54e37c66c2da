"""Joints and frames that a sensor or a pose estimator lost: marked as NaN, and filled over time.

In and out: joints [T, M, V, C], NaN where something is missing. NumPy only.
"""

import numpy as np

LONGEST = 10  # frames, a third of a second of most sensors


def mark_missing(
    joints: np.ndarray,
    value: float | None = None,
    confidence: np.ndarray | None = None,
    least: float = 0.0,
) -> np.ndarray:
    """A copy, float32, in which what is missing is NaN.

    A joint is missing whose coordinates are all `value`, or of which any is NaN or infinite, or
    whose confidence is NaN or not above `least`.

    Args:
      joints: [T, M, V, C].
      value: what the source writes for a missing joint, e.g. 0; None = nothing.
      confidence: [T, M, V].
    """
    joints = np.array(joints, np.float32)
    missing = ~np.isfinite(joints).all(axis=-1)  # [T, M, V]
    if value is not None:
        missing |= (joints == np.float32(value)).all(axis=-1)
    if confidence is not None:
        missing |= ~(confidence > least)
    joints[missing] = np.nan
    return joints


def fill_gaps(joints: np.ndarray, longest: int = LONGEST) -> tuple[np.ndarray, np.ndarray]:
    """Fills the gaps in each joint's way that are not longer than `longest` frames.

    Inside a clip a gap is interpolated linearly between its neighbours in time; at its start or end
    the nearest value is held. A longer gap stays as it is, all of it, and so does a joint that is
    never seen; nothing that was there changes. 0 fills nothing.

    Args:
      joints: float [T, M, V, C]; a joint with any NaN is missing.
      longest: in frames.

    Returns:
      (float32 [T, M, V, C], what is missing still, bool [T, M, V]; there all coordinates are NaN).
    """
    joints = mark_missing(joints)
    frames = len(joints)
    ways = joints.reshape(frames, int(np.prod(joints.shape[1:3])), joints.shape[3])  # [T, N, C]
    seen = ~np.isnan(ways).any(axis=-1)  # [T, N]
    time = np.arange(frames)[:, None]
    before = np.maximum.accumulate(np.where(seen, time, -1), axis=0)  # [T, N]; -1 = never
    after = np.minimum.accumulate(np.where(seen, time, frames)[::-1], axis=0)[::-1]
    fill = ~seen & (after - before - 1 <= longest) & ((before >= 0) | (after < frames))
    t, n = np.nonzero(fill)
    first, last = before[t, n], after[t, n]
    first, last = np.where(first < 0, last, first), np.where(last == frames, first, last)
    share = ((t - first) / np.maximum(last - first, 1)).astype(np.float32)[:, None]
    ways[t, n] = ways[first, n] * (1 - share) + ways[last, n] * share
    return joints, np.isnan(joints).any(axis=-1)
