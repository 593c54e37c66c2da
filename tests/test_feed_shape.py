"""The feed benchmark at NTU's shape: it measures every setting, on clips of that shape."""

import argparse

import numpy as np
import pytest

from benchmarks import feed, ntu_shape


def test_every_setting_is_measured():
    options = {"stored": 70, "clips": 64, "repetitions": 1, "threads": [0, 2]}
    result = ntu_shape.measure(argparse.Namespace(**options), feed.clips_per_second, feed.summary)
    settings = [(row["stream"], row["cache"], row["threads"]) for row in result["feed_rates"]]
    assert len(settings) == len(set(settings)) == 8
    assert all(row["median"] > 0 and row["min"] <= row["max"] for row in result["feed_rates"])
    assert len(ntu_shape.report(result).splitlines()) == 10


def test_the_clips_have_ntus_lengths_and_persons():
    shapes = np.array([clip.joints.shape for clip in ntu_shape.clips(500)])
    assert shapes[:, 0].mean() == pytest.approx(ntu_shape.MEAN_FRAMES, rel=0.05)
    assert (shapes[:, 1] == 2).mean() == pytest.approx(ntu_shape.TWO_PERSONS, abs=0.05)
    assert (shapes[:, 2:] == (25, 3)).all()
