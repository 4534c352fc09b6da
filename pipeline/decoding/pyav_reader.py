"""The exact reader: every picture is known by its place in presentation order, and nothing seeks.

Seeking is where readers go wrong (packed and open groups, edit lists, streams without an index), so
this one feeds packets to the codec from the first to the last. For H.264 and HEVC with sound
presentation times it leaves out pictures that nobody asked for and none refers to, which is half
the work of a typical stream. Wherever that, or the count of packets, turns out to be wrong, the
file is decoded again from the first to the last picture and the frames that came are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av import Packet, VideoFrame
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from pipeline.clips import FrameChooser
from pipeline.decoding.containers import open_video, video_stream
from pipeline.decoding.pictures import PictureReader, codec_options
from pipeline.decoding.survey import Survey, read_packets, survey_video
from pipeline.decoding.types import MAX_PIXELS, DecodedClip
from pipeline.errors import VideoError


@dataclass(slots=True)
class _Pass:
    """What one pass of decoding found."""

    rgb: dict[int, NDArray[np.uint8]] = field(default_factory=dict)
    """Presentation index, or presentation time where the pass skips, -> picture."""
    num_pictures: int = 0
    num_damaged: int = 0


class PyAVDecoder:
    """Decoder on PyAV, whose wheels bring their own FFmpeg on every platform."""

    name = "pyav"

    def __init__(self, *, max_pixels: int = MAX_PIXELS) -> None:
        self._max_pixels = max_pixels

    def version(self) -> str:
        """Versions of PyAV and of the two libraries that decide the pixels."""
        libraries = ", ".join(
            f"{name} {'.'.join(map(str, av.library_versions[name]))}"
            for name in ("libavcodec", "libswscale")
        )
        return f"pyav {av.__version__}, {libraries}"

    def read(self, path: Path, choose: FrameChooser) -> DecodedClip:
        """Decode the frames that ``choose`` picks; see `pipeline.decoding.types.Decoder`.

        Every packet is decoded, also behind the last frame asked for, because a packet counts as a
        frame only if it decodes; the one exception are unasked pictures that none refers to.
        """
        with _Film(path, self._max_pixels) as film:
            num_frames = film.survey.num_pictures
            times = film.survey.times
            if num_frames and times is not None:
                wanted = _ask(choose, num_frames)
                keys = [times[index] for index in wanted]
                found = film.decode(set(keys), skip=True)
                if not found.num_damaged and found.rgb.keys() >= set(keys):
                    return _clip(found, keys, wanted, num_frames, film.survey)
            for _ in range(2):
                wanted = _ask(choose, num_frames) if num_frames else []
                found = film.decode(set(wanted), skip=False)
                if found.num_pictures == num_frames > 0:
                    return _clip(found, wanted, wanted, num_frames, film.survey)
                # Not one picture per packet: choose again, among those that really came.
                num_frames = found.num_pictures
            raise VideoError(
                "undecodable",
                f"{path} holds {film.survey.num_pictures} pictures and {num_frames} decode "
                f"({found.num_damaged} damaged packets); at least 1 was needed; replace the file",
            )


class _Film:
    """A surveyed file that can be decoded several times from its first packet."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        self._path, self._max_pixels = path, max_pixels
        self._container: InputContainer | None = None

    def __enter__(self) -> "_Film":
        self._container = container = open_video(self._path, self._max_pixels)
        self.survey = survey_video(self._path, container, video_stream(self._path, container))
        if self.survey.packets is None:
            self.__exit__()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def decode(self, wanted: set[int], *, skip: bool) -> _Pass:
        """Decode from the first packet to the last, keeping the wanted pictures.

        Args:
            wanted: presentation times if ``skip``, else presentation indices.
            skip: leave out pictures that are not wanted and that no other refers to.

        Returns:
            The wanted pictures that came out, and the counts.
        """
        found, reader = _Pass(), PictureReader(self._path, self._max_pixels)
        with self._fresh_container() as container:
            stream = video_stream(self._path, container)
            context = stream.codec_context
            # One thread per child and one child per core: a second thread costs CPU time.
            context.thread_count = 1
            context.options = codec_options(self._max_pixels)
            packets = self.survey.packets or read_packets(container, stream)
            for packet in chain(packets, (None,)):  # None: give the pictures that are held back
                if skip and packet is not None:
                    is_needed = packet.is_keyframe or packet.pts in wanted
                    context.skip_frame = "DEFAULT" if is_needed else "NONREF"
                pictures = _decode_packet(context, packet, found)
                _take(pictures, wanted, found, reader, by_time=skip)
        return found

    def _fresh_container(self) -> InputContainer:
        """The surveyed container once, then new ones: a codec remembers a stream past a flush."""
        container, self._container = self._container, None
        return container or open_video(self._path, self._max_pixels)


def _decode_packet(
    context: VideoCodecContext, packet: Packet | None, found: _Pass
) -> Sequence[VideoFrame]:
    try:
        return context.decode(packet)
    except av.MemoryError:
        raise
    except av.FFmpegError as error:
        found.num_damaged += not isinstance(error, av.EOFError)
        return ()


def _take(
    pictures: Sequence[VideoFrame],
    wanted: set[int],
    found: _Pass,
    reader: PictureReader,
    *,
    by_time: bool,
) -> None:
    for picture in pictures:
        key = picture.pts if by_time else found.num_pictures
        found.num_pictures += 1
        found.num_damaged += picture.is_corrupt
        if key in wanted and key not in found.rgb:
            assert key is not None  # None is never wanted
            found.rgb[key] = reader.to_rgb(picture)


def _ask(choose: FrameChooser, num_frames: int) -> list[int]:
    return [int(index) for index in choose(num_frames)]


def _clip(
    found: _Pass, keys: Sequence[int], wanted: Sequence[int], num_frames: int, survey: Survey
) -> DecodedClip:
    return DecodedClip(
        frames=np.ascontiguousarray(np.stack([found.rgb[key] for key in keys])),
        frame_indices=np.array(wanted, np.int32),
        num_frames_decoded=num_frames,
        num_frames_expected=survey.num_expected(num_frames),
        num_damaged_packets=found.num_damaged,
    )
