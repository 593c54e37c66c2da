"""The geometry of BlazePose: anchors, boxes, and the square of the image in which a person stands.

In and out: NumPy arrays in pixels of the image, x to the right and y down. No model is needed here.
The numbers are those of MediaPipe's pose graphs (github.com/google-ai-edge/mediapipe, modules
`pose_detection` and `pose_landmark`; Bazarevsky et al. 2020, BlazePose).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DETECTOR_SIZE = 224  # pixels, each side of the detector's input
ANCHORS_PER_CELL = {8: 2, 16: 2, 32: 6}  # by stride; three layers have a stride of 32
LEAST_SCORE = 0.5  # of an accepted detection
SAME_BOX = 0.3  # IoU above which two detections are the same person
MARGIN = 1.25  # scale of the square around the circle that encloses a person
SAME_PLACE = 0.1  # distance of hips, in sides of the square, below which persons are the same


class Region(NamedTuple):
    """A square in the image, in pixels, rotated clockwise by `angle` radians."""

    x: float
    y: float
    side: float
    angle: float


class Detections(NamedTuple):
    """The detector's detections, best first.

    Attributes:
      scores: [N], 0 to 1.
      boxes: [N, 4], the faces: left, top, right, bottom.
      points: [N, 4, 2]; the first is between the hips, the second on the circle that encloses the
        person, above the head.
    """

    scores: np.ndarray
    boxes: np.ndarray
    points: np.ndarray


def anchors() -> np.ndarray:
    """The centres of the detector's boxes as shares of its input, float32 [2254, 2]."""
    rows = []
    for stride, count in ANCHORS_PER_CELL.items():
        cells = DETECTOR_SIZE // stride
        centres = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        rows.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), count, axis=0))
    return np.concatenate(rows).astype(np.float32)


def decode(raw: np.ndarray, logits: np.ndarray, places: np.ndarray) -> Detections:
    """The detector's output as detections, in shares of its input.

    Args:
      raw: [N, 12]: centre, width and height of a box, then four points; pixels from the anchor.
      logits: [N].
      places: the anchors [N, 2].
    """
    scores = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
    good = np.flatnonzero(scores >= LEAST_SCORE)
    good = good[np.argsort(-scores[good], kind="stable")]
    shares = raw[good].reshape(-1, 6, 2) / DETECTOR_SIZE
    centres, sizes = shares[:, 0] + places[good], shares[:, 1]
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    return Detections(scores[good], boxes, shares[:, 2:] + places[good, None])


def merged(found: Detections) -> Detections:
    """One detection per person: overlapping ones are averaged, weighted by their scores."""
    left, rows = np.arange(len(found.scores)), []
    while len(left):
        same = overlap(found.boxes[left[0]], found.boxes[left]) > SAME_BOX
        same[0] = True  # even if the box has no area
        group = left[same]
        weights = found.scores[group] / found.scores[group].sum()
        rows.append(
            (
                found.scores[group[0]],
                np.tensordot(weights, found.boxes[group], axes=1),
                np.tensordot(weights, found.points[group], axes=1),
            )
        )
        left = left[~same]
    scores, boxes, points = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(np.array(scores), np.reshape(boxes, (-1, 4)), np.reshape(points, (-1, 4, 2)))


def overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of one box [4] with others [N, 4]."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    area = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    own = np.maximum(box[2:] - box[:2], 0).prod()
    return shared / np.maximum(area + own - shared, 1e-12)


def region_of(centre: Sequence[float], rim: Sequence[float]) -> Region:
    """The square for the landmark model, rotated so that the person stands upright in it.

    Args:
      centre: the point between the hips, pixels.
      rim: the point above the head on the circle that encloses the person.
    """
    dx, dy = float(rim[0] - centre[0]), float(rim[1] - centre[1])
    side = 2 * MARGIN * math.hypot(dx, dy)
    return Region(float(centre[0]), float(centre[1]), side, math.atan2(dx, -dy))


def whole(width: int, height: int) -> Region:
    """The square around an image."""
    return Region(width / 2, height / 2, max(width, height), 0.0)


def to_image(points: np.ndarray, region: Region) -> np.ndarray:
    """Points [..., 2] in shares of a region, as pixels of the image."""
    flat = (np.asarray(points) - 0.5) * region.side
    return flat @ _turn(region.angle).T + (region.x, region.y)


def turned_back(world: np.ndarray, region: Region) -> np.ndarray:
    """Landmarks [V, 3] of the upright person as the camera sees them, x right and y down."""
    xy = world[:, :2] @ _turn(region.angle).T
    return np.concatenate([xy, world[:, 2:]], axis=1)


def crop_coefficients(region: Region, size: int) -> tuple[float, ...]:
    """Coefficients of Pillow's affine transform that crops a region to `size` x `size` pixels.

    They map a pixel (u, v) of the picture to the image: x = a u + b v + c, y = d u + e v + f.
    """
    scale = region.side / size
    (a, b), (d, e) = scale * _turn(region.angle)
    half = size / 2
    return (a, b, region.x - (a + b) * half, d, e, region.y - (d + e) * half)


def distance(one: Region, other: Region) -> float:
    """Distance between the centres, in pixels."""
    return math.hypot(one.x - other.x, one.y - other.y)


def is_new(region: Region, known: Sequence[Region]) -> bool:
    """Whether a region is not around one of the persons who are tracked already."""
    return all(
        distance(region, other) > SAME_PLACE * max(region.side, other.side) for other in known
    )


def _turn(angle: float) -> np.ndarray:
    """The matrix [2, 2] that rotates points clockwise in the image, where y points down."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])
