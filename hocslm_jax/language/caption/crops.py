"""Crops videos to the persons in them, located by the clip's `.skeleton` file.

In: files of NTU RGB+D, which include each joint's position in the colour picture. Out: one box for
the whole clip, so that the persons fill the frames that are sent to a model.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from hocslm_jax.data.clip import Nobody
from hocslm_jax.data.prepare.ntu.bodies import COMPAT, Track, denoise
from hocslm_jax.data.prepare.ntu.skeleton import Skeleton, parse_skeleton
from hocslm_jax.data.prepare.ntu.sources import Member, list_members, read_member
from hocslm_jax.errors import UserError, brief

COLOUR = (1920, 1080)  # pixels of the pictures of the colour coordinates
MARGIN = 0.1  # per side, in longer sides of the box: hands and head extend beyond their joints
MIN_SIDE = 216  # pixels of COLOUR
_BODY_WIDTH, _JOINT_WIDTH, _X = 10, 12, 5  # tokens per line; index of the first colour coordinate


class Box(NamedTuple):
    """Part of a picture: its edges as fractions, 0 to 1, of the width and the height."""

    left: float
    top: float
    right: float
    bottom: float


def find_skeletons(source: str | Path) -> dict[str, Member]:
    """Clip id -> `.skeleton` file, for a folder (at any depth) or a zip.

    Raises:
      UserError: no such folder or zip, none of these files in it, or two for one clip.
    """
    members, _ = list_members(Path(source), _say_bad)
    if any(member.place is not None for member in members):
        raise UserError(f"--skeletons {source} is a tar; unpack it and name the folder")
    if not members:
        raise UserError(f"--skeletons {source}: no .skeleton files in it")
    found: dict[str, Member] = {}
    for member in members:
        if first := found.get(member.stem):
            raise UserError(
                f"--skeletons {source}: {first.name} and {member.name} are of one clip; "
                "move one away"
            )
        found[member.stem] = member
    return found


def read_box(member: Member) -> Box:
    """The box of all persons of a file, in all frames.

    Raises:
      Nobody: there is no person in the picture.
      ValueError: the file cannot be read or is damaged; gives the reason.
    """
    return box_of(read_member(member))


def box_of(data: bytes) -> Box:
    """The box around the joints in all frames of a `.skeleton` file, with a margin.

    Bodies that are noise by the dataset's protocol and joints outside the picture are ignored.

    Raises:
      Nobody: no frame has a body, or no joint is in the picture.
      ValueError: it is damaged or no such file; gives the reason.
    """
    skeleton = parse_skeleton(data)
    points: dict[str, list[list[bytes]]] = {}
    for tokens in map(bytes.split, data.splitlines()):
        if len(tokens) == _BODY_WIDTH:
            body = points.setdefault(tokens[0].decode(), [])
        elif len(tokens) == _JOINT_WIDTH:
            body.append(tokens[_X : _X + 2])
    kept = [point for key in _persons(skeleton) for point in points[key]]
    pixels = np.array(kept, np.float64)  # [N, 2]
    pixels = pixels[((pixels >= 0) & (pixels <= COLOUR)).all(axis=1)]  # excludes NaN
    if not len(pixels):
        raise Nobody("no joint is in the picture")
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    half = np.maximum((high - low) / 2 + MARGIN * (high - low).max(), MIN_SIDE / 2)
    half = np.minimum(half, np.array(COLOUR) / 2)
    # A box that would extend beyond an edge of the picture is moved inwards.
    centre = np.clip((low + high) / 2, half, COLOUR - half)
    low, high = (centre - half) / COLOUR, (centre + half) / COLOUR
    return Box(*low.tolist(), *high.tolist())


def _persons(skeleton: Skeleton) -> list[str]:
    """The ids of the bodies that look like persons; all ids if none does."""
    tracks = {key: Track(body.frames, body.joints) for key, body in skeleton.bodies.items()}
    if len(tracks) == 1:
        return list(tracks)
    try:
        kept = denoise(list(tracks.values()), COMPAT["ntu60"])
    except ValueError:
        return list(tracks)
    return [key for key, track in tracks.items() if any(track.joints is k.joints for k in kept)]


def _say_bad(name: str, reason: str) -> None:
    tqdm.write(brief(f"{name}: {reason}"), file=sys.stderr)
