"""A few frames of a video as JPEG, for a model.

Only the chosen frames are scaled and kept, so that a clip of any length takes a few hundred
kilobytes. `files.videos` finds videos and detects damaged ones.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from hocslm_jax.files.videos import measure_video, upright
from hocslm_jax.language.caption.crops import Box

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Frames:
    """Frames of one clip, in order of time.

    Attributes:
      jpegs: the encoded pictures.
      indices: 0-based indices among the clip's `total` frames.
      total: number of frames of the clip.
      fps: frames per second of the clip.
      gain: magnification relative to frames without a crop.
    """

    jpegs: tuple[bytes, ...]
    indices: tuple[int, ...]
    total: int
    fps: float
    gain: float = 1.0


def read_frames(path: str | Path, count: int, size: int, box: Box | None = None) -> Frames:
    """At most `count` frames, evenly spaced over the clip, as JPEG.

    The clip is cut into `count` equal parts and the middle frame of each is taken; a clip of
    fewer frames gives all it has.

    Args:
      size: the longer side, in pixels; smaller frames are not enlarged.
      box: the part to show, with at most as many pixels as the whole frame would have.

    Raises:
      ValueError: the video cannot be decoded completely; gives the reason.
    """
    import av

    total, fps = measure_video(path)
    middles = (np.arange(count) + 0.5) * total / count
    indices = tuple(sorted(set(middles.astype(int).tolist())))
    try:
        with av.open(str(path)) as container:
            shown = list(_decode(container, indices, size, box))
    except av.FFmpegError as error:
        raise ValueError(f"cannot be decoded ({error.strerror or error})") from None
    if len(shown) < len(indices):
        raise ValueError(f"only {len(shown)} of {len(indices)} frames could be decoded")
    jpegs, gains = zip(*shown, strict=True)
    return Frames(jpegs, indices, total, fps, gains[0])


def _decode(container, indices: tuple[int, ...], size: int, box: Box | None) -> Iterator:
    """The frames at `indices` as JPEG, each with its gain; see `read_frames`."""
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # several clips are decoded at once
    wanted = set(indices)
    for index, frame in enumerate(container.decode(stream)):
        if index in wanted:
            picture, gain = (upright(frame, size), 1.0) if box is None else _crop(frame, size, box)
            buffer = io.BytesIO()
            picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
            yield buffer.getvalue(), gain
        if index >= indices[-1]:
            return


def _crop(frame, size: int, box: Box) -> tuple[Image.Image, float]:
    """The box of a frame, and its magnification relative to the whole frame of `size`."""
    whole = upright(frame, max(frame.width, frame.height))
    sides = np.array(whole.size)
    low = np.floor(sides * box[:2]).astype(int) // 2 * 2
    high = np.minimum(np.ceil(sides * box[2:]).astype(int), sides)
    part = whole.crop((*low.tolist(), *high.tolist()))
    usual = min(1.0, size / max(whole.size))
    scale = min(1.0, usual * math.sqrt(math.prod(whole.size) / math.prod(part.size)))
    width, height = (max(2, 2 * int(side * scale / 2)) for side in part.size)
    return part.resize((width, height), Image.Resampling.BICUBIC), scale / usual
