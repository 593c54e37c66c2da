"""BlazePose on LiteRT: detects and tracks people, and finds their 33 landmarks in each frame.

In: RGB images one after another, and a folder with the model files of the npm package
`@mediapipe/pose`. Out: the bodies in each frame. A detector finds people; the landmark model then
follows each of them in the square predicted from the previous frame's landmarks. The detector runs
again only every few frames, or when a person is lost.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hocslm_jax.errors import UserError
from hocslm_jax.pose import regions
from hocslm_jax.pose.placing import place
from hocslm_jax.pose.regions import Region

DETECTOR = ("pose_detection.tflite", "pose_solution_packed_assets.data")
LANDMARKS = "pose_landmark_{}.tflite"
HOW = "npm pack @mediapipe/pose && tar xzf mediapipe-pose-*.tgz"
SIZE = 256  # pixels, each side of the landmark model's input
JOINTS = 33
PRESENT = 0.5  # least score of the landmark model for a person to be present
LOOK_EVERY = 15  # frames between detections while fewer people are tracked than allowed
MOST_THREADS = 4


class Body(NamedTuple):
    """One person in one frame.

    Attributes:
      track: the person's number, the same in all frames, from 0.
      joints: [33, 3], metres from the camera: x right, y down, z away.
      pixels: [33, 2], in the image.
      confidence: [33], 0 to 1, that the joint is in the image and visible.
    """

    track: int
    joints: np.ndarray
    pixels: np.ndarray
    confidence: np.ndarray


class Landmarks(NamedTuple):
    """The landmark model's output for one region: as in Body, and the region for the next frame."""

    world: np.ndarray
    pixels: np.ndarray
    confidence: np.ndarray
    score: float
    next: Region


Look = Callable[[Image.Image], list[Region]]
Measure = Callable[[Image.Image, Region], Landmarks]


def open_follow(folder: Path, kind: str = "full") -> Callable:
    """BlazePose as a function (pictures, max. persons) -> the bodies in each picture.

    Args:
      folder: the unpacked npm package with the model files, or a folder that contains it.
      kind: of the landmark model: lite, full or heavy.

    Raises:
      UserError: LiteRT or the model files are missing.
    """
    detector, landmarks = (_open(path) for path in find_models(folder, kind))
    look, measure = detector_of(detector), landmarks_of(landmarks)
    return lambda frames, persons: track(frames, look, measure, persons)


def track(
    frames: Iterable[Image.Image], look: Look, measure: Measure, persons: int
) -> Iterator[list[Body]]:
    """The bodies in each frame, in the order of their numbers.

    Args:
      look: finds the regions of people in a picture.
      measure: finds the landmarks in a region.
      persons: most people at a time.
    """
    known: dict[int, Region] = {}  # where to look in the next frame, by the person's number
    last: dict[int, Region] = {}  # where each person was seen last, including lost ones
    looked = -LOOK_EVERY
    for number, image in enumerate(frames):
        if not known or (len(known) < persons and number - looked >= LOOK_EVERY):
            looked = number
            for region in look(image):
                if len(known) < persons and regions.is_new(region, [*known.values()]):
                    known[_number_for(region, known, last, persons)] = region
        bodies, seen = [], []
        for name, region in sorted(known.items()):
            found = measure(image, region)
            if found.score < PRESENT or not regions.is_new(found.next, seen):
                del known[name]
                continue
            known[name] = last[name] = found.next
            seen.append(found.next)
            where = place(found.world, found.pixels, found.confidence + 1e-3, image.size)
            joints = (found.world + where).astype(np.float32)
            bodies.append(Body(name, joints, found.pixels, found.confidence))
        yield bodies


def _number_for(region: Region, known: dict, last: dict[int, Region], persons: int) -> int:
    """The free number of the nearest lost person; an unused number if none was lost nearby."""
    free = [number for number in range(persons) if number not in known]
    return min(free, key=lambda n: regions.distance(region, last[n]) if n in last else region.side)


def find_models(folder: Path, kind: str) -> tuple[Path, Path]:
    """(detector, landmark model) in a folder or in one below it.

    Raises:
      UserError: they are missing; says how to get them.
    """
    for place_ in (folder, folder / "package", folder / "node_modules" / "@mediapipe" / "pose"):
        detector = next((place_ / n for n in DETECTOR if (place_ / n).is_file()), None)
        landmarks = place_ / LANDMARKS.format(kind)
        if detector and landmarks.is_file():
            return detector, landmarks
    raise UserError(
        f"{folder} has no {LANDMARKS.format(kind)} with {DETECTOR[1]}: get them with `{HOW}`, "
        "and name the folder `package` with --pose-model"
    )


def detector_of(model: Callable[[np.ndarray], dict[int, np.ndarray]]) -> Look:
    """A function image -> regions of people, best first."""
    places = regions.anchors()

    def look(image: Image.Image) -> list[Region]:
        square = regions.whole(*image.size)
        pixels = cut(image, square, regions.DETECTOR_SIZE)
        outputs = model(pixels / 127.5 - 1)
        raw = outputs[len(places) * 12].reshape(-1, 12)
        found = regions.merged(regions.decode(raw, outputs[len(places)].reshape(-1), places))
        points = regions.to_image(found.points, square)
        return [regions.region_of(hips, rim) for hips, rim, *_ in points]

    return look


def landmarks_of(model: Callable[[np.ndarray], dict[int, np.ndarray]]) -> Measure:
    """A function (image, region) -> landmarks. The model's outputs are known by their sizes."""

    def measure(image: Image.Image, region: Region) -> Landmarks:
        outputs = model(cut(image, region, SIZE) / 255)
        table = outputs[195].reshape(
            39, 5
        )  # x, y, z, visibility, presence; the last 6 are auxiliary
        pixels = regions.to_image(table[:, :2] / SIZE, region)
        world = regions.turned_back(outputs[117].reshape(39, 3)[:JOINTS], region)
        sure = 1 / (1 + np.exp(-np.clip(table[:JOINTS, 3:], -50, 50)))
        return Landmarks(
            world,
            pixels[:JOINTS].astype(np.float32),
            sure.min(axis=1).astype(np.float32),
            float(outputs[1].reshape(())),
            regions.region_of(pixels[JOINTS], pixels[JOINTS + 1]),
        )

    return measure


def cut(image: Image.Image, region: Region, size: int) -> np.ndarray:
    """A region of an RGB image as float32 [size, size, 3], 0 to 255; black beyond the image."""
    factor = int(region.side // size)
    if factor > 1:  # average first, or sampling would miss thin limbs
        small = image.reduce(factor)
        return cut(small, Region(*(v / factor for v in region[:3]), region.angle), size)
    picture = image.transform(
        (size, size),
        Image.Transform.AFFINE,
        regions.crop_coefficients(region, size),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(picture, np.float32)


def _open(path: Path) -> Callable[[np.ndarray], dict[int, np.ndarray]]:
    """A model as a function: input [H, W, 3] -> {number of values: output}."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise UserError(
            f"poses need LiteRT ({error}): pip install ai-edge-litert av, or this package with "
            "its extra [video]"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            threads = min(MOST_THREADS, os.cpu_count() or 1)
            interpreter = Interpreter(model_content=path.read_bytes(), num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UserError(f"{path} is not a model that LiteRT can read ({reason}): `{HOW}`") from None
    source = interpreter.get_input_details()[0]["index"]
    targets = interpreter.get_output_details()

    def call(pixels: np.ndarray) -> dict[int, np.ndarray]:
        interpreter.set_tensor(source, pixels[None].astype(np.float32))
        interpreter.invoke()
        found = (interpreter.get_tensor(target["index"]) for target in targets)
        return {array.size: array for array in found}

    return call
