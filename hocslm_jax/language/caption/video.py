"""A few frames of a video as JPEG, to show them to a model.

Only the chosen frames are scaled and kept, so that a clip takes some hundred kilobytes however long
it is. `files.videos` finds videos and tells the damaged ones.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hocslm_jax.files.videos import measure_video, upright

JPEG_QUALITY = 90


@dataclass(frozen=True)
class Frames:
    """Frames of one clip, in order of time.

    Attributes:
      jpegs: the encoded pictures.
      indices: their places among the clip's `total` frames, from 0.
      total: frames of the clip.
      fps: frames per second of the clip.
    """

    jpegs: tuple[bytes, ...]
    indices: tuple[int, ...]
    total: int
    fps: float


def read_frames(path: str | Path, count: int, size: int) -> Frames:
    """At most `count` frames, spread evenly over the clip, as JPEG.

    The clip is cut into `count` equal parts and the middle frame of each is taken; a clip of
    fewer frames gives all it has.

    Args:
      size: the longer side, in pixels; smaller frames are not enlarged.

    Raises:
      ValueError: with the reason, when the video cannot be decoded as a whole.
    """
    import av

    total, fps = measure_video(path)
    middles = (np.arange(count) + 0.5) * total / count
    indices = tuple(sorted(set(middles.astype(int).tolist())))
    try:
        with av.open(str(path)) as container:
            jpegs = tuple(_decode(container, indices, size))
    except av.FFmpegError as error:
        raise ValueError(f"cannot be decoded ({error.strerror or error})") from None
    if len(jpegs) < len(indices):
        raise ValueError(f"only {len(jpegs)} of {len(indices)} frames could be decoded")
    return Frames(jpegs, indices, total, fps)


def _decode(container, indices: tuple[int, ...], size: int) -> Iterator[bytes]:
    """The frames at `indices` as JPEG, scaled so that the longer side is at most `size`."""
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # several clips are decoded at once
    wanted = set(indices)
    for index, frame in enumerate(container.decode(stream)):
        if index in wanted:
            buffer = io.BytesIO()
            upright(frame, size).save(buffer, format="JPEG", quality=JPEG_QUALITY)
            yield buffer.getvalue()
        if index >= indices[-1]:
            return
