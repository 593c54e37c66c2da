"""RGB videos on disk: finds them, checks that they are complete, and decodes their frames.

PyAV, an optional package, decodes them. An empty, truncated or damaged video raises ValueError with
the reason, so that a part of an action is never used as a whole one.
"""

from collections.abc import Iterator
from pathlib import Path

from PIL import ImageOps

from hocslm_jax.errors import UserError
from hocslm_jax.files.text import read_lines

SUFFIXES = (".avi", ".mp4", ".mkv", ".mov", ".m4v", ".webm")
MIN_SHARE = 0.9  # share of the frames and seconds in the header, which is often slightly wrong
SOUND_TAIL = 0.5  # seconds that sound may continue after the last frame
TICKS = 1_000_000  # units in a second of a container's duration


def is_video(path: str | Path) -> bool:
    """Whether a file is a video, judged by its name."""
    return Path(path).suffix.lower() in SUFFIXES


def find_videos(folder: str | Path, ids: str | Path | None = None) -> dict[str, Path]:
    """Clip id to file, sorted by id, for all videos at any depth of `folder`.

    Args:
      ids: a file that names the clips to keep, one id a line; None keeps all.

    The id is the file's name without suffix and without a final `_rgb`, as NTU names its videos
    (S001C001P001R001A001_rgb.avi is the video of S001C001P001R001A001.skeleton).

    Raises:
      UserError: no such folder, no videos in it, two videos with one id, or none named in `ids`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder with the videos")
    videos: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if not is_video(path) or path.name.startswith(".") or not path.is_file():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{path} is a link out of {folder}; remove it, or move the video there")
        clip = path.stem.removesuffix("_rgb") or path.stem
        if clip in videos:
            raise UserError(f"{path} and {videos[clip]} both have the id {clip}; move one away")
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


def measure_video(path: str | Path) -> tuple[int, float]:
    """Number of frames and frames per second of a video, without decoding; rate 0 if unknown.

    Raises:
      ValueError: with the reason, if it is unreadable or truncated.
    """
    av = _av()
    try:
        if not Path(path).stat().st_size:
            raise ValueError("empty file")
        with av.open(str(path)) as container:
            return _measure(container)
    except av.FFmpegError as error:
        raise ValueError(f"cannot be decoded ({error.strerror or error})") from None
    except OSError as error:
        raise ValueError(error.strerror or "cannot be read") from None


def pictures(path: str | Path, longest: int, every: int = 1, mirrored: bool = False) -> Iterator:
    """Yields the frames as upright RGB pictures of Pillow.

    Args:
      longest: the longer side, pixels; smaller frames are not enlarged.
      every: yields every n-th frame, beginning with the first.
      mirrored: swaps left and right.

    Raises:
      ValueError: with the reason, if the video cannot be decoded.
    """
    av = _av()
    try:
        with av.open(str(path)) as container:
            stream = next(iter(container.streams.video), None)
            if stream is None:
                raise ValueError("no video stream")
            stream.thread_type = "AUTO"
            for index, frame in enumerate(container.decode(stream)):
                if index % every == 0:
                    picture = upright(frame, longest)
                    yield ImageOps.mirror(picture) if mirrored else picture
    except av.FFmpegError as error:
        raise ValueError(f"cannot be decoded ({error.strerror or error})") from None


def upright(frame, longest: int):
    """A decoded frame as an upright RGB picture whose longer side is at most `longest`."""
    scale = min(1.0, longest / max(frame.width, frame.height))
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    picture = frame.to_image(width=width, height=height)
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _av():
    """Imports PyAV when it is needed."""
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"videos need PyAV ({error}): pip install av, or this package with its extra [video]"
        ) from None
    return av


def _measure(container) -> tuple[int, float]:
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
