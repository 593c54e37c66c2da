"""The geometry between the image, the detector's boxes and the landmark model's square."""

import math

import numpy as np
import pytest
from PIL import Image

from hocslm_jax.pose import regions
from hocslm_jax.pose.blazepose import cut
from hocslm_jax.pose.placing import FOCAL, place
from hocslm_jax.pose.regions import Region


def test_anchors_are_the_centres_of_the_detectors_cells():
    places = regions.anchors()
    assert places.shape == (2254, 2)
    np.testing.assert_allclose(places[:4] * 224, [[4, 4], [4, 4], [12, 4], [12, 4]], atol=1e-4)
    first_of_16 = 28 * 28 * 2
    np.testing.assert_allclose(places[first_of_16] * 224, [8, 8], atol=1e-4)
    np.testing.assert_allclose(places[-6:] * 224, [[208, 208]] * 6, atol=1e-4)


def test_raw_outputs_are_pixels_from_the_anchor():
    raw = np.zeros((3, 12), np.float32)
    raw[1] = [11.2, -22.4, 44.8, 22.4, 0, 0, 0, -112, 22.4, 0, 0, 0]
    places = np.full((3, 2), 0.5, np.float32)
    found = regions.decode(raw, np.array([-1e9, 3.0, 0.5]), places)
    assert found.scores == pytest.approx([1 / (1 + math.exp(-3)), 1 / (1 + math.exp(-0.5))])
    np.testing.assert_allclose(found.boxes[0], [0.45, 0.35, 0.65, 0.45], atol=1e-6)
    points = [[0.5, 0.5], [0.5, 0], [0.6, 0.5], [0.5, 0.5]]
    np.testing.assert_allclose(found.points[0], points, atol=1e-6)


def test_overlapping_boxes_are_merged_by_score():
    boxes = np.array([[0, 0, 1, 1], [0.1, 0, 1.1, 1], [5, 5, 6, 6]])
    points = np.stack([np.full((4, 2), v) for v in (0.0, 1.0, 7.0)])
    found = regions.merged(regions.Detections(np.array([0.9, 0.6, 0.5]), boxes, points))
    assert found.scores.tolist() == [0.9, 0.5]
    np.testing.assert_allclose(found.points[:, 0, 0], [0.4, 7])
    np.testing.assert_allclose(found.boxes[0], [0.04, 0, 1.04, 1])
    none = regions.merged(regions.decode(np.zeros((1, 12)), np.array([-9.0]), np.zeros((1, 2))))
    assert none.points.shape == (0, 4, 2)


def test_overlap_of_boxes():
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 2, 3, 3], [0, 0, 0, 0]])
    np.testing.assert_allclose(regions.overlap(boxes[0], boxes), [1, 1 / 3, 0, 0])


@pytest.mark.parametrize("degrees", [0, 90, -90, 30, 180])
def test_the_square_is_rotated_with_the_person(degrees):
    angle = math.radians(degrees)
    up = 100 * np.array([math.sin(angle), -math.cos(angle)])  # from the hips to above the head
    region = regions.region_of((300, 200), (300 + up[0], 200 + up[1]))
    assert region.side == pytest.approx(250)
    assert math.cos(region.angle - angle) == pytest.approx(1)
    head = regions.to_image(np.array([0.5, 0.5 - 100 / 250]), region)
    np.testing.assert_allclose(head, [300 + up[0], 200 + up[1]], atol=1e-9)


def test_world_landmarks_are_rotated_with_the_square():
    lying = Region(0, 0, 1, math.pi / 2)  # the head is to the right
    turned = regions.turned_back(np.array([[0, -1, 0.5]]), lying)
    np.testing.assert_allclose(turned, [[1, 0, 0.5]], atol=1e-9)


@pytest.mark.parametrize("side", [64, 300])
def test_cropped_square_matches_its_points(side):
    """A landmark's position in the crop shows its pixel of the image."""
    y, x = np.mgrid[:400, :500]
    image = Image.fromarray(np.stack([x / 2, y / 2, 0 * x], axis=-1).astype(np.uint8))
    region = Region(240, 190, side, math.radians(25))
    picture = cut(image, region, 64)
    for u, v in ((32, 32), (10, 50), (60, 5)):
        there = regions.to_image(np.array([(u + 0.5) / 64, (v + 0.5) / 64]), region)
        np.testing.assert_allclose(picture[v, u, :2], there / 2, atol=1.5)


def test_a_crop_is_black_outside_the_image():
    picture = cut(Image.new("RGB", (20, 20), "white"), Region(0, 10, 20, 0.0), 20)
    assert picture[:, :9].max() == 0 and picture[:, 11:].min() == 255


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280)])
def test_a_persons_position_matches_the_image(size):
    rng = np.random.default_rng(0)
    world, where = rng.normal(scale=0.4, size=(33, 3)), np.array([-0.7, 0.3, 3.2])
    there = world + where
    pixels = FOCAL * max(size) * there[:, :2] / there[:, 2:] + np.asarray(size) / 2
    weights = np.ones(33)
    np.testing.assert_allclose(place(world, pixels, weights, size), where, atol=1e-6)
    pixels[:5] += 500  # hidden joints are ignored
    weights[:5] = 0
    np.testing.assert_allclose(place(world, pixels, weights, size), where, atol=1e-6)
