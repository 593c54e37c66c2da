"""Finds RGB videos and takes a few frames of each as JPEG, to show them to a model.

PyAV decodes, one thread per clip. Only the chosen frames are scaled and kept, so that a clip takes
some hundred kilobytes however long it is. A video that is empty, cut off or damaged raises
ValueError with the reason: half an action must not be described as a whole one.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hocslm_jax.errors import UserError
from hocslm_jax.files.text import read_lines

SUFFIXES = (".avi", ".mp4", ".mkv")
JPEG_QUALITY = 90
MIN_SHARE = 0.9  # of the frames and seconds that the header states; headers are often a bit off
SOUND_TAIL = 0.5  # seconds that sound may continue after the last frame
TICKS = 1_000_000  # in a second of a container's stated length


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


def find_videos(folder: str | Path, ids: str | Path | None = None) -> dict[str, Path]:
    """Clip id to file, sorted by id, for all videos at any depth of `folder`.

    Args:
      ids: a file that names the clips to keep, one id a line; None keeps all.

    The id is the file's name without suffix and without a final `_rgb`, as NTU names its videos
    (S001C001P001R001A001_rgb.avi is the video of S001C001P001R001A001.skeleton).

    Raises:
      UserError: no such folder, no videos in it, two videos of one id, or none that `ids` names.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --videos names the one that holds the clips")
    videos: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} is a link out of {folder}; remove it, or move the video there")
        clip = path.stem.removesuffix("_rgb") or path.stem
        if clip in videos:
            raise UserError(f"{path} and {videos[clip]} are both clip {clip}; move one away")
        videos[clip] = path
    if not videos:
        raise UserError(f"{folder}: no {', '.join(SUFFIXES)} files in it or in its folders")
    videos = dict(sorted(videos.items()))
    if ids is None:
        return videos
    wanted = {line for _, line in read_lines(ids)}
    chosen = {clip: path for clip, path in videos.items() if clip in wanted}
    if not chosen:
        raise UserError(f"{ids}: none of its ids has a video; ids look like {min(videos)}")
    return chosen


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

    if not Path(path).stat().st_size:
        raise ValueError("empty file")
    try:
        with av.open(str(path)) as container:
            total, fps = _measure(container)
        middles = (np.arange(count) + 0.5) * total / count
        indices = tuple(sorted(set(middles.astype(int).tolist())))
        with av.open(str(path)) as container:
            jpegs = tuple(_decode(container, indices, size))
    except av.FFmpegError as error:
        raise ValueError(f"cannot be decoded ({error.strerror or error})") from None
    if len(jpegs) < len(indices):
        raise ValueError(f"only {len(jpegs)} of {len(indices)} frames could be decoded")
    return Frames(jpegs, indices, total, fps)


def _measure(container) -> tuple[int, float]:
    """Frames and frame rate of a video, counted without decoding; refuses one that was cut off."""
    stream = next(iter(container.streams.video), None)
    if stream is None:
        raise ValueError("no video stream")
    stamps = [p.dts if p.pts is None else p.pts for p in container.demux(stream) if p.size]
    if not stamps:
        raise ValueError("no frames")
    if len(stamps) < MIN_SHARE * stream.frames:
        raise ValueError(f"cut off: {len(stamps)} of {stream.frames} frames")
    fps, tick = float(stream.average_rate or 0), float(stream.time_base or 0)
    if fps and tick and None not in stamps:
        seconds = (max(stamps) - min(stamps)) * tick + 1 / fps
        # Matroska states no number of frames, only one length for all its streams.
        stated = (stream.duration or 0) * tick or (container.duration or 0) / TICKS
        if seconds < MIN_SHARE * stated - SOUND_TAIL:
            raise ValueError(f"cut off: {seconds:.1f} of {stated:.1f} s")
    return len(stamps), fps


def _decode(container, indices: tuple[int, ...], size: int) -> Iterator[bytes]:
    """The frames at `indices` as JPEG, scaled so that the longer side is at most `size`."""
    stream = container.streams.video[0]
    stream.codec_context.thread_count = 1  # several clips are decoded at once
    wanted = set(indices)
    for index, frame in enumerate(container.decode(stream)):
        if index in wanted:
            scale = min(1.0, size / max(frame.width, frame.height))
            width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
            buffer = io.BytesIO()
            picture = frame.to_image(width=width, height=height)
            picture.save(buffer, format="JPEG", quality=JPEG_QUALITY)
            yield buffer.getvalue()
        if index >= indices[-1]:
            return
