"""Videos for tests, encoded with PyAV from known pictures, and what a full decode makes of them.

Every scene is a moving textured pattern with the frame's number written in black and white blocks,
so that any two frames differ by far more than codecs and colour conversions change.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


@dataclass(frozen=True, kw_only=True)
class Form:
    """One pair of codec and container."""

    name: str
    suffix: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    max_b_frames: int | None = None
    gop: int = 12
    pix_fmt: str = "yuv420p"
    decord_is_exact: bool = True
    codec_tag: str | None = None


_X264 = {"preset": "veryfast"}
_OPEN_GOP = "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"
_X265 = {
    "preset": "ultrafast",
    "x265-params": "log-level=none:pools=none:frame-threads=1:bframes=3:b-adapt=0:open-gop=1",
}
_VPX = {"deadline": "realtime", "cpu-used": "8"}

FORMS = (
    Form(name="h264_mp4", suffix=".mp4", codec="libx264", options=_X264, max_b_frames=2),
    Form(name="h264_one_gop_mkv", suffix=".mkv", codec="libx264", options=_X264, gop=250),
    Form(name="h264_flv", suffix=".flv", codec="libx264", options=_X264, max_b_frames=2),
    Form(name="h264_mov", suffix=".mov", codec="libx264", options=_X264, max_b_frames=3),
    Form(
        name="h264_open_gop",
        suffix=".mp4",
        codec="libx264",
        options={**_X264, "x264-params": _OPEN_GOP},
        decord_is_exact=False,
    ),
    Form(
        name="h264_mpegts",
        suffix=".ts",
        codec="libx264",
        options=_X264,
        max_b_frames=2,
        decord_is_exact=False,
    ),
    Form(name="hevc_mp4", suffix=".mp4", codec="libx265", options=_X265, decord_is_exact=False),
    Form(name="hevc_mkv", suffix=".mkv", codec="libx265", options=_X265, decord_is_exact=False),
    Form(name="mpeg4_avi", suffix=".avi", codec="mpeg4", codec_tag="XVID"),
    Form(
        name="mpeg4_b_frames_avi",
        suffix=".avi",
        codec="mpeg4",
        max_b_frames=2,
        codec_tag="XVID",
        decord_is_exact=False,
    ),
    Form(
        name="mpeg4_b_frames_mp4",
        suffix=".mp4",
        codec="mpeg4",
        max_b_frames=2,
        decord_is_exact=False,
    ),
    Form(name="mpeg2_ps", suffix=".mpg", codec="mpeg2video", max_b_frames=2, decord_is_exact=False),
    Form(name="mpeg2_ts", suffix=".ts", codec="mpeg2video", max_b_frames=2, decord_is_exact=False),
    Form(name="mpeg1_ps", suffix=".mpg", codec="mpeg1video", decord_is_exact=False),
    Form(name="mjpeg_avi", suffix=".avi", codec="mjpeg", pix_fmt="yuvj420p"),
    Form(name="vp8_webm", suffix=".webm", codec="libvpx", options=_VPX),
    Form(name="vp9_webm", suffix=".webm", codec="libvpx-vp9", options=_VPX),
    Form(
        name="vp9_hidden_frames",
        suffix=".mkv",
        codec="libvpx-vp9",
        options={"deadline": "good", "cpu-used": "5", "auto-alt-ref": "1", "lag-in-frames": "16"},
    ),
    Form(name="wmv2_asf", suffix=".wmv", codec="wmv2", decord_is_exact=False),
    Form(name="flv1_flv", suffix=".flv", codec="flv"),
    Form(name="h263_3gp", suffix=".3gp", codec="h263"),
    Form(name="msmpeg4_avi", suffix=".avi", codec="msmpeg4"),
)
"""Codecs and containers that PyAV's FFmpeg can write."""


def form(name: str) -> Form:
    return next(one for one in FORMS if one.name == name)


def scene(num_frames: int, height: int = 96, width: int = 128) -> np.ndarray:
    """(num_frames, height, width, 3) uint8; a moving pattern and the frame's number in blocks."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    pictures = np.empty((num_frames, height, width, 3), np.uint8)
    for t in range(num_frames):
        for c, (u, v, speed) in enumerate([(9, 14, 0.7), (13, 8, -0.5), (21, 17, 0.9)]):
            pictures[t, :, :, c] = 127 + 90 * np.sin(x / u + speed * t) * np.cos(y / v - speed * t)
        block = max(1, min(height, width) // 8)
        for bit in range(8):
            left = bit * block
            pictures[t, :block, left : left + block] = 255 * (t >> bit & 1)
    return pictures


def write_video(
    path: Path,
    pictures: np.ndarray,
    form: Form,
    *,
    times: Sequence[int] | None = None,
    rate: int = 25,
    muxer_options: dict[str, str] | None = None,
) -> Path:
    """Encode pictures; ``times`` are presentation times in frames, 0, 1, 2, ... by default."""
    height, width = pictures.shape[1:3]
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        stream = container.add_stream(form.codec, rate=rate, options=dict(form.options))
        stream.width, stream.height, stream.pix_fmt = width, height, form.pix_fmt
        context = stream.codec_context
        context.thread_count = 1
        context.gop_size = form.gop
        context.time_base = Fraction(1, rate)
        if form.codec_tag:
            context.codec_tag = form.codec_tag
        if form.max_b_frames is not None:
            context.max_b_frames = form.max_b_frames
        context.bit_rate = 800_000
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode_all(path: Path) -> np.ndarray:
    """Every frame in presentation order, by the plainest use of PyAV there is."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a, b, c, d of an MP4's first track header (ISO 14496-12, 8.3.2), as -1, 0 or 1."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def change_packets(source: Path, target: Path, change: Callable[[int, bytes], bytes]) -> Path:
    """Copy a file, its packets (place, bytes) passed through ``change``, which keeps lengths."""
    with av.open(str(source)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data, at = source.read_bytes(), 0
    for place, packet in enumerate(packets):
        at = data.index(packet, at)
        changed = change(place, packet)
        assert len(changed) == len(packet)
        data = data[:at] + changed + data[at + len(packet) :]
        at += len(packet)
    target.write_bytes(data)
    return target
