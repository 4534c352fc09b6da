"""One pass over a file's packets, without decoding: how many pictures, in which order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
from av import Packet
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.decoding.containers import open_video, video_stream
from pipeline.decoding.truncation import is_cut_short

# Packets are kept for the decoding pass up to these budgets; beyond, the file is read again.
_KEPT_BYTES = 64 << 20
_KEPT_PACKETS = 50_000
# A placeholder of a packed or skipped frame has at most this many bytes. A true frame this small is
# counted by its picture.
_PLACEHOLDER_BYTES = 16
# Codecs in which a picture that nothing refers to can be left out, seen by its header alone.
_SKIPPABLE = ("h264", "hevc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What the packets of a video stream say."""

    num_pictures: int
    """Packets that should each give one picture."""
    num_placeholders: int
    """Of them, packets so small that they may stand for no picture at all."""
    declared: int
    """Pictures that the container's header or index claims; 0 where it claims nothing."""
    cut_short: bool
    """The file ends before its container says so."""
    times: list[int] | None
    """Presentation times of the pictures, sorted, where each has its own; None where they cannot be
    told apart by time."""
    packets: Sequence[Packet] | None = field(repr=False)
    """Every packet in file order, pictures or not; None where they are too many to keep."""

    def num_expected(self, num_decoded: int) -> int:
        """Frames the file should hold, given those that came out.

        Placeholders count only where a picture came out for them. A header's claim counts only
        where the file is cut short: real files claim more than they ever held.
        """
        silent = max(0, self.num_pictures - num_decoded)
        expected = self.num_pictures - min(silent, self.num_placeholders)
        return max(expected, self.declared) if self.cut_short else expected


def survey_video(path: Path, container: InputContainer, stream: VideoStream) -> Survey:
    """Read all packets of the stream; the container stands at its end afterwards."""
    codec = stream.codec_context.name
    kept: list[Packet] | None = []
    kept_bytes = num_pictures = num_placeholders = 0
    times: list[int | None] = []
    is_sound = True
    for packet in read_packets(container, stream):
        if kept is not None:
            kept.append(packet)
            kept_bytes += packet.size
            if kept_bytes > _KEPT_BYTES or len(kept) > _KEPT_PACKETS:
                kept = None
        if not _holds_picture(packet, codec):
            continue
        num_pictures += 1
        num_placeholders += packet.size <= _PLACEHOLDER_BYTES
        times.append(packet.pts)
        is_sound = is_sound and not packet.is_corrupt
    # AVI stores no presentation time: PyAV's are guesses there.
    can_skip = is_sound and codec in _SKIPPABLE and container.format.name != "avi"
    return Survey(
        num_pictures=num_pictures,
        num_placeholders=num_placeholders,
        declared=_declared(container, stream),
        cut_short=is_cut_short(path),
        times=_distinct(times) if can_skip else None,
        packets=kept,
    )


def survey_file(path: Path, max_pixels: int) -> Survey:
    """Survey a file for a reader that opens it by itself.

    Args:
        path: the file.
        max_pixels: largest height x width of a frame.

    Returns:
        The survey.

    Raises:
        VideoError: the file is one that `pipeline.decoding.containers.open_video` refuses.
    """
    with open_video(path, max_pixels) as container:
        return survey_video(path, container, video_stream(path, container))


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Yield the stream's packets; a broken tail ends the file early."""
    try:
        for packet in container.demux(stream):
            if packet.size:  # an empty one asks the codec for its last pictures, or is a lost frame
                yield packet
    except av.FFmpegError:
        return


def _holds_picture(packet: Packet, codec: str) -> bool:
    if packet.is_discard:  # hidden by an edit list: decoded, never shown
        return False
    if codec == "mpeg4":
        return packet.size > 1  # a packed bitstream's placeholder is one byte
    if codec == "vp8":
        return bool(memoryview(packet)[0] & 0x10)  # show_frame, RFC 6386 section 9.1
    return True


def _declared(container: InputContainer, stream: VideoStream) -> int:
    """Frames by the index, else by duration and rate."""
    if stream.frames or container.duration is None or stream.average_rate is None:
        return int(stream.frames)
    return round(container.duration / av.time_base * float(stream.average_rate))


def _distinct(times: list[int | None]) -> list[int] | None:
    known = sorted({time for time in times if time is not None})
    return known if len(known) == len(times) else None
