"""Opens untrusted video files: listed containers only, no playlist, no network, a pixel budget.

FFmpeg guesses the container from the bytes, so a playlist under the name x.mp4 would open the
addresses in it, and do so while opening. Three locks, each enough by itself: text playlists are
refused by their first bytes, FFmpeg gets a list of containers that it checks before it reads a
header, and of its protocols only ``file`` is left.
"""

import stat
from itertools import islice
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.decoding.pictures import codec_options, refuse_large
from pipeline.errors import VideoError

CONTAINERS = (
    "asf",
    "avi",
    "flv",
    "gif",
    "h264",
    "hevc",
    "ivf",
    "m4v",
    "matroska",
    "mjpeg",
    "mov",
    "mpeg",
    "mpegts",
    "mpegvideo",
    "ogg",
)
"""FFmpeg's names of the containers read; mov stands for mp4, m4v, 3gp, matroska for webm."""

_PLAYLIST_HEADS = (b"#EXTM3U", b"ffconcat", b"v=0", b"[InternetShortcut]", b"[Reference]", b"<")
_PROBED_PACKETS = 8
# Opening decodes a few pictures. Before PyAV 18 these cannot be held to a budget (its options crash
# on containers such as FLV); there FFmpeg's own limit of 268 million pixels has to do.
_AV_MAJOR = int(av.__version__.split(".")[0])
_CAN_LIMIT_PROBING = _AV_MAJOR >= 18
# Titles that are no UTF-8 made older versions raise; PyAV 19 reads them and lost the option.
_LENIENT_METADATA: dict[str, Any] = {"metadata_errors": "ignore"} if _AV_MAJOR < 19 else {}
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC: cover art


def open_video(path: Path, max_pixels: int) -> InputContainer:
    """Open a local video file for reading.

    Args:
        path: the file.
        max_pixels: largest height x width of a frame; a mere claim of more is refused.

    Returns:
        The container; the caller closes it.

    Raises:
        VideoError: missing, not a plain file, not a listed container, or beyond the budget.
    """
    refuse_foreign_file(path)
    locks = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    try:
        container = av.open(
            str(path.absolute()),  # or FFmpeg would take a name with a colon for a protocol
            container_options=locks,
            options=codec_options(max_pixels) if _CAN_LIMIT_PROBING else {},
            **_LENIENT_METADATA,
        )
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(
            "undecodable",
            f"{path} does not open ({_reason(error)}); "
            f"one of the containers {', '.join(CONTAINERS)} was needed; convert or replace it",
        ) from error
    try:
        _check_size(path, container, max_pixels)
    except VideoError:
        container.close()
        raise
    return container


def video_stream(path: Path, container: InputContainer) -> VideoStream:
    """Return the first video stream that is not cover art.

    Args:
        path: the file, for the message.
        container: the opened file.

    Returns:
        The stream.

    Raises:
        VideoError: there is none, or FFmpeg has no decoder for it.
    """
    streams = [stream for stream in container.streams.video if not _is_cover_art(stream)]
    if not streams:
        raise VideoError(
            "undecodable",
            f"{path} holds {len(container.streams)} streams and none is video; "
            "a video stream was needed; replace the file",
        )
    return streams[0]


def refuse_foreign_file(path: Path) -> None:
    """Refuse what must not reach any demuxer: absent files, devices, pipes, playlists.

    Args:
        path: the file.

    Raises:
        VideoError: the file is one of these, or cannot be read.
    """
    try:
        # Not opened before this is known: opening a named pipe would wait for a writer.
        is_plain = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise VideoError("missing", f"{path} is absent ({error.strerror})") from error
    if not is_plain:
        raise VideoError("undecodable", f"{path} is not a plain file; a video file was needed")
    try:
        with path.open("rb") as file:
            head = file.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise VideoError("undecodable", f"{path} cannot be read ({error.strerror})") from error
    if head.startswith(_PLAYLIST_HEADS):
        raise VideoError(
            "undecodable",
            f"{path} is a playlist or other text, beginning {head[:16]!r}; "
            "a file that holds its own frames was needed; replace it",
        )


def _check_size(path: Path, container: InputContainer, max_pixels: int) -> None:
    stream = video_stream(path, container)
    context = stream.codec_context
    if context is None:
        raise VideoError("undecodable", f"{path} is of a codec unknown to this build of FFmpeg")
    if context.width * context.height:
        refuse_large(path, context.width, context.height, max_pixels)
    elif _is_refused_for_size(container, stream, max_pixels):
        raise VideoError(
            "too_large",
            f"{path} has frames beyond the size that may be allocated; "
            f"at most {max_pixels} pixels are allowed; scale it down or raise max_pixels",
        )
    else:
        raise VideoError(
            "undecodable",
            f"{path} does not tell the size of its frames in its first packets; "
            "a stream that begins with a whole picture was needed; replace the file",
        )


def _is_refused_for_size(container: InputContainer, stream: VideoStream, max_pixels: int) -> bool:
    """Whether the codec refuses the first packets for what they claim rather than for damage.

    FFmpeg forgets a size that it may not allocate, but a codec says so by another error.
    """
    context = stream.codec_context
    context.options = codec_options(max_pixels)
    for packet in islice(container.demux(stream), _PROBED_PACKETS):
        try:
            context.decode(packet)
        except (av.error.ArgumentError, av.error.MemoryError):
            return True
        except av.FFmpegError:
            continue
    return False


def _is_cover_art(stream: VideoStream) -> bool:
    # An int or a flag, and in PyAV 14.0 absent: there the first stream is taken, cover art or not.
    disposition = getattr(stream, "disposition", 0)
    return bool(getattr(disposition, "value", disposition) & _ATTACHED_PICTURE)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
