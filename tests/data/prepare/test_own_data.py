"""Clips of any origin, with empty frames and several persons, as the network sees them."""

import types

import numpy as np
import pytest
from toy_dataset import Memory

from hocslm_jax.data.feeder import Feed, build_batch
from hocslm_jax.data.sampling import FEEDERS, centred, ntu, with_somebody
from hocslm_jax.errors import UserError
from hocslm_jax.graph import GRAPHS, NTU25, UCLA20, resolve_graph

CAMERA = np.array([0.3, -0.2, 2.7], np.float32)
STICK = {"name": "stick", "joints": ["hip", "head"], "edges": [[1, 0]], "root": 0}


def body(frames=40, persons=1, joints=20):
    """Somebody who walks, with the graph's centre joint at the origin in frame 0."""
    clip = np.random.default_rng(1).normal(size=(frames, persons, joints, 3)).astype(np.float32)
    return clip - clip[0, 0, UCLA20.centre]


def fed(clip, data, seed=None):
    store = Memory([clip])
    feed = Feed.from_config({"frames": 16, **data}, store)
    return build_batch(store, feed, UCLA20, seed, [(0, 0)])["x"][0]


@pytest.mark.parametrize("seed", [None, 3], ids=["test", "train"])
@pytest.mark.parametrize("feeder", FEEDERS)
def test_where_the_sensor_stood_does_not_matter(feeder, seed):
    wanted = fed(body(), {"feeder": feeder}, seed)
    found = fed(body() + CAMERA, {"feeder": feeder}, seed)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_an_origin_that_is_kept():
    found = fed(body() + CAMERA, {"feeder": "ntu", "origin": "kept"})
    wanted = fed(body(), {"feeder": "ntu", "origin": "kept"})
    np.testing.assert_allclose(
        found[0] - wanted[0], np.broadcast_to(CAMERA, (16, 20, 3)), atol=1e-5
    )
    with pytest.raises(UserError, match=r"data.origin 'bodi'; did you mean 'body'"):
        Feed(origin="bodi")


@pytest.mark.parametrize("feeder", FEEDERS)
def test_clips_prepared_for_a_feeder_are_not_centred(feeder):
    store = Memory([body() + CAMERA], feeder=feeder)
    assert Feed.from_config({"feeder": feeder}, store).origin == ""
    (other,) = set(FEEDERS) - {feeder}
    assert Feed.from_config({"feeder": other}, store).origin == "body"


def test_num_persons_defaults_to_the_dataset():
    store = Memory([], num_persons=3)
    assert Feed.from_config({"feeder": "ntu", "num_persons": 0}, store).num_persons == 3
    assert Feed.from_config({"feeder": "ntu", "num_persons": 1}, store).num_persons == 1


@pytest.mark.parametrize("feeder", FEEDERS)
@pytest.mark.parametrize("places", [[0] * 25, [20] * 25, [40] * 25, [0] * 9 + [17] * 9 + [40] * 9])
def test_empty_frames_lose_no_others(feeder, places):
    clip = body() + CAMERA
    gaps = np.insert(clip, places, 0, axis=0)
    np.testing.assert_array_equal(fed(gaps, {"feeder": feeder}), fed(clip, {"feeder": feeder}))


def test_the_ntu_feeder_itself_finds_the_people():
    clip = body(15, joints=25)
    late = np.concatenate([np.zeros((25, 1, 25, 3), np.float32), clip])
    np.testing.assert_array_equal(ntu(late, frames=64), ntu(clip, frames=64))
    nobody = np.zeros((4, 1, 25, 3), np.float32)
    assert with_somebody(nobody) is nobody


def test_a_frame_of_a_person_who_is_left_out_is_empty():
    clip = np.concatenate([body(), body() + 1], axis=1)
    clip[:10, 0] = 0
    found = fed(clip, {"feeder": "ntu", "num_persons": 1})
    np.testing.assert_array_equal(found, fed(clip[10:, :1], {"feeder": "ntu"}))


def test_what_is_missing_stays_missing():
    clip = np.concatenate([body(), body() + 1], axis=1) + CAMERA
    clip[5:9, 1] = 0  # somebody leaves
    clip[:, 0, 7] = 0  # a joint that is never found
    moved = centred(clip, UCLA20.centre)
    assert not moved[5:9, 1].any() and not moved[:, 0, 7].any()
    there = clip.any(axis=-1)
    np.testing.assert_array_equal(moved[there], (clip - clip[0, 0, UCLA20.centre])[there])


def test_missing_centre_joint_is_taken_from_a_later_frame():
    clip = body() + CAMERA
    clip[:3, 0, UCLA20.centre] = 0
    moved = centred(clip, UCLA20.centre)
    np.testing.assert_allclose(moved[5, 0, 3], clip[5, 0, 3] - clip[3, 0, UCLA20.centre], atol=1e-6)
    clip[:, 0, UCLA20.centre] = 0
    pose = centred(clip, UCLA20.centre)[0, 0, 1:]
    np.testing.assert_allclose(pose.max(axis=0), -pose.min(axis=0), atol=1e-5)


def test_second_person_is_the_centre_if_the_first_is_absent():
    clip = np.concatenate([np.zeros_like(body()), body() + CAMERA], axis=1)
    np.testing.assert_allclose(centred(clip, 0)[:, 1], body()[:, 0], atol=1e-6)


def test_centred_clips_stay_bit_for_bit():
    clip = centred(body() + CAMERA, UCLA20.centre)
    assert centred(clip, UCLA20.centre) is clip


def test_a_graph_says_its_centre():
    assert resolve_graph(STICK).centre == 0
    assert resolve_graph(STICK | {"centre": 1}).centre == 1
    for graph in (*GRAPHS.values(), resolve_graph(STICK), resolve_graph(STICK | {"centre": 1})):
        assert resolve_graph(graph.as_mapping()) == graph
    assert "centre" not in NTU25.as_mapping()  # an index of before is of the same skeleton
    with pytest.raises(UserError, match="centre 2 is not one of the 2 joints"):
        resolve_graph(STICK | {"centre": 2})


def test_without_a_dataset_nothing_is_decided():
    feed = Feed.from_config({"num_persons": 0, "origin": ""})
    assert (feed.num_persons, feed.origin) == (1, "")
    named = types.SimpleNamespace(num_persons=2, feeder="")
    assert Feed.from_config({"feeder": "ntu", "origin": "kept"}, named).origin == "kept"
