"""A pose estimator of the user's own: a function of one picture, named `package.module:function`.

In: a picture, uint8 [H, W, 3] in RGB. Out: an array [M, V, 3] of M persons: x and y in pixels and a
confidence; or [M, V, 4]: x right, y down and z away from the camera in metres, and a confidence;
None if nobody is there. An attribute `layout` of the function names the joints, e.g. "coco17"; NaN
is a missing joint.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from PIL import Image

from hocslm_jax.errors import UserError
from hocslm_jax.graph import resolve_graph
from hocslm_jax.pose.blazepose import Body


def load_function(name: str) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """(The function `package.module:function`, the layout of its joints).

    Raises:
      UserError: it cannot be imported, or has no known layout.
    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever the module raises
        reason = f"{type(error).__name__}: {str(error)[:100]}"
        raise UserError(f"--pose {name} cannot be imported ({reason})") from error
    layout = getattr(function, "layout", None)
    if not callable(function) or not isinstance(layout, str):
        raise UserError(
            f"--pose {name}: a function with the attribute layout is needed, e.g. "
            f"{attribute}.layout = 'coco17'"
        )
    return function, resolve_graph(layout).name


def follow(
    function: Callable, joints: int, pictures: Iterable[Image.Image], most: int
) -> Iterator[list[Body]]:
    """The bodies in each picture, by the function's answers.

    A person keeps the number of the one who was nearest in the last picture with that one; of new
    persons the surest come first.

    Args:
      function: as `load_function` gives it.
      joints: their number in its layout.
      most: at most so many persons.

    Raises:
      UserError: an answer of another shape.
    """
    last: dict[int, np.ndarray] = {}  # the centre of each person when last seen
    for picture in pictures:
        persons = _checked(function(np.asarray(picture.convert("RGB"))), joints)
        left = sorted(persons, key=lambda person: -np.nan_to_num(person[:, -1]).mean())
        gaps = {
            (track, place): float(np.linalg.norm(_centre(person) - centre))
            for track, centre in last.items()
            for place, person in enumerate(left)
        }
        found: dict[int, np.ndarray] = {}
        matched: set[int] = set()
        for track, place in sorted(gaps, key=gaps.get):  # the nearest two first
            if track not in found and place not in matched:
                found[track] = left[place]
                matched.add(place)
        new = [person for place, person in enumerate(left) if place not in matched]
        numbers = range(len(last), most)
        found |= dict(zip(numbers, new, strict=False))
        last |= {track: _centre(person) for track, person in found.items()}
        yield [_body(track, person) for track, person in sorted(found.items())]


def _checked(answer: object, joints: int) -> np.ndarray:
    """The persons with at least one joint, float32 [M, V, 3 or 4]."""
    try:
        persons = np.asarray([] if answer is None else answer, np.float32)
    except (ValueError, TypeError):
        raise UserError(f"--pose: the function returned {type(answer).__name__}") from None
    if not persons.size:
        return np.zeros((0, joints, 3), np.float32)
    if persons.ndim != 3 or persons.shape[1] != joints or persons.shape[2] not in (3, 4):
        raise UserError(
            f"--pose: the function returned an array of shape {persons.shape}, expected "
            f"(persons, {joints}, 3) of x, y, confidence or (persons, {joints}, 4) of x, y, z, "
            "confidence"
        )
    return persons[~np.isnan(persons[..., :-1]).any(axis=2).all(axis=1)]


def _centre(person: np.ndarray) -> np.ndarray:
    return np.nanmean(person[:, :-1], axis=0)


def _body(track: int, person: np.ndarray) -> Body:
    """A Body; the coordinates that the function does not give are NaN."""
    absent = np.full((len(person), 3), np.nan, np.float32)
    if person.shape[1] == 3:
        return Body(track, absent, person[:, :2], person[:, 2])
    return Body(track, person[:, :3], absent[:, :2], person[:, 3])
