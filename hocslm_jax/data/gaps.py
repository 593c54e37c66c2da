"""Marks joints that a sensor or a pose estimator lost as NaN, and fills short gaps over time.

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
    """A float32 copy in which missing joints are NaN.

    A joint is missing if all its coordinates are `value`, if any is NaN or infinite, or if its
    confidence is NaN or at most `least`.

    Args:
      joints: [T, M, V, C].
      value: the number that the source writes for a missing joint, e.g. 0; None = no such number.
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
    """Fills the gaps in the path of each joint that are at most `longest` frames long.

    Inside a clip a gap is interpolated linearly between its neighbours in time; at its start or end
    the nearest value is held. A longer gap stays as it is, and so does a joint that is never seen.
    Known values never change. With `longest` 0 nothing is filled.

    Args:
      joints: float [T, M, V, C]; a joint with any NaN is missing.
      longest: in frames.

    Returns:
      (float32 [T, M, V, C], bool [T, M, V]: which joints are still missing, with all coordinates
      NaN).
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
